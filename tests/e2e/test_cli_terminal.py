"""On a terminal: passphrases are asked for and not shown, long work shows how far it is, tables fit."""

from pathlib import Path

from rigs.program import PASSPHRASE, Program
from rigs.terminal import COLUMNS, Terminal


def test_a_passphrase_is_asked_for_and_not_shown(flybackup: Program, database: Path, terminals: list[Terminal]) -> None:
    program = flybackup.having(FLYBACKUP_PASSPHRASE=None)
    making = Terminal(program, "init")
    terminals.append(making)
    making.answer("New passphrase", PASSPHRASE)
    making.answer("Once more", PASSPHRASE)
    assert making.ended() == 0, making.shown
    assert "flybackup-recovery-1-" in making.shown
    backing_up = Terminal(program, "backup", database)
    terminals.append(backing_up)
    backing_up.answer("Passphrase", PASSPHRASE)
    assert backing_up.ended() == 0, backing_up.shown
    assert "Backed up tournament" in backing_up.shown
    assert PASSPHRASE not in making.shown + backing_up.shown


def test_the_progress_line_and_tables_fit(backed_up: Program, terminals: list[Terminal]) -> None:
    restoring = Terminal(backed_up, "restore", "tournament", "--to", "copy.duckdb")
    terminals.append(restoring)
    assert restoring.ended() == 0, restoring.shown
    assert "restore tournament" in restoring.shown
    assert '"event"' not in restoring.shown
    table = [line for line in restoring.lines() if line.startswith(("TABLE", "main.games", "archive.old"))]
    assert len(table) == 3
    assert max(map(len, table)) <= COLUMNS
    listing = Terminal(backed_up, "snapshots")
    terminals.append(listing)
    assert listing.ended() == 0
    assert max(len(line.rstrip()) for line in listing.lines()) <= COLUMNS
