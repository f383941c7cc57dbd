"""The JSON documents of `--json`. Fields may be added, never renamed or removed: other people's scripts read them."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import msgspec

from flybackup.model import Entry, Facts, Snapshot, apart_seconds
from flybackup.operations.check import CheckReport
from flybackup.operations.forget import ForgetPlan, SourcePlan
from flybackup.operations.restore import SetOutcome
from flybackup.operations.select import FoundSet
from flybackup.operations.verify import RestoreReport
from flybackup.retention import FUTURE, Verdict

Document = dict[str, Any]


class Failed(NamedTuple):
    """A source that was not backed up, and why."""

    source: str
    error: str
    hint: str = ""


def snapshot_document(snapshot: Snapshot) -> Document:
    return {
        "id": snapshot.id,
        "source": snapshot.source,
        "kind": snapshot.kind,
        "time": snapshot.time.isoformat(),
        "tags": list(snapshot.tags),
        "status": snapshot.status,
        "set": snapshot.set_id,
        "set_sources": list(snapshot.set_sources),
        "viewed": None if snapshot.viewed is None else list(snapshot.viewed),
        "method": snapshot.method,
        "facts": _facts_document(snapshot.facts),
        "summary": asdict(snapshot.summary),
        "warnings": list(snapshot.warnings),
        "problems": list(snapshot.problems),
        "anomalies": list(snapshot.anomalies),
        "tool": snapshot.tool,
    }


def _facts_document(facts: Facts) -> Document:
    return {
        "tables": {name: asdict(table) for name, table in sorted(facts.tables.items())},
        "files": facts.files,
        "file_bytes": facts.file_bytes,
        "tree_digest": facts.tree_digest,
        "engine": facts.engine,
        "sequences": facts.sequences,
        "dump_digest": facts.dump_digest,
        "details": facts.details,
    }


def backup_document(snapshots: Sequence[Snapshot], failed: Sequence[Failed]) -> Document:
    return {
        "snapshots": [snapshot_document(each) for each in snapshots],
        "failed": [each._asdict() for each in failed],
        "set": set_document(snapshots),
    }


def set_document(snapshots: Sequence[Snapshot]) -> Document | None:
    """Of snapshots of one set; None for one that was taken alone, or of none."""
    if not snapshots or snapshots[0].set_id is None:
        return None
    first = snapshots[0]
    return {"id": first.set_id, "sources": list(first.set_sources), "within_seconds": apart_seconds(snapshots)}


def snapshots_document(snapshots: Sequence[Snapshot]) -> Document:
    return {"snapshots": [snapshot_document(each) for each in snapshots]}


def show_document(snapshot: Snapshot, entries: Sequence[Entry]) -> Document:
    return {**snapshot_document(snapshot), "entries": [_entry_document(entry) for entry in entries]}


def _entry_document(entry: Entry) -> Document:
    """Of the optional fields, those that say something. Bytes that are no UTF-8 are shown with escapes."""
    said = msgspec.structs.asdict(entry)
    if entry.digest is not None:
        said["digest"] = entry.digest.hex()
    always = {name: said.pop(name) for name in ("path", "kind", "size", "mode", "mtime_ns")}
    return always | {name: _plain(value) for name, value in said.items() if value not in (None, False, ())}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def restore_document(report: RestoreReport) -> Document:
    """Of `restore` and `verify`."""
    return {**asdict(report), "tables": [asdict(table) for table in report.tables]}


def restore_set_document(outcome: SetOutcome, found: FoundSet) -> Document:
    """Of `restore --set`. `error` is as in the document of a command that failed."""
    error = outcome.error
    return {
        "set": found.id,
        "within_seconds": apart_seconds(found.snapshots),
        "missing": list(found.missing),
        "restores": [restore_document(report) for report in outcome.reports],
        "error": error and {"message": str(error), "hint": error.hint, "exit_code": error.exit_code},
    }


def check_document(report: CheckReport) -> Document:
    return asdict(report)


def forget_document(plan: ForgetPlan, *, dry_run: bool, even_most: bool) -> Document:
    """`keep` and `remove` are newest first, source by source; `removed` tells whether it was done."""
    return {
        "keep": [_kept_document(verdict) for each in plan.sources for verdict in each.verdicts if verdict.keep],
        "remove": [snapshot.id for each in plan.sources for snapshot in each.remove],
        "removed": not dry_run,
        "sources": [_source_plan_document(each, even_most=even_most) for each in plan.sources],
        "warnings": list(forget_warnings(plan)),
    }


def _kept_document(verdict: Verdict) -> Document:
    snapshot = verdict.snapshot
    said = {"id": snapshot.id, "source": snapshot.source, "time": snapshot.time.isoformat()}
    return {**said, "reasons": list(verdict.reasons)}


def _source_plan_document(plan: SourcePlan, *, even_most: bool) -> Document:
    """`refused`: more than half would go, and nobody said that this is right."""
    return {
        "source": plan.source,
        "configured": plan.configured,
        "policy": plan.policy is not None,
        "snapshots": len(plan.verdicts),
        "remove": len(plan.remove),
        "refused": plan.removes_most and not even_most,
    }


def forget_warnings(plan: ForgetPlan) -> Iterator[str]:
    for each in plan.sources:
        ahead = [verdict.snapshot.id for verdict in each.verdicts if FUTURE in verdict.reasons]
        if ahead:
            yield f"dated in the future, of {each.source}: {', '.join(ahead)}. They stay, and count for no rule."
    for head in plan.damaged:
        yield f"{head.key}: {head.problem}. It stays, and counts for no rule; 'flybackup check' tells more."
