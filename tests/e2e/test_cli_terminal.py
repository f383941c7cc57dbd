"""On a terminal: passphrases are asked for and not shown, long work shows how far it is, tables fit."""

import os
import re
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from rigs.program import PASSPHRASE, Program

COLUMNS = 80
_LIMIT_SECONDS = 60
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A program on a pseudo-terminal, 80 columns wide. `shown` is all that was written so far."""

    def __init__(self, program: Program, *arguments: str | Path) -> None:
        self._fd, inner = os.openpty()
        termios.tcsetwinsize(inner, (24, COLUMNS))
        self._process = subprocess.Popen(
            program.command(*arguments),
            cwd=program.cwd,
            env={**program.environment(), "TERM": "xterm-256color"},
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
        )
        os.close(inner)
        os.set_blocking(self._fd, False)
        self.shown = ""

    def answer(self, question: str, text: str) -> None:
        """Wait until *question* has been asked, and type *text*."""
        asked = self.shown.count(question)
        self._read_until(lambda: self.shown.count(question) > asked)
        os.write(self._fd, f"{text}\n".encode())

    def ended(self) -> int:
        self._read_until(lambda: self._process.poll() is not None)
        self._read()
        return self._process.returncode

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)

    def lines(self) -> list[str]:
        return _CONTROL.sub("", self.shown).replace("\r", "\n").splitlines()

    def _read_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _LIMIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.shown
            self._read()
            time.sleep(0.005)

    def _read(self) -> None:
        with suppress(BlockingIOError, OSError):  # nothing yet; or the other end is closed (EIO)
            while data := os.read(self._fd, 65536):
                self.shown += data.decode()


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for each in opened:
        each.close()


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
