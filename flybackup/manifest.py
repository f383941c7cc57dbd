"""The manifest: what a snapshot holds, as a stream of records that is chunked like any other data.

    record := length, u32 little-endian · MessagePack map
    stream of records := (entry run*)*

A run is up to `RUN_CHUNKS` chunks that lie one after the other in the entry; a hole begins a new run. The first lies in
the entry's own record. A million files or a terabyte in one file need no special case, and an unchanged stretch of
the manifest is not stored again.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from flybackup.envelope import UNDECODABLE
from flybackup.errors import IntegrityError, SourceError
from flybackup.model import ChunkId, Entry
from flybackup.packing import ID_BYTES, LARGEST_CHUNK_BYTES

RUN_CHUNKS = 1024
_LARGEST_RECORD_BYTES = 1024 * 1024
_LENGTH_BYTES = 4


class ChunkRef(NamedTuple):
    """Where a chunk stands in its entry: from `offset`, its `size` bytes without the first `skip` and the last `cut`.

    Most chunks stand whole. Several small files may lie in one.
    """

    offset: int
    size: int
    id: ChunkId
    skip: int = 0
    cut: int = 0

    @property
    def end(self) -> int:
        return self.offset + self.size - self.skip - self.cut


class Refs:
    """The chunks of one entry, in the order in which they were captured: 44 bytes of memory each.

    A chunk captured again at the same offset replaces the earlier one (see `Extent`).
    """

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self._ids = bytearray()
        self._offsets: list[npt.NDArray[np.int64]] = []
        self._sizes: list[npt.NDArray[np.int64]] = []
        self._pending: list[tuple[int, int]] = []
        self._end: int | None = None

    def add(self, offset: int, size: int, name: ChunkId) -> None:
        self._ids += name
        self._pending.append((offset, size))
        if len(self._pending) == RUN_CHUNKS:
            self._flush()

    def end_at(self, offset: int) -> None:
        """Say that the stream ends here, whatever was captured beyond. At 0 it may begin anew."""
        if offset == 0:
            self._restart()
        self._end = offset or None

    def _flush(self) -> None:
        rows = np.array(self._pending, dtype=np.int64).reshape(-1, 2)
        self._offsets.append(rows[:, 0].copy())
        self._sizes.append(rows[:, 1].copy())
        self._pending = []

    def resolve(self) -> tuple[int, Iterator[ChunkRef]]:
        """Return the entry's size and its chunks, ascending. Raise `SourceError` when two of them overlap."""
        if not self._offsets and len(self._pending) <= 1 and self._end is None:
            return self._only()
        self._flush()
        offsets, sizes = np.concatenate(self._offsets), np.concatenate(self._sizes)
        # The last of equal offsets stands: look for first occurrences in the reversed array.
        _, last = np.unique(offsets[::-1], return_index=True)
        rows = len(offsets) - 1 - last
        end = self._end if self._end is not None else int((offsets + sizes)[rows].max(initial=0))
        rows = rows[offsets[rows] < end]
        ends = offsets[rows] + sizes[rows]
        if (ends[:-1] > offsets[rows][1:]).any() or ends.max(initial=0) > end:
            raise SourceError("internal error: the capture gave overlapping extents")
        return end, self._refs(rows, offsets, sizes)

    def _only(self) -> tuple[int, Iterator[ChunkRef]]:
        """What most files are, at a tenth of the time."""
        refs = [ChunkRef(offset, size, ChunkId(bytes(self._ids))) for offset, size in self._pending]
        return (refs[0].offset + refs[0].size if refs else 0), iter(refs)

    def _refs(
        self, rows: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
    ) -> Iterator[ChunkRef]:
        for row in rows.tolist():
            name = bytes(self._ids[row * ID_BYTES : (row + 1) * ID_BYTES])
            yield ChunkRef(int(offsets[row]), int(sizes[row]), ChunkId(name))


class _Record(msgspec.Struct, omit_defaults=True):
    """An `entry` with its first run, or a further run: `at`, `sizes` (u32 little-endian column) and `ids`.

    `skip` bytes of the run's first chunk and `cut` of its last belong to other entries.
    """

    entry: Entry | None = None
    at: int = 0
    skip: int = 0
    cut: int = 0
    sizes: bytes = b""
    ids: bytes = b""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Record)


def encode(entry: Entry, chunks: Iterable[ChunkRef]) -> Iterator[bytes]:
    """Yield the records of one entry, about 36 KiB at the most at a time."""
    first: Entry | None = entry
    for run in _runs(chunks):
        yield _frame(_record(first, run))
        first = None
    if first is not None:
        yield _frame(_Record(first))


def _record(entry: Entry | None, run: Sequence[ChunkRef]) -> _Record:
    sizes = b"".join([ref.size.to_bytes(4, "little") for ref in run])
    ids = b"".join([ref.id for ref in run])
    return _Record(entry, run[0].offset, run[0].skip, run[-1].cut, sizes, ids)


def _runs(chunks: Iterable[ChunkRef]) -> Iterator[list[ChunkRef]]:
    run: list[ChunkRef] = []
    for ref in chunks:
        if run and (len(run) == RUN_CHUNKS or ref.offset != run[-1].end or run[-1].cut or ref.skip):
            yield run
            run = []
        run.append(ref)
    if run:
        yield run


def _frame(record: _Record) -> bytes:
    body = _ENCODER.encode(record)
    return len(body).to_bytes(_LENGTH_BYTES, "little") + body


class ManifestEntry(NamedTuple):
    """An entry and its chunks; `chunks` is lazy and read before the next entry is asked for."""

    entry: Entry
    chunks: Iterator[ChunkRef]


def decode(blocks: Iterable[bytes | bytearray | memoryview]) -> Iterator[ManifestEntry]:
    """Yield the entries of a manifest stream; chunks left unread are skipped.

    Holds one block and one record. Raise `IntegrityError` for a stream that is not a manifest.
    """
    records = map(_decode, _bodies(blocks))
    record = next(records, None)
    while record is not None:
        if record.entry is None:
            raise IntegrityError("the manifest has chunks that belong to no entry")
        follow = _Follow(record, records, record.entry.size)
        yield ManifestEntry(record.entry, follow.chunks())
        record = follow.skip()


class Kept(NamedTuple):
    """An entry of an earlier manifest with its records as they stand there, to be put into the next one unread.

    `ids` are those of its chunks, 32 bytes each.
    """

    entry: Entry
    records: bytes
    ids: bytes


def kept(blocks: Iterable[bytes | bytearray | memoryview]) -> Iterator[Kept]:
    """Yield the entries of a manifest stream with their records. Holds one block, and one entry's records.

    What is wrong with chunks, `decode` finds when they are read. Raise `IntegrityError` for what is no manifest.
    """
    entry: Entry | None = None
    records: list[bytes] = []
    ids: list[bytes] = []
    for body in _bodies(blocks):
        record = _decode(body)
        if record.entry is not None:
            if entry is not None:
                yield Kept(entry, b"".join(records), b"".join(ids))
            entry, records, ids = record.entry, [], []
        records += (len(body).to_bytes(_LENGTH_BYTES, "little"), body)
        ids.append(record.ids)
    if entry is not None:
        yield Kept(entry, b"".join(records), b"".join(ids))


def renewed(kept: Kept, entry: Entry) -> bytes:
    """Return the records of *kept* for an entry that has the same data and another name, owner or time."""
    length = _LENGTH_BYTES + int.from_bytes(kept.records[:_LENGTH_BYTES], "little")
    first = _decode(kept.records[_LENGTH_BYTES:length])
    return _frame(msgspec.structs.replace(first, entry=entry)) + kept.records[length:]


class _Follow:
    """The first run of an entry, the runs behind it, and the record that ends them."""

    def __init__(self, first: _Record, records: Iterator[_Record], size: int) -> None:
        self._first = first
        self._records = records
        self._size = size
        self._next: _Record | None = None
        self._chunks = self._read()

    def chunks(self) -> Iterator[ChunkRef]:
        return self._chunks

    def _read(self) -> Iterator[ChunkRef]:
        end = 0
        for ref in _refs(self._first):
            end = self._checked(ref, end)
            yield ref
        for record in self._records:
            if record.entry is not None:
                self._next = record
                return
            for ref in _refs(record):
                end = self._checked(ref, end)
                yield ref

    def _checked(self, ref: ChunkRef, end: int) -> int:
        if ref.offset < end or ref.end > self._size:
            raise IntegrityError("the manifest has chunks that overlap or reach past their entry")
        return ref.end

    def skip(self) -> _Record | None:
        for _ in self._chunks:
            pass
        return self._next


def _refs(record: _Record) -> Iterator[ChunkRef]:
    if len(record.sizes) % 4 or len(record.ids) != ID_BYTES * (len(record.sizes) // 4):
        raise IntegrityError("the manifest has a run whose columns differ in length")
    names = [record.ids[at : at + ID_BYTES] for at in range(0, len(record.ids), ID_BYTES)]
    sizes = np.frombuffer(record.sizes, dtype="<u4").tolist()
    if not record.skip and not record.cut:
        return in_a_row(zip(names, sizes, strict=True), record.at)
    return _shared(names, sizes, record)


def _shared(names: Sequence[bytes], sizes: Sequence[int], record: _Record) -> Iterator[ChunkRef]:
    """Yield a run that begins or ends inside a chunk."""
    last = len(names) - 1
    at = record.at
    for number, ref in enumerate(in_a_row(zip(names, sizes, strict=True))):
        skip, cut = record.skip if number == 0 else 0, record.cut if number == last else 0
        if skip < 0 or cut < 0 or skip + cut >= ref.size:
            raise IntegrityError("the manifest has a run that begins or ends outside its chunks")
        yield ChunkRef(at, ref.size, ref.id, skip, cut)
        at += ref.size - skip - cut


def in_a_row(chunks: Iterable[tuple[bytes, int]], offset: int = 0) -> Iterator[ChunkRef]:
    """Yield where chunks (id, size) stand that follow one another from *offset*.

    Raise `IntegrityError` for an id or size that no chunk has: the size bounds what may be unpacked.
    """
    for name, size in chunks:
        if len(name) != ID_BYTES or not 0 < size <= LARGEST_CHUNK_BYTES:
            raise IntegrityError("the manifest has an impossible chunk")
        yield ChunkRef(offset, size, ChunkId(name))
        offset += size


def _bodies(blocks: Iterable[bytes | bytearray | memoryview]) -> Iterator[bytes]:
    buffer = bytearray()
    for block in blocks:
        buffer += block
        at = 0
        while (body := _whole(buffer, at)) is not None:
            yield body
            at += _LENGTH_BYTES + len(body)
        del buffer[:at]
    if buffer:
        raise IntegrityError("the manifest ends in the middle of a record")


def _whole(buffer: bytearray, at: int) -> bytes | None:
    length = int.from_bytes(buffer[at : at + _LENGTH_BYTES], "little")
    if length > _LARGEST_RECORD_BYTES or (length == 0 and len(buffer) - at >= _LENGTH_BYTES):
        raise IntegrityError("the manifest has a record of impossible length")
    body = bytes(buffer[at + _LENGTH_BYTES : at + _LENGTH_BYTES + length])
    return body if at < len(buffer) and len(body) == length > 0 else None


def _decode(body: bytes) -> _Record:
    try:
        return _DECODER.decode(body)
    except UNDECODABLE as exc:
        raise IntegrityError("the manifest has a record that does not decode") from exc
