from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from flybackup.doctor import Finding
from flybackup.doctor.storage import skew
from flybackup.model import Facts, Snapshot, SnapshotId, Summary, TableFacts
from flybackup.operations.verify import RestoreReport, TableCheck
from flybackup.report.restoration import LARGEST, restore_text
from flybackup.report.table import Block, Table, plain
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
