"""Chunks of one kind on their way into packs.

The calling thread names them and looks them up; workers compress them and seal them right into the buffer of the pack
that is being filled, so the bytes are moved once.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

from flybackup.chunking import Chunk, ContentDefined, ContentSplitter, Extent, Fixed, split_fixed
from flybackup.concurrency import Conveyor
from flybackup.crypto import SALT_BYTES, chunk_id
from flybackup.index import ChunkIndex, IndexedPack
from flybackup.manifest import Refs
from flybackup.model import ChunkId
from flybackup.packing import (
    ID_BYTES,
    LARGEST_CHUNK_BYTES,
    OpenPack,
    Region,
    SealedSegment,
    SegmentKey,
    new_buffer,
    seal_segment,
)

WORKERS = max(2, min(4, os.cpu_count() or 1))

Batch = list[tuple[ChunkId, bytes]]
Spare = deque[memoryview]
"""Buffers of packs that were put, for packs of either kind; threads give them back."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is done at a time. The defaults are the ones measured in `docs/performance.md`."""

    pack_bytes: int = 16 * 1024 * 1024
    batch_bytes: int = 1 * 1024 * 1024
    index_every_bytes: int = 256 * 1024 * 1024
    index_every_seconds: float = 60.0


class Kind(NamedTuple):
    """How one kind of chunk is named and sealed: data under the session key, manifests under the metadata key."""

    name: str
    id_key: bytes
    secret: bytes
    session: bytes | None


class Known:
    """The chunks that need not be stored: those in *index*, and new ones whose pack has not landed there yet."""

    def __init__(self, index: ChunkIndex) -> None:
        self._index = index
        self._under_way: set[ChunkId] = set()

    def is_new(self, name: ChunkId) -> bool:
        """Tell whether a chunk has to be stored, and take it that it will be."""
        if name in self._under_way or name in self._index:
            return False
        self._under_way.add(name)
        return True

    def landed(self, pack: IndexedPack) -> None:
        self._index.add(pack)
        ids = pack.directory.ids
        self._under_way.difference_update(ChunkId(ids[at : at + ID_BYTES]) for at in range(0, len(ids), ID_BYTES))


class Packer:
    """Fills packs; hands whole ones to *sink* in the calling thread. Holds three batches and the packs being filled."""

    def __init__(
        self, kind: Kind, pace: Pace, known: Known, pool: Executor, *, spare: Spare, sink: Callable[[OpenPack], None]
    ) -> None:
        self._kind = kind
        self._pace = pace
        self._known = known
        self._spare = spare
        self._sink = sink
        self._batch: Batch = []
        self._batch_bytes = 0
        self._sealing = Conveyor(pool, self._seal, self._sealed, ahead=WORKERS)
        self._lock = Lock()  # over the two below, which workers change when they reserve
        self._splitter: tuple[ContentDefined, ContentSplitter] | None = None
        self._filling: OpenPack | None = None
        self._unfinished: deque[OpenPack] = deque()
        self.seen = self.new = self.bytes_new = 0

    def store_chunk(self, data: memoryview) -> ChunkId:
        """Store one chunk as it is cut; the buffer is the caller's again when this returns."""
        name = chunk_id(self._kind.id_key, data)
        self.seen += 1
        if self._known.is_new(name):
            self._add(name, bytes(data))
        return name

    def store(self, extents: Iterable[Extent], how: Fixed | ContentDefined) -> Refs:
        refs = Refs()
        for offset, data in self._split(extents, how):
            if not data:
                refs.end_at(offset)
                continue
            refs.add(offset, len(data), self.store_chunk(data))
        return refs

    def _split(self, extents: Iterable[Extent], how: Fixed | ContentDefined) -> Iterator[Chunk]:
        if isinstance(how, Fixed):
            return split_fixed(extents, how)
        if self._splitter is None or self._splitter[0] != how:  # its buffer costs more than most files
            self._splitter = how, ContentSplitter(how)
        return self._splitter[1].split(extents)

    def _add(self, name: ChunkId, data: bytes) -> None:
        self._batch.append((name, data))
        self._batch_bytes += len(data)
        self.new += 1
        self.bytes_new += len(data)
        if self._batch_bytes >= self._pace.batch_bytes:
            self._submit()

    def _submit(self) -> None:
        if self._batch:
            self._sealing.push(self._batch)
            self._batch, self._batch_bytes = [], 0

    def _seal(self, batch: Batch) -> tuple[OpenPack, SealedSegment]:
        key = SegmentKey(self._kind.secret, os.urandom(SALT_BYTES), self._kind.session)
        packs: list[OpenPack] = []

        def reserve(length: int) -> Region:
            with self._lock:
                packs.append(self._pack_for(length))
                return packs[0].reserve(length)

        segment = seal_segment(batch, key, self._kind.id_key, reserve)
        return packs[0], segment

    def _pack_for(self, length: int) -> OpenPack:
        pack = self._filling
        if pack is None or pack.size + length > self._pace.pack_bytes:
            if pack is not None:
                pack.closed = True
            pack = OpenPack(self._kind.name, self._buffer())
            self._filling = pack
            self._unfinished.append(pack)
        return pack

    def _buffer(self) -> memoryview:
        try:
            return self._spare.pop()
        except IndexError:
            return new_buffer(self._pace.pack_bytes + LARGEST_CHUNK_BYTES)

    def _sealed(self, result: tuple[OpenPack, SealedSegment]) -> None:
        pack, segment = result
        pack.add(segment)
        self._hand_on()

    def _hand_on(self) -> None:
        while self._unfinished and self._unfinished[0].whole:
            self._sink(self._unfinished.popleft())

    def flush(self) -> None:
        """Seal and hand on everything."""
        self._submit()
        self._sealing.drain()
        if self._filling is not None:
            self._filling.closed = True
            self._filling = None
        self._hand_on()
