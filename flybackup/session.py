"""A writing session: the only writer of packs and index files.

    chunk ── id ── known? ──> nothing to do
                     │ new
                     └──> batch ──> pool: compress, seal into a pack, open again ──> pool: hash, put ──> index file

The calling thread names chunks and looks them up; threads compress, seal, hash and transfer. Bound: one pack being
filled and two being put, a few batches: about 60 MiB whatever is written.
"""

import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Self

from flybackup.chunking import Extent, Fixed, data_chunks, manifest_chunks
from flybackup.clock import Clock
from flybackup.concurrency import Conveyor
from flybackup.crypto import new_session_key
from flybackup.envelope import seal_value
from flybackup.errors import IntegrityError, StoreError
from flybackup.index import IndexedPack, encode_index
from flybackup.manifest import Refs
from flybackup.model import Snapshot
from flybackup.packer import WORKERS, Kind, Known, Pace, Packer, Spare
from flybackup.packing import DATA, MANIFEST, OpenPack, pack_key
from flybackup.repository import Repository
from flybackup.shared import SharedStream

UPLOADS = 2
_PIECE_BYTES = 64 * 1024


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
        damaged: list[IntegrityError] = []
        # Only packs that lie there count: one that vanished, or that a thief of the write key pretends to be there,
        # would else be found missing when it is needed.
        self.index = repository.load_index(damaged, there=repository.packs_there())
        self.warnings = tuple(f"{exc}: chunks that only it knows were stored again" for exc in damaged)
        self._put = Conveyor(self._uploads, self._put_pack, self._note_put, ahead=UPLOADS - 1)
        self._unindexed: list[IndexedPack] = []
        self._index_due = clock.monotonic() + pace.index_every_seconds
        keys = repository.write_key
        session_key = new_session_key(repository.public_key, repository.id)
        data = Kind(DATA, keys.data_ids, session_key.secret, session_key.sealed)
        manifest = Kind(MANIFEST, keys.manifest_ids, keys.metadata, None)
        self._known = Known(self.index)
        self._spare: Spare = deque()
        self._data = Packer(data, pace, self._known, self._pool, spare=self._spare, sink=self._put.push)
        self._manifest = Packer(manifest, pace, self._known, self._pool, spare=self._spare, sink=self._put.push)
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

    def shared_stream(self) -> SharedStream:
        """Return a stream for the small files of one snapshot."""
        return SharedStream(data_chunks(self._repository.write_key.chunker_multiplier), self._data.store_chunk)

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

    def _put_pack(self, pack: OpenPack) -> IndexedPack:
        finished = pack.finish(self._repository.write_key.metadata)
        self._repository.store.put(pack_key(finished.id), finished.data)
        self._spare.append(finished.buffer)
        return IndexedPack(finished.id, len(finished.data), finished.directory)

    def _note_put(self, pack: IndexedPack) -> None:
        self._known.landed(pack)
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


def _extents(records: Iterable[bytes]) -> Iterable[Extent]:
    """Join records, most of which are a hundred bytes, to pieces that are worth a turn."""
    offset = 0
    piece = bytearray()
    for record in records:
        piece += record
        if len(piece) >= _PIECE_BYTES:
            yield Extent(offset, piece)
            offset += len(piece)
            piece = bytearray()
    yield Extent(offset, piece)
