"""What a capture gives, on its way into a session: stored, counted, and written into the manifest in its order."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from flybackup.chunking import Extent
from flybackup.manifest import encode, renewed
from flybackup.model import Entry, OnProgress, Progress, Summary
from flybackup.packing import ID_BYTES
from flybackup.session import Session
from flybackup.shared import SHARED_BYTES, Span
from flybackup.sources import Stream

WAITING = 4096
"""So many records may stand behind a small file whose chunk is not whole yet."""


class _Waiting(NamedTuple):
    """A small file whose chunks are not all known yet."""

    entry: Entry
    span: Span


class Tally:
    """Stores each stream, counts what went by, and says so. `size_bytes` is that of the entries together."""

    def __init__(self, session: Session, on_progress: OnProgress) -> None:
        self._session = session
        self._on_progress = on_progress
        self.size_bytes = 0
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
        self.size_bytes += len(data)
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
            self.size_bytes += stream.entry.size
            self._chunks_kept += len(stream.kept.ids) // ID_BYTES
            same = stream.entry is stream.kept.entry
            yield stream.kept.records if same else renewed(stream.kept, stream.entry)

    def _stored(self, stream: Stream) -> Iterator[bytes]:
        size, chunks = self._session.store(self._counted(stream), stream.chunking).resolve()
        self.size_bytes += size
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
