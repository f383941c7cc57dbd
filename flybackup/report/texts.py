"""What a person reads about snapshots, backups and checks: short, complete, with units."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, tzinfo

from flybackup.model import Entry, Snapshot, Summary
from flybackup.operations.check import CheckReport
from flybackup.report.documents import Failed
from flybackup.report.table import Block, Table
from flybackup.report.units import count, human_age, human_bytes, human_seconds, human_time

SHORT_ID = 8
"""Digits of an id that are shown in lists: a prefix is enough to name a snapshot as long as it is unique."""


def backup_text(snapshots: Sequence[Snapshot], failed: Sequence[Failed], *, dry_run: bool) -> Iterator[Block]:
    for snapshot in snapshots:
        yield _backed_up(snapshot, dry_run=dry_run)
        yield from (f"  partial: {problem}" for problem in snapshot.problems)
        yield from (f"  warning: {warning}" for warning in snapshot.warnings)
    for each in failed:
        yield f"FAILED {each.source}: {each.error}" + (f"\n  hint: {each.hint}" if each.hint else "")


def _backed_up(snapshot: Snapshot, *, dry_run: bool) -> str:
    head = f"Would back up {snapshot.source}" if dry_run else f"Backed up {snapshot.source} as {snapshot.id}"
    return f"{head}: {contents(snapshot)}\n  {cost(snapshot.summary)}"


def contents(snapshot: Snapshot) -> str:
    """`3 tables, 3,000,000 rows`, or files, or entries: what the facts know."""
    tables = snapshot.facts.tables
    return f"{count(len(tables), 'table')}, {_amount(snapshot)}" if tables else _amount(snapshot)


def _amount(snapshot: Snapshot) -> str:
    facts = snapshot.facts
    if facts.tables:
        return count(sum(table.rows for table in facts.tables.values()), "row")
    if facts.files is not None:
        return count(facts.files, "file")
    return f"{snapshot.summary.entries:,} " + ("entry" if snapshot.summary.entries == 1 else "entries")


def cost(summary: Summary) -> str:
    return (
        f"read {human_bytes(summary.bytes_read)}, new {human_bytes(summary.bytes_new)}, "
        f"stored {human_bytes(summary.bytes_stored)}, {human_seconds(summary.seconds)}"
    )


def snapshots_text(snapshots: Sequence[Snapshot], *, zone: tzinfo, chosen: bool) -> Iterator[Block]:
    if not snapshots:
        yield "No snapshot has what was asked for." if chosen else "There are no snapshots. Make one: flybackup backup."
        return
    tagged = any(snapshot.tags for snapshot in snapshots)
    columns = ("=ID", "=TIME", "SOURCE", ">STORED", "=CONTENTS", *(["TAGS"] if tagged else []))
    yield Table(columns, [_snapshot_row(each, zone, tagged=tagged) for each in snapshots])


def _snapshot_row(snapshot: Snapshot, zone: tzinfo, *, tagged: bool) -> tuple[str, ...]:
    return (
        snapshot.id[:SHORT_ID],
        human_time(snapshot.time, zone),
        snapshot.source,
        human_bytes(snapshot.summary.bytes_stored),
        _amount(snapshot) + (" (partial)" if snapshot.status == "partial" else ""),
        *([", ".join(snapshot.tags)] if tagged else []),
    )


def show_text(snapshot: Snapshot, entries: Iterable[Entry], *, zone: tzinfo, now: datetime) -> Iterator[Block]:
    yield "\n".join(f"{name:<10}{value}" for name, value in _head(snapshot, zone, now))
    yield from (f"partial: {problem}" for problem in snapshot.problems)
    yield from (f"warning: {warning}" for warning in snapshot.warnings)
    yield Table(("ENTRY", "KIND", ">SIZE"), [(each.path, each.kind, human_bytes(each.size)) for each in entries])
    if snapshot.facts.tables:
        yield _tables(snapshot)


def _head(snapshot: Snapshot, zone: tzinfo, now: datetime) -> Iterator[tuple[str, str]]:
    yield "snapshot", snapshot.id + (" (partial)" if snapshot.status == "partial" else "")
    yield "source", f"{snapshot.source} ({snapshot.kind})"
    yield "time", f"{human_time(snapshot.time, zone)}, {human_age(now - snapshot.time)}"
    if snapshot.tags:
        yield "tags", ", ".join(snapshot.tags)
    yield "engine", snapshot.facts.engine or "-"
    yield "captured", snapshot.method
    yield "contents", contents(snapshot)
    yield "cost", cost(snapshot.summary)


def _tables(snapshot: Snapshot) -> Table:
    tables = sorted(snapshot.facts.tables.items())
    if any(facts.checksum for _, facts in tables):
        return Table(
            ("TABLE", ">ROWS", "CHECKSUM"),
            [(name, f"{facts.rows:,}", facts.checksum or "-") for name, facts in tables],
        )
    return Table(("TABLE", ">ROWS"), [(name, f"{facts.rows:,}") for name, facts in tables])


def check_text(report: CheckReport, *, read_data: bool) -> Iterator[Block]:
    if report.ok:
        read = (
            f" All {human_bytes(report.bytes_verified)} of packs were read and are what was written."
            if read_data
            else ""
        )
        yield f"No damage found.{read}"
        if not read_data:
            yield "The structure is whole. The bytes of packs were not read: check --read-data does."
        return
    yield f"DAMAGE: {len(report.errors):,} of the stored objects are not what was written."
    for damage in report.errors:
        needed = f"needed by {', '.join(damage.snapshots)}" if damage.snapshots else "no snapshot is known to need it"
        yield f"  {damage.object}\n    {damage.problem}; {needed}"
    yield "Snapshots that are not named here still restore. Make a new snapshot now: flybackup backup."
