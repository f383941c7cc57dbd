"""What `restore` and `verify` say: read at 3 a.m., so calm, complete, short."""

from collections.abc import Iterator
from datetime import datetime, tzinfo

from flybackup.model import Snapshot
from flybackup.operations.verify import RestoreReport, TableCheck
from flybackup.report.table import Block, Table
from flybackup.report.units import count, human_age, human_bytes, human_seconds, human_time

LARGEST = 20
"""Tables that are listed when all is well; the rest is summed up."""


def restore_text(
    report: RestoreReport, snapshot: Snapshot, *, zone: tzinfo, now: datetime, dry_run: bool
) -> Iterator[Block]:
    when = f"{human_time(snapshot.time, zone)} ({human_age(now - snapshot.time)})"
    what = f"Snapshot {snapshot.id} of {snapshot.source}\n  taken {when}"
    cost = f"{human_bytes(report.bytes)} in {human_seconds(report.seconds)}"
    if dry_run:
        yield f"{what}\ncan be read: {human_bytes(report.bytes)}."
    elif report.differs:
        yield _failure(report)
        yield f"{what}\nwas read, and does not hold what it should."
        yield from _differences(report)
    else:
        yield f"Restored {snapshot.source} to {report.target}\n  as it was at {when}\n  {cost}"
        yield from _agreement(report)
    yield from report.notes
    if report.differs and not dry_run:
        yield f"What to do: restore an older one; they are listed by\n  flybackup snapshots --source {snapshot.source}"


def _failure(report: RestoreReport) -> str:
    if report.target_changed:
        return f"RESTORED, BUT NOT WHAT IT SHOULD BE. {report.target} was written to."
    return f"NOT RESTORED. {report.target} was not changed."


def verify_text(report: RestoreReport, snapshot: Snapshot, *, zone: tzinfo) -> Iterator[Block]:
    what = f"  snapshot {snapshot.id} of {snapshot.source}, taken {human_time(snapshot.time, zone)}"
    if report.verified:
        yield f"{report.target} holds what the snapshot holds:\n{what}"
        yield from _agreement(report)
    else:
        yield f"{report.target} DIFFERS from the snapshot:\n{what}"
        yield from _differences(report)


def _agreement(report: RestoreReport) -> Iterator[Block]:
    if not report.verified:
        yield "NOT VERIFIED: nothing was compared, because --no-verify was given, or the snapshot counts nothing."
        return
    if report.tables:
        rows = sum(table.expected for table in report.tables)
        yield f"Verified: {count(len(report.tables), 'table')}, {count(rows, 'row')}, all as in the snapshot."
        yield from _largest(report.tables)
    if report.files:
        yield f"Verified: {count(report.files.expected, 'file')}, as in the snapshot."
    if not report.tables and not report.files:
        yield "Verified: every byte is what was captured; no tables or files were counted."


def _largest(tables: tuple[TableCheck, ...]) -> Iterator[Block]:
    shown = sorted(tables, key=lambda table: (-table.expected, table.name))[:LARGEST]
    yield _table(sorted(shown, key=lambda table: table.name) if len(tables) <= LARGEST else shown)
    if len(tables) > LARGEST:
        yield f"… and {count(len(tables) - LARGEST, 'smaller table')}. --json lists all."


def _differences(report: RestoreReport) -> Iterator[Block]:
    wrong = [table for table in report.tables if not table.ok]
    if wrong:
        yield f"{len(wrong):,} of {count(len(report.tables), 'table')} differ:"
        yield _table(wrong)
    if report.files and not report.files.ok:
        yield f"Files: {report.files.expected:,} expected, {_found(report.files.actual)} found."
    yield from report.problems


def _table(tables: list[TableCheck]) -> Table:
    rows = [(each.name, f"{each.expected:,}", _found(each.actual), "ok" if each.ok else "DIFFERS") for each in tables]
    marked = frozenset(number for number, each in enumerate(tables) if not each.ok)
    return Table(("TABLE", ">EXPECTED", ">FOUND", ""), rows, marked)


def _found(number: int | None) -> str:
    return "missing" if number is None else f"{number:,}"
