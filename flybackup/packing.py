"""The wire layout of packs: sealed chunks in segments, a sealed directory, a trailer (`docs/format.md`, "Packs").

    pack      := chunk* directory trailer
    directory := blob sealed with the metadata key: what is where
    trailer   := length of the directory, u32 little-endian · "flypack1"

A segment is a run of chunks sealed together by one worker under one key. The key's salt travels in the directory, so a
collector can move sealed chunks into another pack without being able to read them.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from flybackup.compression import compress, decompress
from flybackup.crypto import (
    SALT_BYTES,
    TAG_BYTES,
    Buffer,
    ChunkCipher,
    chunk_id,
    digest,
)
from flybackup.envelope import open_value, seal_value
from flybackup.errors import IntegrityError
from flybackup.model import ChunkId, PackId

MAGIC = b"flypack1"
TRAILER_BYTES = 4 + len(MAGIC)
ID_BYTES = 32
LARGEST_CHUNK_BYTES = 4 * 1024 * 1024
DATA, MANIFEST = "data", "manifest"
_DIRECTORY_NAME = "pack directory"


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """Chunks under one key. `session` is the sealed session key's place in the directory, or None in manifest packs,
    whose keys derive from the metadata key."""

    salt: bytes
    session: int | None
    count: int


class Directory(msgspec.Struct, frozen=True, kw_only=True):
    """What is where in a pack: one row a chunk, in columns, segment after segment.

    `ids` holds 32 bytes a row; `offsets`, `lengths` (sealed), `counters` (nonce in its segment) and `sizes` (plain) are
    little-endian u32 columns; `encodings` one byte a row.
    """

    kind: str
    sessions: tuple[bytes, ...]
    segments: tuple[Segment, ...]
    ids: bytes
    offsets: bytes
    lengths: bytes
    counters: bytes
    sizes: bytes
    encodings: bytes

    def __len__(self) -> int:
        return len(self.encodings)

    def _has_key(self, session: int | None) -> bool:
        # Data under the metadata key would be readable by every agent.
        return session is None if self.kind == MANIFEST else session in range(len(self.sessions))

    def validate(self, name: str) -> None:
        """Raise `IntegrityError` for a forged directory: it must not index out of range, shift the columns of others,
        or ask for more memory than a chunk."""
        if not (self._columns_agree() and self._segments_agree() and self._rows_are_chunks()):
            raise IntegrityError("its directory contradicts itself", key=name)

    def _columns_agree(self) -> bool:
        columns = (self.offsets, self.lengths, self.counters, self.sizes)
        return len(self.ids) == ID_BYTES * len(self) and all(len(column) == 4 * len(self) for column in columns)

    def _segments_agree(self) -> bool:
        whole = all(
            len(segment.salt) == SALT_BYTES and segment.count > 0 and self._has_key(segment.session)
            for segment in self.segments
        )
        return whole and sum(segment.count for segment in self.segments) == len(self)

    def _rows_are_chunks(self) -> bool:
        lengths, sizes = (np.frombuffer(column, dtype="<u4") for column in (self.lengths, self.sizes))
        fit = (lengths > TAG_BYTES) & (lengths <= LARGEST_CHUNK_BYTES + TAG_BYTES)
        return bool((fit & (sizes > 0) & (sizes <= LARGEST_CHUNK_BYTES)).all())


class SealedSegment(NamedTuple):
    """What a worker says of a segment it sealed: where it lies in its pack, and the rows that describe it."""

    offset: int
    length: int
    salt: bytes
    session: bytes | None
    ids: Sequence[ChunkId]
    lengths: Sequence[int]
    sizes: Sequence[int]
    encodings: bytes


class SegmentKey(NamedTuple):
    """`secret` derives the segment's key with `salt`; `session` is the secret sealed, or None for the metadata key."""

    secret: bytes
    salt: bytes
    session: bytes | None


class Region(NamedTuple):
    """Part of a pack's buffer, from `offset` of the pack."""

    offset: int
    view: memoryview


def seal_segment(
    chunks: Sequence[tuple[ChunkId, Buffer]], key: SegmentKey, id_key: bytes, reserve: Callable[[int], Region]
) -> SealedSegment:
    """Compress *chunks* and seal them into the region that *reserve* gives for their length, right where they will be
    put from. Then open and decompress the result and compare: what cannot be read is not stored.

    Holds the compressed bytes of all of them. Raises `IntegrityError` when the way back gives other bytes (a
    compressor's bug, or memory that forgets).
    """
    cipher = ChunkCipher(key.secret, key.salt)
    encoded = [compress(data) for _, data in chunks]
    lengths = [len(data) + TAG_BYTES for _, data in encoded]
    region = reserve(sum(lengths))
    at = 0
    for counter, ((name, plain), (encoding, data), length) in enumerate(zip(chunks, encoded, lengths, strict=True)):
        out = region.view[at : at + length]
        cipher.seal_into(counter, _bound(name, encoding), data, out)
        open_chunk(cipher, ChunkRow(name, at, length, counter, encoding, len(plain)), out, id_key)
        at += length
    ids = [name for name, _ in chunks]
    sizes = [len(data) for _, data in chunks]
    return SealedSegment(
        region.offset, at, key.salt, key.session, ids, lengths, sizes, bytes(encoding for encoding, _ in encoded)
    )


class ChunkRow(NamedTuple):
    """One row of a directory: where a sealed chunk lies in its pack (`offset`, `length`), and what opens it."""

    id: ChunkId
    offset: int
    length: int
    counter: int
    encoding: int
    size: int


def chunks_of(directory: Directory) -> Iterator[tuple[Segment, list[ChunkRow]]]:
    """Yield the segments of a pack with their rows."""
    columns = (directory.offsets, directory.lengths, directory.counters, directory.sizes)
    offsets, lengths, counters, sizes = (np.frombuffer(column, dtype="<u4").tolist() for column in columns)
    ids = (ChunkId(directory.ids[at : at + ID_BYTES]) for at in range(0, len(directory.ids), ID_BYTES))
    rows = map(ChunkRow, ids, offsets, lengths, counters, directory.encodings, sizes)
    for segment in directory.segments:
        yield segment, list(islice(rows, segment.count))


def open_chunk(cipher: ChunkCipher, row: ChunkRow, sealed: Buffer, id_key: bytes) -> Buffer:
    """Return the plain bytes of a chunk, proved to be the ones that its id names.

    `row.size` bounds what may come out. Raise `IntegrityError` otherwise: first by the cipher's tag, last by the id, so
    that even a chunk sealed by a thief of the write key cannot pass for another.
    """
    encoded = cipher.open(row.counter, _bound(row.id, row.encoding), sealed)
    plain = decompress(row.encoding, encoded, row.size)
    if len(plain) != row.size or chunk_id(id_key, plain) != row.id:
        raise IntegrityError("a chunk's content is not what its id says")
    return plain


def _bound(name: ChunkId, encoding: int) -> bytes:
    return name + bytes((encoding,))


class FinishedPack(NamedTuple):
    """`data` lies in `buffer`, which may be used for another pack once this one is put."""

    id: PackId
    data: memoryview
    directory: Directory
    buffer: memoryview


def new_buffer(size: int) -> memoryview:
    """Return memory for a pack. Mapped, so that only what is written to is ever resident."""
    return memoryview(mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS))


class OpenPack:
    """A pack being filled, in *buffer*, which may hold an earlier pack's bytes.

    Regions are given out front to back, to workers that seal into them; the pack is whole when it is `closed` and every
    region has come back as a segment. A buffer that is used again is not faulted in for each pack.
    """

    def __init__(self, kind: str, buffer: memoryview) -> None:
        self._kind = kind
        self._buffer = buffer
        self._segments: list[SealedSegment] = []
        self._returned = 0
        self.size = 0
        self.closed = False

    def reserve(self, length: int) -> Region:
        """Give out the next *length* bytes; for one caller at a time. A pack's first segment may be of any length."""
        if self.size + length > len(self._buffer):
            if self.size:
                raise AssertionError("unreachable: the pack should have been closed before")
            self._buffer = new_buffer(length)
        region = Region(self.size, self._buffer[self.size : self.size + length])
        self.size += length
        return region

    def add(self, segment: SealedSegment) -> None:
        self._segments.append(segment)
        self._returned += segment.length

    @property
    def whole(self) -> bool:
        return self.closed and self._returned == self.size

    def finish(self, metadata_key: bytes) -> FinishedPack:
        """Return the pack, ready to be put; the buffer is the pack's until that is done."""
        directory = self._directory()
        sealed = seal_value(metadata_key, _DIRECTORY_NAME, directory)
        self._append(sealed + len(sealed).to_bytes(4, "little") + MAGIC)
        data = self._buffer[: self.size]
        return FinishedPack(PackId(digest(data)), data, directory, self._buffer)

    def _append(self, data: bytes) -> None:
        end = self.size + len(data)
        if end > len(self._buffer):
            larger = new_buffer(end)
            larger[: self.size] = self._buffer[: self.size]
            self._buffer = larger
        self._buffer[self.size : end] = data
        self.size = end

    def _directory(self) -> Directory:
        rows = sorted(self._segments, key=lambda segment: segment.offset)
        sessions = list(dict.fromkeys(s.session for s in rows if s.session is not None))
        lengths = np.array([length for s in rows for length in s.lengths], dtype=np.int64)
        return Directory(
            kind=self._kind,
            sessions=tuple(sessions),
            segments=tuple(
                Segment(s.salt, None if s.session is None else sessions.index(s.session), len(s.ids)) for s in rows
            ),
            ids=b"".join(name for s in rows for name in s.ids),
            offsets=_column(np.cumsum(lengths) - lengths),
            lengths=_column(lengths),
            counters=_column([counter for s in rows for counter in range(len(s.ids))]),
            sizes=_column([size for s in rows for size in s.sizes]),
            encodings=b"".join(s.encodings for s in rows),
        )


def _column(values: Sequence[int] | npt.NDArray[np.int64]) -> bytes:
    return np.asarray(values, dtype="<u4").tobytes()


def directory_length(trailer: Buffer, pack_size: int, name: str) -> int:
    """Return how many bytes before the trailer are the directory. Raise `IntegrityError` for an impossible trailer."""
    length = int.from_bytes(trailer[:4], "little")
    if bytes(trailer[4:]) != MAGIC or length > pack_size - TRAILER_BYTES:
        raise IntegrityError("does not end like a pack", key=name)
    return length


def read_directory(metadata_key: bytes, sealed: Buffer, name: str) -> Directory:
    """Open a pack's directory. Raise `IntegrityError`, naming the pack, when it is not one."""
    try:
        directory = open_value(metadata_key, _DIRECTORY_NAME, sealed, Directory)
    except IntegrityError as exc:
        raise IntegrityError("its directory does not open", key=name) from exc
    directory.validate(name)
    return directory


def pack_key(pack: PackId) -> str:
    """Return where a pack lies in the store."""
    name = pack.hex()
    return f"packs/{name[:2]}/{name}"
