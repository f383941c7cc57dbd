"""A writing session: the only writer of packs and index files.

    chunk ── id ── known? ──> nothing to do
                     │ new
                     └──> batch ──> pool: compress, seal, open again ──> pack ──> pool: put ──> index file

The calling thread hashes, looks up and packs; threads compress, seal and transfer. Bound: one pack being built and two
being put, three batches before and after sealing: about 60 MiB whatever is written.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import NamedTuple, Self

from flybackup.chunking import ContentDefined, Extent, Fixed, data_chunks, manifest_chunks, split
from flybackup.clock import Clock
from flybackup.concurrency import Conveyor
from flybackup.crypto import SALT_BYTES, chunk_id, new_session_key
from flybackup.envelope import seal_value
from flybackup.errors import StoreError
from flybackup.index import ChunkIndex, IndexedPack, encode_index
from flybackup.manifest import Refs
from flybackup.model import ChunkId, Snapshot
from flybackup.packing import (
    DATA,
    ID_BYTES,
    LARGEST_CHUNK_BYTES,
    MANIFEST,
    FinishedPack,
    PackBuilder,
    SealedSegment,
    SegmentKey,
    new_buffer,
    pack_key,
    seal_segment,
)
from flybackup.repository import Repository

UPLOADS = 2
WORKERS = max(2, min(4, os.cpu_count() or 1))


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is done at a time. The defaults are the ones measured in `docs/performance.md`."""

    pack_bytes: int = 16 * 1024 * 1024
    batch_bytes: int = 1 * 1024 * 1024
    index_every_bytes: int = 256 * 1024 * 1024
    index_every_seconds: float = 60.0


Batch = list[tuple[ChunkId, bytes]]
Spare = deque[memoryview]
"""Buffers of packs that were put, for packs of either kind; threads give them back."""


class Session:
    """Writes chunks, then commits one snapshot or none. Use as a context manager, from one thread.

    Leaving it without a commit, or being killed, leaves packs that the next session deduplicates against, because
    index files are written every so often.
    """

    def __init__(self, repository: Repository, clock: Clock, pace: Pace) -> None:
        self._pace = pace
        self._repository = repository
        self._clock = clock
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="seal")
        self._uploads = ThreadPoolExecutor(UPLOADS, thread_name_prefix="put")
        self.id = os.urandom(8).hex()
        self.started = self._announce()
        self.index = repository.load_index()
        self._put = Conveyor(self._uploads, self._put_pack, self._note_put, ahead=UPLOADS - 1)
        self._unindexed: list[IndexedPack] = []
        self._index_due = clock.monotonic() + pace.index_every_seconds
        keys = repository.write_key
        session_key = new_session_key(repository.public_key, repository.id)
        data = _Kind(DATA, keys.data_ids, session_key.secret, session_key.sealed, keys.metadata)
        manifest = _Kind(MANIFEST, keys.manifest_ids, keys.metadata, None, keys.metadata)
        self._spare: Spare = deque()
        self._data = _ChunkWriter(data, pace, self.index, self._pool, spare=self._spare, sink=self._upload)
        self._manifest = _ChunkWriter(manifest, pace, self.index, self._pool, spare=self._spare, sink=self._upload)
        self.bytes_stored = 0

    def _announce(self) -> datetime:
        """Tell collectors that this session lives, and learn the store's time from the answer."""
        key = f"sessions/{self.id}/00000000"
        body = {"id": self.id, "started": self._clock.now()}
        return self._repository.store.put(key, seal_value(self._repository.write_key.metadata, key, body))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._uploads.shutdown(wait=True, cancel_futures=True)
        if exc is not None and not isinstance(exc, StoreError):
            self._salvage()

    def _salvage(self) -> None:
        """Index what was put before it went wrong, so that the next try need not put it again."""
        with suppress(StoreError):
            self._put.salvage()
            self._write_index()

    @property
    def chunks(self) -> int:
        return self._data.seen

    @property
    def chunks_new(self) -> int:
        return self._data.new

    @property
    def bytes_new(self) -> int:
        return self._data.bytes_new

    def store(self, extents: Iterable[Extent], chunking: Fixed | None) -> Refs:
        """Store one entry's data and return its chunks; what is stored already is not stored again."""
        return self._data.store(extents, chunking or data_chunks(self._repository.write_key.chunker_multiplier))

    def store_manifest(self, records: Iterable[bytes]) -> tuple[tuple[bytes, int], ...]:
        """Store the manifest stream and return its chunks (id, size), in order."""
        how = manifest_chunks(self._repository.write_key.chunker_multiplier)
        _, refs = self._manifest.store(_extents(records), how).resolve()
        return tuple((ref.id, ref.size) for ref in refs)

    def flush(self) -> None:
        """Put every pack and an index file for them: afterwards all that was stored may be referred to."""
        self._data.flush()
        self._manifest.flush()
        self._put.drain()
        self._write_index()

    def commit(self, snapshot: Snapshot) -> None:
        """Make *snapshot* exist. Only after `flush`: packs, then index, then snapshot is the order that survives."""
        self._repository.put_snapshot(snapshot)

    def _upload(self, pack: FinishedPack) -> None:
        self.index.add(IndexedPack(pack.id, len(pack.data), pack.directory))
        self._put.push(pack)

    def _put_pack(self, pack: FinishedPack) -> IndexedPack:
        self._repository.store.put(pack_key(pack.id), pack.data)
        self._spare.append(pack.buffer)
        return IndexedPack(pack.id, len(pack.data), pack.directory)

    def _note_put(self, pack: IndexedPack) -> None:
        self._unindexed.append(pack)
        self.bytes_stored += pack.size
        waiting = sum(pack.size for pack in self._unindexed)
        if waiting >= self._pace.index_every_bytes or self._clock.monotonic() >= self._index_due:
            self._write_index()

    def _write_index(self) -> None:
        if self._unindexed:
            key, stored = encode_index(self._repository.write_key.metadata, self._unindexed)
            self._repository.store.put(key, stored)
            self.bytes_stored += len(stored)
            self._unindexed = []
        self._index_due = self._clock.monotonic() + self._pace.index_every_seconds


class _Kind(NamedTuple):
    """How one kind of chunk is named and sealed: data under the session key, manifests under the metadata key."""

    name: str
    id_key: bytes
    secret: bytes
    session: bytes | None
    metadata_key: bytes


class _ChunkWriter:
    """Chunks of one kind on their way into packs."""

    def __init__(
        self,
        kind: _Kind,
        pace: Pace,
        index: ChunkIndex,
        pool: Executor,
        *,
        spare: Spare,
        sink: Callable[[FinishedPack], None],
    ) -> None:
        self._kind = kind
        self._pace = pace
        self._index = index
        self._sink = sink
        self._spare = spare
        self._builder = self._new_pack()
        self._batch: Batch = []
        self._batch_bytes = 0
        self._under_way: set[ChunkId] = set()  # new, and not in the index before their pack is finished
        self._sealing = Conveyor(pool, self._seal, self._pack, ahead=1)
        self.seen = self.new = self.bytes_new = 0

    def store(self, extents: Iterable[Extent], how: Fixed | ContentDefined) -> Refs:
        refs = Refs()
        for offset, data in split(extents, how):
            if not data:
                refs.end_at(offset)
                continue
            name = chunk_id(self._kind.id_key, data)
            refs.add(offset, len(data), name)
            self.seen += 1
            if name not in self._under_way and name not in self._index:
                self._add(name, bytes(data))
        return refs

    def _add(self, name: ChunkId, data: bytes) -> None:
        self._under_way.add(name)
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

    def _seal(self, batch: Batch) -> SealedSegment:
        key = SegmentKey(self._kind.secret, os.urandom(SALT_BYTES), self._kind.session)
        return seal_segment(batch, key, self._kind.id_key)

    def _pack(self, segment: SealedSegment) -> None:
        if self._builder.size and self._builder.size + len(segment.sealed) > self._pace.pack_bytes:
            self._finish_pack()
        self._builder.add(segment)

    def _new_pack(self) -> PackBuilder:
        size = max(self._pace.pack_bytes, 2 * LARGEST_CHUNK_BYTES) + LARGEST_CHUNK_BYTES
        return PackBuilder(self._kind.name, self._spare.pop() if self._spare else new_buffer(size))

    def _finish_pack(self) -> None:
        pack = self._builder.finish(self._kind.metadata_key)
        self._builder = self._new_pack()
        self._sink(pack)
        ids = pack.directory.ids
        self._under_way.difference_update(ChunkId(ids[at : at + ID_BYTES]) for at in range(0, len(ids), ID_BYTES))

    def flush(self) -> None:
        self._submit()
        self._sealing.drain()
        if self._builder.size:
            self._finish_pack()


def _extents(blocks: Iterable[bytes]) -> Iterable[Extent]:
    offset = 0
    for block in blocks:
        yield Extent(offset, block)
        offset += len(block)
