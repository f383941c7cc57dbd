"""What `restore --set` says: what is in place and what is not before anything else."""

from collections.abc import Iterator
from datetime import datetime, tzinfo

from flybackup.model import Snapshot
from flybackup.operations.restore import SetOutcome
from flybackup.operations.select import FoundSet
from flybackup.operations.verify import RestoreReport
from flybackup.report.restoration import restore_text
from flybackup.report.table import Block
from flybackup.report.texts import within
from flybackup.report.units import count, human_age, human_time


def restore_set_text(
    outcome: SetOutcome, found: FoundSet, *, zone: tzinfo, now: datetime, dry_run: bool
) -> Iterator[Block]:
    oldest = min(snapshot.time for snapshot in found.snapshots)
    yield _headline(outcome, dry_run=dry_run)
    yield f"Set {found.id}{within(found.snapshots)}\n  at {human_time(oldest, zone)} ({human_age(now - oldest)})"
    for name in found.missing:
        yield _missing(name, oldest, zone)
    for report, snapshot in zip(outcome.reports, found.snapshots, strict=True):
        yield ""
        yield from _one(report, snapshot, zone=zone, now=now, dry_run=dry_run)
    if outcome.exit_code:
        yield ""
        yield _next(outcome, found)


def _headline(outcome: SetOutcome, *, dry_run: bool) -> str:
    number, published = len(outcome.reports), _names(outcome, published=True)
    if dry_run:
        return "NOT READABLE as a whole." if outcome.exit_code else f"{count(number, 'snapshot')} can be read."
    if len(published) == number:
        return f"Restored {count(number, 'source')}, put in place in this order: {', '.join(published)}"
    if not published:
        return f"NOT RESTORED. None of {count(number, 'target')} was changed."
    return (
        f"HALF RESTORED. In place: {', '.join(published)}. NOT in place: {', '.join(_names(outcome, published=False))}."
    )


def _names(outcome: SetOutcome, *, published: bool) -> list[str]:
    return [report.source for report in outcome.reports if report.published == published]


def _missing(name: str, taken: datetime, zone: tzinfo) -> str:
    time = taken.astimezone(zone).strftime("%Y-%m-%dT%H:%M:%S")
    return (
        f"MISSING from this set: {name}. Its backup failed in that run, or its snapshot was dropped since.\n"
        f"  Its newest one from before: flybackup restore '{name}@{time}' --to TARGET"
    )


def _one(report: RestoreReport, snapshot: Snapshot, *, zone: tzinfo, now: datetime, dry_run: bool) -> Iterator[Block]:
    if report.published or report.differs or (dry_run and not report.error and report.notes):
        yield from restore_text(report, snapshot, zone=zone, now=now, dry_run=dry_run)
        return
    yield f"{report.source}: NOT in place at {report.target}"
    if report.error:
        yield f"  {report.error}"
    elif not report.notes:
        yield "  Not tried."
    yield from (f"  {note}" for note in report.notes)


def _next(outcome: SetOutcome, found: FoundSet) -> str:
    hint = f"{outcome.error.hint}\n" if outcome.error is not None and outcome.error.hint else ""
    if _names(outcome, published=True):
        return f"{hint}What to do: undo what is in place by its command above, or move the rest into place: it is kept."
    return (
        f"{hint}What to do: run this again when the cause is gone, or restore an older set, or one of its snapshots "
        f"alone:\n  flybackup snapshots\n  flybackup restore {found.snapshots[0].id} --to TARGET"
    )
