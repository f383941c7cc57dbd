"""Back up one source: capture, store, commit."""

import logging
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from flybackup import __version__
from flybackup.chunking import Extent
from flybackup.clock import Clock
from flybackup.errors import IntegrityError
from flybackup.manifest import Kept, encode, renewed
from flybackup.model import Entry, OnProgress, Progress, Snapshot, SnapshotId, Summary
from flybackup.packer import Pace
from flybackup.packing import ID_BYTES
from flybackup.reading import Reader
from flybackup.repository import Repository
from flybackup.session import Session
from flybackup.shared import SHARED_BYTES, Span
from flybackup.sources import Source, Stream
from flybackup.stores.counting import CountingStore

_log = logging.getLogger(__name__)

WAITING = 4096


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
        before = _newest(counted, request.name)
        with (
            closing(_previous(session, counted, before, source.kind)) as previous,
            source.capture(request.scratch, previous) as capture,
        ):
            manifest = session.store_manifest(tally.records(capture.streams()))
            captured = capture.finish()
        session.flush()
        snapshot = Snapshot(
            id=SnapshotId(session.id),
            source=request.name,
            kind=source.kind,
            time=session.started,
            tags=tuple(request.tags),
            status="partial" if captured.problems else "complete",
            method=captured.method,
            facts=captured.facts,
            summary=tally.summary(counting.usage().total + 1, clock.monotonic() - begun),
            warnings=(*session.warnings, *captured.warnings),
            problems=captured.problems,
            tool=f"flybackup {__version__}",
            session=session.id,
            manifest=manifest,
        )
        session.commit(snapshot)
    return snapshot


def _newest(repository: Repository, source: str) -> Snapshot | None:
    """Return the snapshot before this one; None when there is none that opens: a damaged head stops no backup."""
    keys = repository.snapshot_keys(source)
    try:
        return repository.read_snapshot(max(keys)) if keys else None
    except IntegrityError as exc:
        _log.warning("backup.previous_damaged", extra={"subject": source, "problem": str(exc)})
        return None


def _previous(
    session: Session, repository: Repository, before: Snapshot | None, kind: str
) -> Generator[Kept, None, None]:
    """Yield what the snapshot before holds, as far as it can be read: the rest is then captured anew."""
    if before is None or before.kind != kind:
        return
    with Reader(repository, session.index) as reader:
        try:
            yield from reader.kept(before)
        except IntegrityError as exc:
            _log.warning("backup.previous_damaged", extra={"subject": before.source, "problem": str(exc)})


class _Waiting(NamedTuple):
    """A small file whose chunks are not all known yet."""

    entry: Entry
    span: Span


class _Tally:
    """Stores each stream, counts what went by, and says so."""

    def __init__(self, session: Session, on_progress: OnProgress) -> None:
        self._session = session
        self._on_progress = on_progress
        self._entries = 0
        self._bytes_read = 0
        self._chunks_kept = 0
        self._shared = session.shared_stream()
        self._waiting: deque[bytes | _Waiting] = deque()

    def records(self, streams: Iterator[Stream]) -> Iterator[bytes]:
        """Yield the manifest's records in the order of *streams*. Holds those behind a small file whose chunk is not
        whole yet, at most `WAITING` of them."""
        for stream in streams:
            self._entries += 1
            if stream.whole is not None and 0 < len(stream.whole) <= SHARED_BYTES:
                self._add_small(stream.entry, stream.whole)
            elif self._waiting:
                self._waiting.extend(self._records(stream))
            else:
                yield from self._records(stream)
                continue
            if len(self._waiting) >= WAITING:
                self._shared.flush()
            yield from self._ready()
        self._shared.flush()
        yield from self._ready()

    def _add_small(self, entry: Entry, data: bytes) -> None:
        self._bytes_read += len(data)
        self._on_progress(Progress("capture", self._bytes_read, None))
        self._waiting.append(_Waiting(entry, self._shared.add(data)))

    def _ready(self) -> Iterator[bytes]:
        while self._waiting:
            first = self._waiting[0]
            if isinstance(first, _Waiting):
                refs = self._shared.refs(first.span)
                if refs is None:
                    return
                yield from encode(first.entry, refs)
            else:
                yield first
            self._waiting.popleft()

    def _records(self, stream: Stream) -> Iterator[bytes]:
        if stream.kept is None:
            yield from self._stored(stream)
        else:
            self._chunks_kept += len(stream.kept.ids) // ID_BYTES
            same = stream.entry is stream.kept.entry
            yield stream.kept.records if same else renewed(stream.kept, stream.entry)

    def _stored(self, stream: Stream) -> Iterator[bytes]:
        size, chunks = self._session.store(self._counted(stream), stream.chunking).resolve()
        entry = stream.amended() if stream.amended is not None else stream.entry
        return encode(entry if entry.size == size else msgspec.structs.replace(entry, size=size), chunks)

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
            chunks=session.chunks + self._chunks_kept,
            chunks_new=session.chunks_new,
            requests=requests,
            seconds=round(seconds, 3),
        )
