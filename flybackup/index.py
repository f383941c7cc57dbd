"""Where each chunk lies: index files in the store, sorted columns in memory.

In memory a chunk costs 32 bytes: the first 16 bytes of its id, and its place as four u32. Sixteen bytes are enough to
look up by (ids are keyed hashes, so nobody without the key can make two meet, and a chance meeting of 2^40 chunks has
odds of 2^-49); what is read is always proved against the whole id.
"""

import hmac
from array import array
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from flybackup.compression import ZSTD
from flybackup.crypto import DIGEST_BYTES, SALT_BYTES, digest
from flybackup.envelope import open_value, seal_value
from flybackup.errors import IntegrityError
from flybackup.model import ChunkId, PackId
from flybackup.packing import ID_BYTES, Directory

_INDEX_NAME = "index"
_ZSTD_BIT = 1 << 31
_FRESH_LIMIT = 1 << 16
_NO_SESSION = (1 << 32) - 1

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]


class IndexedPack(msgspec.Struct, frozen=True):
    """One pack of an index file: its id, its size in the store, and what its directory says."""

    id: bytes
    size: int
    directory: Directory


def encode_index(metadata_key: bytes, packs: Iterable[IndexedPack]) -> tuple[str, bytes]:
    """Return the key and the bytes of an index file."""
    sealed = seal_value(metadata_key, _INDEX_NAME, list(packs))
    return f"index/{digest(sealed).hex()}", sealed


def decode_index(metadata_key: bytes, key: str, stored: bytes) -> list[IndexedPack]:
    """Open an index file. Raise `IntegrityError`, naming it, when a bit of it or its name differs."""
    if not hmac.compare_digest(digest(stored).hex(), key.rpartition("/")[2]):
        raise IntegrityError("its bytes do not match its name", key=key)
    try:
        packs = open_value(metadata_key, _INDEX_NAME, stored, list[IndexedPack])
    except IntegrityError as exc:
        raise IntegrityError("is not an index file of this repository", key=key) from exc
    for pack in packs:
        if len(pack.id) != DIGEST_BYTES:
            raise IntegrityError("names a pack that cannot be", key=key)
        pack.directory.validate(key)
    return packs


class Location(NamedTuple):
    """Where a chunk's sealed bytes lie and what opens them; `session` is the sealed session key, None for manifests."""

    pack: PackId
    offset: int
    length: int
    counter: int
    encoding: int
    salt: bytes
    session: bytes | None


class _Run(NamedTuple):
    """Chunks sorted by id: `high` and `low` are its first two words, `places` four columns of u32."""

    high: U64
    low: U64
    places: U32


class ChunkIndex:
    """Looks up chunks. Not for several threads: the calling thread owns it.

    New chunks collect in a small dictionary and move to sorted runs, each at least twice the size of the next, so
    adding n chunks costs O(n log n) and a look-up visits O(log n) runs.
    """

    def __init__(self) -> None:
        self.packs: list[PackId] = []
        self._runs: list[_Run] = []
        self._fresh: dict[bytes, tuple[int, int, int, int]] = {}
        self._sessions: list[bytes] = []
        self._session_numbers: dict[bytes, int] = {}
        self._salts = bytearray()
        self._segment_packs = array("I")
        self._segment_sessions = array("I")

    def __len__(self) -> int:
        return len(self._fresh) + sum(len(run.high) for run in self._runs)

    def __contains__(self, name: ChunkId) -> bool:
        return self._find(name) is not None

    def holds(self, ids: bytes) -> bool:
        """Tell whether every one of many chunks (32 bytes each) is there, in a few calls for all of them."""
        words = np.frombuffer(ids, dtype="<u8").reshape(-1, ID_BYTES // 8)
        there = np.zeros(len(words), dtype=bool)
        for run in self._runs:
            at = np.minimum(run.high.searchsorted(words[:, 0]), len(run.high) - 1)
            there |= (run.high[at] == words[:, 0]) & (run.low[at] == words[:, 1])
        return all(ChunkId(words[at].tobytes()) in self for at in np.flatnonzero(~there).tolist())

    def add(self, pack: IndexedPack) -> None:
        """Add what a pack holds. A chunk that is there already may be found in either place."""
        high, low, places = self._columns(pack)
        if len(self._fresh) + len(high) < _FRESH_LIMIT:
            ids = pack.directory.ids
            names = (ids[at : at + 16] for at in range(0, len(ids), ID_BYTES))
            self._fresh.update(zip(names, map(tuple, places.tolist()), strict=True))
        else:
            self._push(_sorted(high, low, places))

    def extend(self, packs: Iterable[IndexedPack]) -> None:
        """Add many packs at once, as when a repository is opened: one sort instead of many."""
        columns = [self._columns(pack) for pack in packs]
        if columns:
            high, low, places = (np.concatenate(column) for column in zip(*columns, strict=True))
            self._push(_sorted(high, low, places))

    def find(self, name: ChunkId) -> Location | None:
        """Return where a chunk lies, or None when no pack holds it."""
        place = self._find(name)
        if place is None:
            return None
        segment, offset, length, mark = place
        session = self._segment_sessions[segment]
        return Location(
            pack=self.packs[self._segment_packs[segment]],
            offset=offset,
            length=length,
            counter=mark & (_ZSTD_BIT - 1),
            encoding=ZSTD if mark & _ZSTD_BIT else 0,
            salt=bytes(self._salts[segment * SALT_BYTES : (segment + 1) * SALT_BYTES]),
            session=None if session == _NO_SESSION else self._sessions[session],
        )

    def _find(self, name: ChunkId) -> tuple[int, int, int, int] | None:
        place = self._fresh.get(name[:16])
        if place is not None:
            return place
        high, low = np.frombuffer(name, dtype="<u8", count=2)
        for run in self._runs:
            at = int(run.high.searchsorted(high))
            while at < len(run.high) and run.high[at] == high:
                if run.low[at] == low:
                    segment, offset, length, mark = run.places[at].tolist()
                    return segment, offset, length, mark
                at += 1
        return None

    def _columns(self, pack: IndexedPack) -> tuple[U64, U64, U32]:
        directory = pack.directory
        segments = self._add_segments(pack)
        ids = np.frombuffer(directory.ids, dtype="<u8").reshape(-1, ID_BYTES // 8)
        marks = np.frombuffer(directory.counters, dtype="<u4").copy()
        marks[np.frombuffer(directory.encodings, dtype="u1") == ZSTD] |= np.uint32(_ZSTD_BIT)
        offsets, lengths = (np.frombuffer(column, dtype="<u4") for column in (directory.offsets, directory.lengths))
        return ids[:, 0], ids[:, 1], np.stack([segments, offsets, lengths, marks], axis=1)

    def _add_segments(self, pack: IndexedPack) -> U32:
        first = len(self._segment_packs)
        for segment in pack.directory.segments:
            self._salts += segment.salt
            self._segment_packs.append(len(self.packs))
            self._segment_sessions.append(self._session_number(pack.directory, segment.session))
        self.packs.append(PackId(pack.id))
        numbers = np.arange(first, len(self._segment_packs), dtype=np.uint32)
        return np.repeat(numbers, [segment.count for segment in pack.directory.segments])

    def _session_number(self, directory: Directory, session: int | None) -> int:
        if session is None:
            return _NO_SESSION
        sealed = directory.sessions[session]
        if sealed not in self._session_numbers:
            self._session_numbers[sealed] = len(self._sessions)
            self._sessions.append(sealed)
        return self._session_numbers[sealed]

    def _push(self, run: _Run) -> None:
        if self._fresh:
            ids = np.frombuffer(b"".join(self._fresh), dtype="<u8").reshape(-1, 2)
            places = np.array(list(self._fresh.values()), dtype=np.uint32)
            self._fresh = {}
            self._push(_sorted(ids[:, 0], ids[:, 1], places))
        while self._runs and len(self._runs[-1].high) < 2 * len(run.high):
            other = self._runs.pop()
            run = _sorted(
                np.concatenate([run.high, other.high]),
                np.concatenate([run.low, other.low]),
                np.concatenate([run.places, other.places]),
            )
        self._runs.append(run)


def _sorted(high: U64, low: U64, places: U32) -> _Run:
    order = np.argsort(high, kind="stable")
    return _Run(high[order], low[order], places[order])
