"""Back up one source: capture, store, commit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from flybackup import __version__
from flybackup.chunking import Extent
from flybackup.clock import Clock
from flybackup.manifest import encode
from flybackup.model import OnProgress, Progress, Snapshot, SnapshotId, Summary
from flybackup.packer import Pace
from flybackup.repository import Repository
from flybackup.session import Session
from flybackup.sources import Source, Stream
from flybackup.stores.counting import CountingStore


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """`name` is the source's name in the repository, `scratch` an empty private directory the caller removes."""

    name: str
    tags: Sequence[str]
    scratch: Path
    pace: Pace = field(default_factory=Pace)


def backup(
    repository: Repository, source: Source, request: BackupRequest, *, clock: Clock, on_progress: OnProgress
) -> Snapshot:
    """Capture *source* and return the committed snapshot.

    Raise `SourceError` when no consistent view was to be had, `StoreError` when the store failed: then no snapshot
    exists, and what was stored serves the next try. Memory: see `Session`, whatever the size of the source.
    """
    begun = clock.monotonic()
    counting = CountingStore(repository.store)
    counted = repository.with_store(counting)
    with Session(counted, clock, request.pace) as session:
        tally = _Tally(session, on_progress)
        with source.capture(request.scratch) as capture:
            manifest = session.store_manifest(tally.records(capture.streams()))
            captured = capture.finish()
        session.flush()
        snapshot = Snapshot(
            id=SnapshotId(session.id),
            source=request.name,
            kind=source.kind,
            time=session.started,
            tags=tuple(request.tags),
            status="complete",
            method=captured.method,
            facts=captured.facts,
            summary=tally.summary(counting.usage().total + 1, clock.monotonic() - begun),
            warnings=(*session.warnings, *captured.warnings),
            tool=f"flybackup {__version__}",
            session=session.id,
            manifest=manifest,
        )
        session.commit(snapshot)
    return snapshot


class _Tally:
    """Stores each stream, counts what went by, and says so."""

    def __init__(self, session: Session, on_progress: OnProgress) -> None:
        self._session = session
        self._on_progress = on_progress
        self._entries = 0
        self._bytes_read = 0

    def records(self, streams: Iterator[Stream]) -> Iterator[bytes]:
        for stream in streams:
            refs = self._session.store(self._counted(stream), stream.chunking)
            size, chunks = refs.resolve()
            self._entries += 1
            yield from encode(replace(stream.entry, size=size), chunks)

    def _counted(self, stream: Stream) -> Iterator[Extent]:
        before = self._bytes_read
        for extent in stream.extents:
            self._bytes_read += len(extent.data)
            total = before + stream.entry.size if stream.entry.size else None
            self._on_progress(Progress("capture", self._bytes_read, total))
            yield extent

    def summary(self, requests: int, seconds: float) -> Summary:
        session = self._session
        return Summary(
            entries=self._entries,
            bytes_read=self._bytes_read,
            bytes_new=session.bytes_new,
            bytes_stored=session.bytes_stored,
            chunks=session.chunks,
            chunks_new=session.chunks_new,
            requests=requests,
            seconds=round(seconds, 3),
        )
