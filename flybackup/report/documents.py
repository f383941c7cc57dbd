"""The JSON documents of `--json`. Fields may be added, never renamed or removed: other people's scripts read them."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from flybackup.model import Entry, Facts, Snapshot
from flybackup.operations.check import CheckReport
from flybackup.operations.verify import RestoreReport

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
        "method": snapshot.method,
        "facts": _facts_document(snapshot.facts),
        "summary": asdict(snapshot.summary),
        "warnings": list(snapshot.warnings),
        "tool": snapshot.tool,
    }


def _facts_document(facts: Facts) -> Document:
    return {
        "tables": {name: asdict(table) for name, table in sorted(facts.tables.items())},
        "files": facts.files,
        "engine": facts.engine,
        "sequences": facts.sequences,
        "details": facts.details,
    }


def backup_document(snapshots: Sequence[Snapshot], failed: Sequence[Failed]) -> Document:
    return {"snapshots": [snapshot_document(each) for each in snapshots], "failed": [each._asdict() for each in failed]}


def snapshots_document(snapshots: Sequence[Snapshot]) -> Document:
    return {"snapshots": [snapshot_document(each) for each in snapshots]}


def show_document(snapshot: Snapshot, entries: Sequence[Entry]) -> Document:
    return {**snapshot_document(snapshot), "entries": [asdict(entry) for entry in entries]}


def restore_document(report: RestoreReport) -> Document:
    """Of `restore` and `verify`."""
    return {**asdict(report), "tables": [asdict(table) for table in report.tables]}


def check_document(report: CheckReport) -> Document:
    return asdict(report)
