"""Heads of snapshots that nobody took: for what is decided from heads alone."""

from collections.abc import Sequence
from datetime import datetime

from flybackup.model import Facts, Snapshot, SnapshotId, Status, Summary

_SUMMARY = Summary(entries=1, bytes_read=1, bytes_new=1, bytes_stored=1, chunks=1, chunks_new=1, requests=1, seconds=1)


def head(
    number: int,
    time: datetime,
    *,
    source: str = "app",
    status: Status = "complete",
    tags: Sequence[str] = (),
    anomalies: Sequence[str] = (),
) -> Snapshot:
    return Snapshot(
        id=SnapshotId(f"{number:016x}"),
        source=source,
        kind="bytes",
        time=time,
        tags=tuple(tags),
        status=status,
        method="in memory",
        facts=Facts(),
        summary=_SUMMARY,
        anomalies=tuple(anomalies),
        tool="flybackup",
        session=f"{number:016x}",
        manifest=(),
    )
