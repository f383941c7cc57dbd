"""Read chunks back: plan ranged reads, fetch and open them in threads, yield extents in order.

What comes out is proved: the cipher's tag, then the chunk's id over its plaintext.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, groupby
from types import TracebackType
from typing import NamedTuple, Self

from flybackup.chunking import Extent
from flybackup.concurrency import ordered_map
from flybackup.crypto import ChunkCipher
from flybackup.errors import IntegrityError, ObjectNotFoundError, StoreError
from flybackup.index import ChunkIndex, Location
from flybackup.manifest import ChunkRef, ManifestEntry, decode
from flybackup.model import ChunkId, PackId, Snapshot
from flybackup.packing import ChunkRow, open_chunk, pack_key
from flybackup.repository import Repository

FETCH_BYTES = 12 * 1024 * 1024
FETCH_PLAIN_BYTES = 24 * 1024 * 1024
GAP_BYTES = 128 * 1024
"""Reading this much for nothing costs less than another request."""
WINDOW_BYTES = 32 * 1024 * 1024
FETCHES_AHEAD = 2
WORKERS = 3


class Part(NamedTuple):
    ref: ChunkRef
    place: Location


class Fetch(NamedTuple):
    """One ranged read of one pack, and the chunks in it."""

    pack: PackId
    offset: int
    length: int
    parts: tuple[Part, ...]


def plan_fetches(parts: Iterable[Part]) -> list[Fetch]:
    """Join chunks that lie near each other in a pack into one read. Pure.

    A fetch is at most `FETCH_BYTES` long and yields at most `FETCH_PLAIN_BYTES`, save a single chunk larger than that.
    """
    by_place = sorted(parts, key=lambda part: (part.place.pack, part.place.offset))
    fetches = []
    for _, in_pack in groupby(by_place, key=lambda part: part.place.pack):
        fetches += [_fetch(group) for group in _near(in_pack)]
    return sorted(fetches, key=lambda fetch: min(part.ref.offset for part in fetch.parts))


def _near(parts: Iterable[Part]) -> Iterator[list[Part]]:
    group: list[Part] = []
    plain = 0
    for part in parts:
        if group and not _fits(group, part, plain + part.ref.size):
            yield group
            group, plain = [], 0
        group.append(part)
        plain += part.ref.size
    if group:
        yield group


def _fits(group: list[Part], part: Part, plain: int) -> bool:
    first, last, place = group[0].place, group[-1].place, part.place
    near = place.offset - (last.offset + last.length) <= GAP_BYTES
    return near and place.offset + place.length - first.offset <= FETCH_BYTES and plain <= FETCH_PLAIN_BYTES


def _fetch(group: list[Part]) -> Fetch:
    first, last = group[0].place, group[-1].place
    return Fetch(first.pack, first.offset, last.offset + last.length - first.offset, tuple(group))


class Reader:
    """Reads the chunks of a repository. Use as a context manager, from one thread."""

    def __init__(self, repository: Repository, index: ChunkIndex) -> None:
        self._repository = repository
        self._index = index
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="get")
        self._secrets: dict[bytes, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def entries(self, snapshot: Snapshot) -> Iterator[ManifestEntry]:
        """Yield a snapshot's entries; needs the write key only. Raise `IntegrityError`."""
        sizes = [size for _, size in snapshot.manifest]
        starts = accumulate(sizes, initial=0)
        refs = [ChunkRef(at, size, ChunkId(name)) for at, (name, size) in zip(starts, snapshot.manifest, strict=False)]
        return decode(extent.data for extent in self.extents(refs))

    def extents(self, refs: Iterable[ChunkRef]) -> Iterator[Extent]:
        """Yield the chunks' plaintext in the order of *refs*, which ascend.

        Holds one window (`WINDOW_BYTES`, or the largest chunk) and `FETCHES_AHEAD` + 1 fetches.
        Raise `IntegrityError`, naming the object, for what is missing or not what was written.
        """
        fetches = (fetch for window in _windows(refs) for fetch in self._plan(window))
        results = ordered_map(self._pool, self._read, fetches, ahead=FETCHES_AHEAD)
        waiting: list[Extent] = []
        for expected, extents in results:
            waiting += extents
            if len(waiting) == expected:
                yield from sorted(waiting, key=lambda extent: extent.offset)
                waiting = []

    def _plan(self, window: list[ChunkRef]) -> Iterator[tuple[Fetch, int]]:
        for fetch in plan_fetches([Part(ref, self._locate(ref)) for ref in window]):
            yield fetch, len(window)

    def _locate(self, ref: ChunkRef) -> Location:
        place = self._index.find(ref.id)
        if place is None:
            raise IntegrityError(f"no index file knows the chunk {ref.id.hex()}", hint="flybackup check tells more.")
        if place.session is not None and place.session not in self._secrets:
            master = self._repository.require_master("reading data")
            self._secrets[place.session] = master.private_key.open_session(place.session, self._repository.id)
        return place

    def _read(self, planned: tuple[Fetch, int]) -> tuple[int, list[Extent]]:
        fetch, expected = planned
        key = pack_key(fetch.pack)
        stored = memoryview(self._get(key, fetch))
        try:
            return expected, [self._open(part, stored, fetch.offset) for part in fetch.parts]
        except IntegrityError as exc:
            raise IntegrityError(exc.problem, key=key, hint="flybackup check --read-data finds all damage.") from exc

    def _open(self, part: Part, stored: memoryview, base: int) -> Extent:
        place, keys = part.place, self._repository.write_key
        if place.session is None:
            secret, id_key = keys.metadata, keys.manifest_ids
        else:
            secret, id_key = self._secrets[place.session], keys.data_ids
        sealed = stored[place.offset - base : place.offset - base + place.length]
        cipher = ChunkCipher(secret, place.salt)
        row = ChunkRow(part.ref.id, place.offset, place.length, place.counter, place.encoding, part.ref.size)
        plain = open_chunk(cipher, row, sealed, id_key)
        return Extent(part.ref.offset, plain)

    def _get(self, key: str, fetch: Fetch) -> bytes:
        store = self._repository.store
        try:
            return store.get(key, offset=fetch.offset, length=fetch.length)
        except ObjectNotFoundError as exc:
            raise IntegrityError("is missing from the store", key=key) from exc
        except StoreError:
            # Too short is damage, not weather: retrying will not help, and the exit code must say so.
            size = next((info.size for info in store.list(key)), None)
            if size is not None and size < fetch.offset + fetch.length:
                raise IntegrityError(f"has only {size} bytes left", key=key) from None
            raise


def _windows(refs: Iterable[ChunkRef]) -> Iterator[list[ChunkRef]]:
    window: list[ChunkRef] = []
    size = 0
    for ref in refs:
        window.append(ref)
        size += ref.size
        if size >= WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window
