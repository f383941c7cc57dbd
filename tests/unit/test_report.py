from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from flybackup.cli.backup import exit_code
from flybackup.doctor import Finding
from flybackup.doctor.storage import skew
from flybackup.errors import FlybackupError, IntegrityError, RefusedError, SourceError
from flybackup.model import Facts, Snapshot, SnapshotId, Summary, TableFacts
from flybackup.operations.backup import Failure
from flybackup.operations.restore import SetOutcome
from flybackup.operations.select import FoundSet
from flybackup.operations.verify import RestoreReport, TableCheck
from flybackup.report.documents import backup_document, restore_set_document
from flybackup.report.restoration import LARGEST, restore_text
from flybackup.report.restoration_of_sets import restore_set_text
from flybackup.report.table import Block, Table, plain
from flybackup.report.texts import SHOWN, backup_text, show_text, snapshots_text
from flybackup.report.units import count, human_age, human_bytes, human_seconds, human_time

NOW = datetime(2026, 11, 20, 14, 0, tzinfo=UTC)
ZONE = ZoneInfo("America/Los_Angeles")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (619458560, "590.8 MiB"),
        (1024**5 * 5000, "5000.0 PiB"),
    ],
)
def test_bytes(size: int, text: str) -> None:
    assert human_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.123, "0.12 s"), (12.34, "12.3 s"), (250, "4 min 10 s"), (7500, "2 h 05 min")]
)
def test_seconds(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "a moment ago"), (59, "a moment ago"), (60, "1 minute ago"), (7200, "2 hours ago"), (200000, "2 days ago")],
)
def test_ages(seconds: int, text: str) -> None:
    assert human_age(timedelta(seconds=seconds)) == text


def test_times_are_local_and_say_so() -> None:
    assert human_time(NOW, ZONE) == "2026-11-20 06:00:00 -08:00"
    assert human_time(NOW - timedelta(days=90), ZONE) == "2026-08-22 07:00:00 -07:00"


def test_counts() -> None:
    assert [count(1, "row"), count(3000000, "row")] == ["1 row", "3,000,000 rows"]


def test_a_plain_table_aligns_numbers_to_the_right() -> None:
    table = Table(("NAME", ">ROWS", "NOTE"), [("a", "1", ""), ("longer", "1,000", "x")])
    assert plain(table).splitlines() == ["NAME     ROWS  NOTE", "a           1", "longer  1,000  x"]


def snapshot() -> Snapshot:
    return Snapshot(
        id=SnapshotId("0123456789abcdef"),
        source="cup",
        kind="duckdb",
        time=NOW - timedelta(hours=11),
        status="complete",
        method="raw-copy",
        facts=Facts(tables={"main.games": TableFacts(rows=5)}),
        summary=Summary(
            entries=1, bytes_read=1, bytes_new=1, bytes_stored=1, chunks=1, chunks_new=1, requests=1, seconds=1
        ),
        tool="flybackup",
        session="0" * 16,
        manifest=(),
    )


def report(*tables: TableCheck, verified: bool) -> RestoreReport:
    return RestoreReport(
        snapshot=SnapshotId("0123456789abcdef"),
        target="/data/cup.duckdb",
        verified=verified,
        tables=tables,
        files=None,
        bytes=2**20,
        seconds=1.5,
        notes=("The old one is kept.",),
    )


def told(of: RestoreReport) -> list[Block]:
    return list(restore_text(of, snapshot(), zone=ZONE, now=NOW, dry_run=False))


def test_a_restore_says_what_from_when_and_what_next() -> None:
    first, second, table, last = told(report(TableCheck("main.games", 5, 5, True), verified=True))
    assert first == (
        "Restored cup to /data/cup.duckdb\n  as it was at 2026-11-19 19:00:00 -08:00 (11 hours ago)\n  1.0 MiB in 1.5 s"
    )
    assert second == "Verified: 1 table, 5 rows, all as in the snapshot."
    assert isinstance(table, Table)
    assert last == "The old one is kept."


def test_hundreds_of_tables_are_summed_up() -> None:
    many = [TableCheck(f"main.t{number:03}", number, number, True) for number in range(300)]
    blocks = told(report(*many, verified=True))
    table = next(block for block in blocks if isinstance(block, Table))
    assert table.rows[0][0] == "main.t299"
    assert len(table.rows) == LARGEST
    assert "… and 280 smaller tables. --json lists all." in blocks


def test_a_failed_restore_shows_only_what_differs() -> None:
    wrong = TableCheck("main.games", 5, None, False)
    blocks = told(report(TableCheck("main.fine", 1, 1, True), wrong, verified=False))
    assert blocks[0] == "NOT RESTORED. /data/cup.duckdb was not changed."
    table = next(block for block in blocks if isinstance(block, Table))
    assert list(table.rows) == [("main.games", "5", "missing", "DIFFERS")]
    assert table.marked == {0}


# Marks, and what is missing


def test_a_mark_stands_right_behind_the_line_of_the_backup_and_is_bounded() -> None:
    lost = tuple(f"main.t{number}: 1 row, 9 before" for number in range(300))
    marked = replace(snapshot(), anomalies=lost, problems=("a: permission denied",), status="partial", warnings=("w",))
    head, *rest = backup_text([marked], [], dry_run=False)
    assert isinstance(head, str)
    assert head.startswith("Backed up cup as 0123456789abcdef: 1 table, 5 rows")
    assert rest == [
        "  ANOMALY: is this as it should be? The snapshot is kept, and marked.",
        *(f"    {sentence}" for sentence in lost[:SHOWN]),
        "    … and 290 more; flybackup show tells all",
        "  PARTIAL: not everything could be captured. What is missing:",
        "    a: permission denied",
        "  warning: w",
    ]
    shown = list(show_text(marked, [], zone=ZONE, now=NOW))
    assert all(f"  {sentence}" in shown for sentence in (*lost, *marked.problems))


def test_exit_codes_of_a_backup() -> None:
    whole, partial = snapshot(), replace(snapshot(), status="partial", problems=("a: permission denied",))
    failure = Failure("lost", SourceError("gone"))
    assert exit_code([whole], []) == 0
    assert exit_code([replace(whole, anomalies=("empty: no tables",))], []) == 0
    assert exit_code([whole, partial], []) == 3
    assert exit_code([whole], [failure]) == 3
    assert exit_code([], [failure]) == 22


def test_the_list_marks_what_is_to_be_looked_at() -> None:
    marked = replace(snapshot(), anomalies=("empty: no tables",), status="partial")
    (table,) = snapshots_text([snapshot(), marked], zone=ZONE, chosen=False)
    assert isinstance(table, Table)
    assert [row[-1] for row in table.rows] == ["5 rows", "5 rows (partial, ANOMALY)"]
    assert table.marked == {1}


# Sets


def of_set(source: str, begin: float, end: float) -> Snapshot:
    return replace(
        snapshot(), source=source, set_id="5e7" + "0" * 13, set_sources=("cup", "accounts", "lost"), viewed=(begin, end)
    )


FOUND = FoundSet("5e7" + "0" * 13, (of_set("cup", 0.5, 1.5), of_set("accounts", 0.0, 0.25)), ("lost",))


def set_report(source: str, *, published: bool, error: str = "", notes: tuple[str, ...] = ()) -> RestoreReport:
    done = report(TableCheck("main.games", 5, 5, True), verified=True)
    return replace(done, source=source, published=published, error=error, notes=notes)


def set_told(error: FlybackupError | None, *reports: RestoreReport) -> str:
    blocks = restore_set_text(SetOutcome(reports, error), FOUND, zone=ZONE, now=NOW, dry_run=False)
    return "\n".join(block if isinstance(block, str) else plain(block) for block in blocks)


def test_a_backup_of_a_set_says_how_close_together_its_sources_were_taken() -> None:
    *_, last = backup_text(FOUND.snapshots, [], dry_run=False)
    assert last == (
        "Set 5e70000000000000: 2 of 3 sources, taken within 1.5 s. "
        "To restore it: flybackup restore --set 5e70000000000000"
    )
    document = {"id": FOUND.id, "sources": ["cup", "accounts", "lost"], "within_seconds": 1.5}
    assert backup_document(FOUND.snapshots, [])["set"] == document
    assert backup_document([snapshot()], [])["set"] is None


def test_a_restored_set_says_so_first_and_what_is_missing_next() -> None:
    told = set_told(None, set_report("cup", published=True), set_report("accounts", published=True))
    assert told.startswith(
        "Restored 2 sources, put in place in this order: cup, accounts\n"
        "Set 5e70000000000000, taken within 1.5 s\n  at 2026-11-19 19:00:00 -08:00 (11 hours ago)\n"
        "MISSING from this set: lost. Its backup failed in that run, or its snapshot was dropped since.\n"
        "  Its newest one from before: flybackup restore 'lost@2026-11-19T19:00:00' --to TARGET\n"
    )
    assert told.count("Verified: 1 table, 5 rows") == 2
    assert "What to do" not in told


def test_a_set_that_came_half_way_says_what_is_where_and_what_to_do() -> None:
    error = RefusedError("/data/x is in use", hint="Stop the application.")
    first = set_report("cup", published=True, notes=("To undo: mv a b",))
    second = set_report("accounts", published=False, error=str(error), notes=("It is kept at /data/kept.",))
    told = set_told(error, first, second)
    assert told.startswith("HALF RESTORED. In place: cup. NOT in place: accounts.\n")
    for line in ("To undo: mv a b", "  /data/x is in use", "  It is kept at /data/kept.", "Stop the application."):
        assert line in told.splitlines()
    assert "What to do: undo what is in place by its command above" in told
    document = restore_set_document(SetOutcome((first, second), error), FOUND)
    assert document["error"] == {"message": str(error), "hint": "Stop the application.", "exit_code": 24}
    assert [each["published"] for each in document["restores"]] == [True, False]
    assert (document["set"], document["missing"], document["within_seconds"]) == (FOUND.id, ["lost"], 1.5)


def test_a_set_that_failed_before_says_that_nothing_was_changed() -> None:
    error = IntegrityError("its bytes do not match", key="packs/aa")
    first = set_report("cup", published=False, notes=("Restored beside its target, then removed again.",))
    told = set_told(error, first, set_report("accounts", published=False, error=str(error)))
    assert told.startswith("NOT RESTORED. None of 2 targets was changed.\n")
    assert "cup: NOT in place at /data/cup.duckdb\n  Restored beside its target, then removed again." in told
    assert "  packs/aa: its bytes do not match" in told.splitlines()
    assert "flybackup restore 0123456789abcdef --to TARGET" in told


@pytest.mark.parametrize(
    ("written", "level", "words"),
    [
        (timedelta(0), "ok", "agrees"),
        (timedelta(seconds=-20), "ok", "agrees"),
        (timedelta(minutes=-5), "warning", "ahead of"),
        (timedelta(minutes=5), "warning", "behind"),
        (timedelta(hours=1, seconds=1), "error", "1 h 00 min behind"),
    ],
)
def test_clocks_that_differ(written: timedelta, level: str, words: str) -> None:
    found = skew(NOW + written, NOW, NOW + timedelta(milliseconds=40))
    assert isinstance(found, Finding)
    assert found.level == level
    assert words in found.what
