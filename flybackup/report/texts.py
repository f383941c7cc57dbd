"""What a person reads about snapshots, backups and checks: short, complete, with units."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, tzinfo
from itertools import islice

from flybackup.model import Entry, Snapshot, Summary, apart_seconds
from flybackup.operations.check import CheckReport
from flybackup.report.documents import Failed
from flybackup.report.table import Block, Table
from flybackup.report.units import count, human_age, human_bytes, human_seconds, human_time

SHORT_ID = 8
"""Digits of an id that are shown in lists: a prefix is enough to name a snapshot as long as it is unique."""
ENTRIES = 40
"""Entries that `show` lists: a volume may have a million."""
SHOWN = 10
"""Sentences that `backup` prints of what is missing or lost; `show` prints all."""


def backup_text(snapshots: Sequence[Snapshot], failed: Sequence[Failed], *, dry_run: bool) -> Iterator[Block]:
    for snapshot in snapshots:
        yield _backed_up(snapshot, dry_run=dry_run)
        yield from (f"  {line}" for line in _marks(snapshot, SHOWN))
        yield from (f"  warning: {warning}" for warning in snapshot.warnings)
    for each in failed:
        yield f"FAILED {each.source}: {each.error}" + (f"\n  hint: {each.hint}" if each.hint else "")
    if snapshots and snapshots[0].set_id is not None and not dry_run:
        yield _set_taken(snapshots)


def _set_taken(snapshots: Sequence[Snapshot]) -> str:
    first = snapshots[0]
    missing = len(first.set_sources) - len(snapshots)
    some = f"{len(snapshots)} of {count(len(first.set_sources), 'source')}" if missing else "all sources"
    return f"Set {first.set_id}: {some}{within(snapshots)}. To restore it: flybackup restore --set {first.set_id}"


def within(snapshots: Iterable[Snapshot]) -> str:
    """`, taken within 1.2 s`, where that is known."""
    seconds = apart_seconds(snapshots)
    return "" if seconds is None else f", taken within {human_seconds(seconds)}"


def _marks(snapshot: Snapshot, shown: int | None = None) -> Iterator[str]:
    """What is to be looked at: *shown* sentences of each kind, None for all."""
    if snapshot.anomalies:
        yield "ANOMALY: is this as it should be? The snapshot is kept, and marked."
        yield from _some(snapshot.anomalies, shown)
    if snapshot.problems:
        yield "PARTIAL: not everything could be captured. What is missing:"
        yield from _some(snapshot.problems, shown)


def _some(sentences: Sequence[str], shown: int | None) -> Iterator[str]:
    yield from (f"  {sentence}" for sentence in sentences[:shown])
    if shown is not None and len(sentences) > shown:
        yield f"  … and {len(sentences) - shown:,} more; flybackup show tells all"


def _backed_up(snapshot: Snapshot, *, dry_run: bool) -> str:
    head = f"Would back up {snapshot.source}" if dry_run else f"Backed up {snapshot.source} as {snapshot.id}"
    return f"{head}: {contents(snapshot)}\n  {cost(snapshot.summary)}"


def contents(snapshot: Snapshot) -> str:
    """`30 files, 3 tables, 3,000,000 rows`, or entries: what the facts know."""
    tables, files = snapshot.facts.tables, snapshot.facts.files
    known = [count(len(tables), "table"), _amount(snapshot)] if tables else [_amount(snapshot)]
    return ", ".join([count(files, "file"), *known] if tables and files is not None else known)


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
    sets = any(snapshot.set_id for snapshot in snapshots)
    tagged = any(snapshot.tags for snapshot in snapshots)
    optional = (*(["=SET"] if sets else []), *(["TAGS"] if tagged else []))
    columns = ("=ID", "=TIME", "SOURCE", ">STORED", "=CONTENTS", *optional)
    rows = [_snapshot_row(each, zone, sets=sets, tagged=tagged) for each in snapshots]
    yield Table(columns, rows, frozenset(number for number, each in enumerate(snapshots) if each.anomalies))


def _snapshot_row(snapshot: Snapshot, zone: tzinfo, *, sets: bool, tagged: bool) -> tuple[str, ...]:
    return (
        snapshot.id[:SHORT_ID],
        human_time(snapshot.time, zone),
        snapshot.source,
        human_bytes(snapshot.summary.bytes_stored),
        _amount(snapshot) + _state(snapshot),
        *([(snapshot.set_id or "")[:SHORT_ID]] if sets else []),
        *([", ".join(snapshot.tags)] if tagged else []),
    )


def _state(snapshot: Snapshot) -> str:
    said = [*(["partial"] if snapshot.status == "partial" else []), *(["ANOMALY"] if snapshot.anomalies else [])]
    return f" ({', '.join(said)})" if said else ""


def show_text(snapshot: Snapshot, entries: Iterable[Entry], *, zone: tzinfo, now: datetime) -> Iterator[Block]:
    yield "\n".join(f"{name:<10}{value}" for name, value in _head(snapshot, zone, now))
    yield from _marks(snapshot)
    yield from (f"warning: {warning}" for warning in snapshot.warnings)
    listed = list(islice(entries, ENTRIES))
    yield Table(("ENTRY", "KIND", ">SIZE"), [(each.path, each.kind, human_bytes(each.size)) for each in listed])
    if snapshot.summary.entries > len(listed):
        yield f"… and {snapshot.summary.entries - len(listed):,} more entries. --json lists all."
    if snapshot.facts.tables:
        yield _tables(snapshot)


def _head(snapshot: Snapshot, zone: tzinfo, now: datetime) -> Iterator[tuple[str, str]]:
    yield "snapshot", snapshot.id + _state(snapshot)
    yield "source", f"{snapshot.source} ({snapshot.kind})"
    yield "time", f"{human_time(snapshot.time, zone)}, {human_age(now - snapshot.time)}"
    if snapshot.set_id:
        yield "set", f"{snapshot.set_id} ({', '.join(snapshot.set_sources)})"
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
