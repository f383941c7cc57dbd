"""What `forget` says: of every snapshot what becomes of it and why, then what was done in one sentence."""

from collections.abc import Iterator
from datetime import tzinfo

from flybackup.operations.forget import ForgetPlan, SourcePlan
from flybackup.report.documents import forget_warnings
from flybackup.report.table import Block, Row, Table
from flybackup.report.texts import SHORT_ID
from flybackup.report.units import count, human_time
from flybackup.retention import Verdict


def forget_text(plan: ForgetPlan, *, zone: tzinfo, dry_run: bool, even_most: bool) -> Iterator[Block]:
    for each in plan.sources:
        yield from _source(each, zone)
    yield from (f"WARNING: {warning}" for warning in forget_warnings(plan))
    yield _done(plan, dry_run=dry_run)
    if dry_run and not even_most:
        yield from _refused(plan)


def _source(plan: SourcePlan, zone: tzinfo) -> Iterator[Block]:
    if plan.policy is None:
        why = "has no retention policy" if plan.configured else "is not in the configuration"
        yield f"{plan.source} {why}: {_all(len(plan.verdicts))} kept.\n"
        return
    removed = frozenset(at for at, each in enumerate(plan.verdicts) if not each.keep)
    yield f"{plan.source}: {count(len(plan.verdicts), 'snapshot')}"
    yield Table(("=ID", "=TIME", "VERDICT"), [_row(each, zone) for each in plan.verdicts], removed)
    yield ""


def _all(number: int) -> str:
    return "its one snapshot is" if number == 1 else f"all {number:,} snapshots are"


def _row(verdict: Verdict, zone: tzinfo) -> Row:
    return (verdict.snapshot.id[:SHORT_ID], human_time(verdict.snapshot.time, zone), _words(verdict))


def _words(verdict: Verdict) -> str:
    if verdict.keep:
        return f"keep: {', '.join(verdict.reasons)}"
    partial = verdict.snapshot.status == "partial"
    return "REMOVE: partial, a complete one is newer" if partial else "REMOVE: no rule keeps it"


def _done(plan: ForgetPlan, *, dry_run: bool) -> str:
    removed = ", ".join(_share(each) for each in plan.sources if each.remove)
    if not removed:
        return "Nothing to remove." if plan.sources else "There are no snapshots."
    return f"Would remove {removed}." if dry_run else f"Removed {removed}. The space comes back with prune."


def _share(plan: SourcePlan) -> str:
    return f"{len(plan.remove):,} of the {count(len(plan.verdicts), 'snapshot')} of {plan.source}"


def _refused(plan: ForgetPlan) -> Iterator[Block]:
    most = [each.source for each in plan.sources if each.removes_most]
    if most:
        yield f"That is more than half of {', '.join(most)}: it will be refused unless you say --yes."
