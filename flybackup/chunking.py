"""Cut a stream of extents into chunks. Pure: extents in, chunks out.

Data with pages is cut where its pages are, so an unchanged block is never stored twice whatever moved around it.
Everything else is cut where its content says (content-defined chunking, CDC), so an insertion changes the chunks
around it and no others.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flybackup.errors import SourceError

KIB = 1024
_WINDOW_BYTES = 8
_STEP_BYTES = 64 * KIB
"""How much is hashed at a time: eight times as much is held, which fits a core's cache."""


class Extent(NamedTuple):
    """Bytes at a place of a stream: the one shape in which data flows through flybackup.

    A later extent replaces what an earlier one gave for the same place, so that a source which finds a block changed
    under its hands gives it again. What no extent covers is a hole and reads as zeros. An extent without data ends
    the stream at its offset: what was given beyond is dropped, and a hole may stand before it; at offset 0 the stream
    begins anew. The buffer belongs to the consumer until it asks for the next extent.
    """

    offset: int
    data: bytes | bytearray | memoryview


class Chunk(NamedTuple):
    """A piece of an extent's stream; `data` is valid until the next chunk is asked for, and empty in an end mark."""

    offset: int
    data: memoryview


@dataclass(frozen=True, slots=True)
class Fixed:
    """Cut at `head`, then every `block` bytes. Extents begin at a cut and end at one, or at the stream's end."""

    head: int
    block: int


@dataclass(frozen=True, slots=True)
class ContentDefined:
    """Cut where eight bytes, as a number, times a secret odd `multiplier` fall under a threshold.

    The multiplier is secret so that the sizes of chunks do not tell known content. No cut stands within `minimum` of
    the one before, and one is forced at `maximum`. All three in bytes.
    """

    multiplier: int
    minimum: int
    average: int
    maximum: int

    @property
    def threshold(self) -> int:
        """A product below this is a cut: once in `average - minimum` bytes of random content."""
        return (1 << 64) // (self.average - self.minimum)


def data_chunks(multiplier: int) -> ContentDefined:
    """Return how dumps and ordinary files are cut: about 1 MiB on average."""
    return ContentDefined(multiplier, minimum=512 * KIB, average=1024 * KIB, maximum=2048 * KIB)


def manifest_chunks(multiplier: int) -> ContentDefined:
    """Return how manifests are cut: smaller, because one changed entry makes its whole chunk new."""
    return ContentDefined(multiplier, minimum=64 * KIB, average=128 * KIB, maximum=512 * KIB)


def split(extents: Iterable[Extent], how: Fixed | ContentDefined) -> Iterator[Chunk]:
    """Cut *extents* into chunks. Holds at most two chunks of the largest size, and no reference to a past extent."""
    if isinstance(how, Fixed):
        return split_fixed(extents, how)
    return ContentSplitter(how).split(extents)


def split_fixed(extents: Iterable[Extent], how: Fixed) -> Iterator[Chunk]:
    for offset, data in extents:
        view, start = memoryview(data), 0
        if offset % how.block != how.head % how.block and offset != 0 and view:
            raise SourceError(f"internal error: an extent begins at {offset}, which is no block's beginning")
        if not view:
            yield Chunk(offset, view)
        while start < len(view):
            size = how.head if offset + start < how.head else how.block
            yield Chunk(offset + start, view[start : start + size])
            start += size


class ContentSplitter:
    """Collects extents in one buffer of twice the largest chunk and cuts what it can; one stream after another."""

    def __init__(self, how: ContentDefined) -> None:
        self._how = how
        self._buffer = bytearray(2 * how.maximum)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._offset = 0  # of the buffer's first byte, in the stream

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """Take more of one endless stream, and yield the chunks that are whole by then."""
        return self._take(memoryview(data))

    def finish(self) -> Iterator[Chunk]:
        """Yield the rest of what was fed as it stands."""
        return self._cut(final=True)

    def split(self, extents: Iterable[Extent]) -> Iterator[Chunk]:
        self._filled = self._offset = 0
        for offset, data in extents:
            if offset != self._offset + self._filled:
                yield from self._cut(final=True)
                self._offset = offset
            if not data:
                yield from self._cut(final=True)
                yield Chunk(offset, self._view[:0])
            yield from self._take(memoryview(data))
        yield from self._cut(final=True)

    def _take(self, data: memoryview) -> Iterator[Chunk]:
        while data:
            size = min(len(data), len(self._buffer) - self._filled)
            self._view[self._filled : self._filled + size] = data[:size]
            self._filled += size
            data = data[size:]
            if self._filled == len(self._buffer):
                yield from self._cut(final=False)

    def _cut(self, *, final: bool) -> Iterator[Chunk]:
        start = 0
        while start < self._filled:
            end = next_cut(self._buffer, start, self._filled, self._how, final=final)
            if end is None:
                break
            yield Chunk(self._offset + start, self._view[start:end])
            start = end
        rest = self._filled - start
        self._view[:rest] = bytes(self._view[start : self._filled])
        self._offset += start
        self._filled = rest


def next_cut(buffer: bytearray, start: int, end: int, how: ContentDefined, *, final: bool) -> int | None:
    """Return where the chunk that begins at *start* ends, or None when it needs bytes beyond *end*.

    The answer depends on the chunk's own bytes only, never on where a buffer happened to end: that is what makes the
    same content give the same chunks.
    """
    limit = min(start + how.maximum, end)
    at = start + how.minimum
    while at < limit:
        stop = min(at + _STEP_BYTES, limit)
        hits = _hits(buffer, at, stop, how)
        if hits.size:
            return at + int(hits[0])
        at = stop
    return limit if final or limit == start + how.maximum else None


def _hits(buffer: bytearray, at: int, stop: int, how: ContentDefined) -> npt.NDArray[np.intp]:
    # One 64-bit word begins at every byte: an overlapping, unaligned view, so that no Python loop is needed.
    words: npt.NDArray[np.uint64] = np.ndarray(
        (stop - at,), dtype="<u8", buffer=buffer, offset=at - _WINDOW_BYTES, strides=(1,)
    )
    return np.flatnonzero(words * np.uint64(how.multiplier) < np.uint64(how.threshold))
