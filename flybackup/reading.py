"""Read chunks back: plan ranged reads, fetch and open them in threads, yield extents in order.

What comes out is proved: the cipher's tag, then the chunk's id over its plaintext.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, groupby, islice
from types import TracebackType
from typing import NamedTuple, Self

from flybackup.chunking import Extent
from flybackup.concurrency import ordered_map
from flybackup.crypto import ChunkCipher
from flybackup.errors import IntegrityError, ObjectNotFoundError, StoreError
from flybackup.index import ChunkIndex, Location
from flybackup.manifest import ChunkRef, Kept, ManifestEntry, decode, in_a_row, kept
from flybackup.model import Entry, PackId, Snapshot
from flybackup.packing import ChunkRow, open_chunk, pack_key
from flybackup.repository import Repository

FETCH_BYTES = 20 * 1024 * 1024
"""A whole pack, so that a restore asks for each once."""
GAP_BYTES = 128 * 1024
"""Reading this much for nothing costs less than another request."""
WINDOW_BYTES = 32 * 1024 * 1024
PART_BYTES = 512
"""What remembering a part costs: a forged manifest of one-byte chunks must not make windows of millions."""
BATCH_CHUNKS = 64
"""An entry of fewer chunks is read together with its neighbours."""
KEPT_BATCH = 1024
OPEN_BYTES = 2 * 1024 * 1024
FETCHERS, FETCHES_AHEAD = 2, 1
OPENERS = max(2, min(4, os.cpu_count() or 1))


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

    A fetch is at most `FETCH_BYTES` long. Fetches are in the order in which their first chunk is wanted.
    """
    by_place = sorted(parts, key=lambda part: (part.place.pack, part.place.offset))
    fetches = []
    for _, in_pack in groupby(by_place, key=lambda part: part.place.pack):
        fetches += [_fetch(group) for group in _near(in_pack)]
    return sorted(fetches, key=lambda fetch: min(part.ref.offset for part in fetch.parts))


def _near(parts: Iterable[Part]) -> Iterator[list[Part]]:
    group: list[Part] = []
    for part in parts:
        if group and not _fits(group, part.place):
            yield group
            group = []
        group.append(part)
    if group:
        yield group


def _fits(group: list[Part], place: Location) -> bool:
    first, last = group[0].place, group[-1].place
    near = place.offset - (last.offset + last.length) <= GAP_BYTES
    return near and place.offset + place.length - first.offset <= FETCH_BYTES


def _fetch(group: list[Part]) -> Fetch:
    first, last = group[0].place, group[-1].place
    return Fetch(first.pack, first.offset, last.offset + last.length - first.offset, tuple(group))


class _Fetched(NamedTuple):
    """Some chunks of a fetch, still sealed; `stored` is the whole fetch."""

    stored: memoryview
    fetch: Fetch
    parts: tuple[Part, ...]


class Reader:
    """Reads the chunks of a repository. Use as a context manager, from one thread."""

    def __init__(self, repository: Repository, index: ChunkIndex) -> None:
        self._repository = repository
        self._index = index
        self._fetchers = ThreadPoolExecutor(FETCHERS, thread_name_prefix="get")
        self._openers = ThreadPoolExecutor(OPENERS, thread_name_prefix="open")
        self._secrets: dict[bytes, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._fetchers.shutdown(wait=True, cancel_futures=True)
        self._openers.shutdown(wait=True, cancel_futures=True)

    def entries(self, snapshot: Snapshot) -> Iterator[ManifestEntry]:
        """Yield a snapshot's entries; needs the write key only. Raise `IntegrityError`."""
        return decode(extent.data for extent in self.extents(in_a_row(snapshot.manifest)))

    def kept(self, snapshot: Snapshot) -> Iterator[Kept]:
        """Yield a snapshot's entries whose chunks are all in the index, with their records. Raise `IntegrityError`."""
        entries = kept(extent.data for extent in self.extents(in_a_row(snapshot.manifest)))
        while batch := list(islice(entries, KEPT_BATCH)):
            whole = self._index.holds(b"".join([each.ids for each in batch]))
            yield from batch if whole else (each for each in batch if self._index.holds(each.ids))

    def contents(self, entries: Iterable[ManifestEntry]) -> Iterator[tuple[Entry, Iterator[Extent]]]:
        """Yield entries with their data, which is read before the next is asked for.

        Small ones are fetched together, as if they were one: a window (`WINDOW_BYTES`) of them, or a few thousand.
        """
        batch: list[tuple[Entry, list[ChunkRef]]] = []
        weight = 0
        for entry, chunks in entries:
            refs = list(islice(chunks, BATCH_CHUNKS))
            small = len(refs) < BATCH_CHUNKS
            if not small or weight >= WINDOW_BYTES:
                yield from self._batch(batch)
                batch, weight = [], 0
            if small:
                batch.append((entry, refs))
                weight += entry.size + PART_BYTES * (1 + len(refs))
            else:
                yield entry, self.extents(chain(refs, chunks))
        yield from self._batch(batch)

    def _batch(self, batch: list[tuple[Entry, list[ChunkRef]]]) -> Iterator[tuple[Entry, Iterator[Extent]]]:
        """Read the chunks of many small entries, each once although several of them may lie in it."""
        names = [ref for ref, _ in groupby((ref.id, ref.size) for _, refs in batch for ref in refs)]
        chunks = zip(names, self.extents(in_a_row(names)), strict=True)
        name: bytes = b""
        data: bytes | bytearray | memoryview = b""

        def parts(refs: Iterable[ChunkRef]) -> Iterator[Extent]:
            nonlocal name, data
            for ref in refs:
                if ref.id != name:
                    (name, _), (_, data) = next(chunks)
                yield Extent(ref.offset, memoryview(data)[ref.skip : ref.size - ref.cut])

        for entry, refs in batch:
            extents = parts(refs)
            yield entry, extents
            for _ in extents:  # what was not asked for must not become the next one's
                pass

    def extents(self, refs: Iterable[ChunkRef]) -> Iterator[Extent]:
        """Yield the chunks' plaintext in the order of *refs*, which ascend.

        Holds `FETCHES_AHEAD` + 1 fetches and a few `OPEN_BYTES`; of data that lies scattered over packs a window
        (`WINDOW_BYTES`) besides. Raise `IntegrityError`, naming the object, for what is missing or was not written.
        """
        wanted: deque[int] = deque()
        early: dict[int, Extent] = {}
        fetched = ordered_map(self._fetchers, self._get, self._plan(refs, wanted), ahead=FETCHES_AHEAD)
        pieces = (piece for stored, fetch in fetched for piece in _pieces(stored, fetch))
        for extents in ordered_map(self._openers, self._open, pieces, ahead=OPENERS):
            early.update((extent.offset, extent) for extent in extents)
            while wanted and wanted[0] in early:
                yield early.pop(wanted.popleft())

    def _plan(self, refs: Iterable[ChunkRef], wanted: deque[int]) -> Iterator[Fetch]:
        """Yield what to fetch, and note in *wanted* the order in which it has to come out."""
        for window in windows(Part(ref, self._locate(ref)) for ref in refs):
            wanted.extend(part.ref.offset for part in window)
            yield from plan_fetches(window)

    def _locate(self, ref: ChunkRef) -> Location:
        place = self._index.find(ref.id)
        if place is None:
            raise IntegrityError(f"no index file knows the chunk {ref.id.hex()}", hint="flybackup check tells more.")
        if place.session is not None and place.session not in self._secrets:
            master = self._repository.require_master("reading data")
            self._secrets[place.session] = master.private_key.open_session(place.session, self._repository.id)
        return place

    def _get(self, fetch: Fetch) -> tuple[memoryview, Fetch]:
        store, key = self._repository.store, pack_key(fetch.pack)
        try:
            return memoryview(store.get(key, offset=fetch.offset, length=fetch.length)), fetch
        except ObjectNotFoundError as exc:
            raise IntegrityError("is missing from the store", key=key) from exc
        except StoreError:
            # Too short is damage, not weather: retrying will not help, and the exit code must say so.
            size = next((info.size for info in store.list(key)), None)
            if size is not None and size < fetch.offset + fetch.length:
                raise IntegrityError(f"has only {size} bytes left", key=key) from None
            raise

    def _open(self, piece: _Fetched) -> list[Extent]:
        try:
            return [self._open_part(part, piece.stored, piece.fetch.offset) for part in piece.parts]
        except IntegrityError as exc:
            hint = "flybackup check --read-data finds all damage."
            raise IntegrityError(exc.problem, key=pack_key(piece.fetch.pack), hint=hint) from exc

    def _open_part(self, part: Part, stored: memoryview, base: int) -> Extent:
        place, keys = part.place, self._repository.write_key
        if place.session is None:
            secret, id_key = keys.metadata, keys.manifest_ids
        else:
            secret, id_key = self._secrets[place.session], keys.data_ids
        sealed = stored[place.offset - base : place.offset - base + place.length]
        row = ChunkRow(part.ref.id, place.offset, place.length, place.counter, place.encoding, part.ref.size)
        data = open_chunk(ChunkCipher(secret, place.salt), row, sealed, id_key)
        return Extent(part.ref.offset, data[part.ref.skip : part.ref.size - part.ref.cut])


def _pieces(stored: memoryview, fetch: Fetch) -> Iterator[_Fetched]:
    parts: list[Part] = []
    size = 0
    for part in fetch.parts:
        parts.append(part)
        size += part.ref.size
        if size >= OPEN_BYTES:
            yield _Fetched(stored, fetch, tuple(parts))
            parts, size = [], 0
    if parts:
        yield _Fetched(stored, fetch, tuple(parts))


def windows(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Cut after `WINDOW_BYTES`, if possible where one pack ends and the next begins, so that none is read twice."""
    window: list[Part] = []
    size = 0
    for part in parts:
        full = size >= WINDOW_BYTES and part.place.pack != window[-1].place.pack
        if full or size >= 2 * WINDOW_BYTES:
            yield window
            window, size = [], 0
        window.append(part)
        size += part.ref.size + PART_BYTES
    if window:
        yield window
