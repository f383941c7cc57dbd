"""Small files, chunked as one stream: thousands of them make a few chunks, which compress better and cost less.

A file is then a range of that stream: some bytes of one chunk, or the end of one and the beginning of the next. Where
the chunks end is known only later, so its references are asked for until they are there.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from flybackup.chunking import ContentDefined, ContentSplitter
from flybackup.manifest import ChunkRef
from flybackup.model import ChunkId

SHARED_BYTES = 32 * 1024
"""A file up to this size shares chunks: one that is larger keeps chunks of its own, to be found again elsewhere."""


class Span(NamedTuple):
    """A file's place in the stream."""

    start: int
    end: int


class _Cut(NamedTuple):
    start: int
    size: int
    id: ChunkId


class SharedStream:
    """Holds what is not cut yet, at most two chunks of the largest size. *store* takes a chunk and returns its id."""

    def __init__(self, how: ContentDefined, store: Callable[[memoryview], ChunkId]) -> None:
        self._splitter = ContentSplitter(how)
        self._store = store
        self._end = 0
        self._cuts: deque[_Cut] = deque()

    def add(self, data: bytes) -> Span:
        """Take a file's data, which is not empty."""
        span = Span(self._end, self._end + len(data))
        self._end = span.end
        self._note(self._splitter.feed(data))
        return span

    def flush(self) -> None:
        """End the chunk that is being filled: every reference is there then."""
        self._note(self._splitter.finish())

    def _note(self, chunks: Iterable[tuple[int, memoryview]]) -> None:
        for start, data in chunks:
            self._cuts.append(_Cut(start, len(data), self._store(data)))

    def refs(self, span: Span) -> Sequence[ChunkRef] | None:
        """Return a file's chunks, None while they are not cut. Asked for in the order of `add`, once each."""
        while self._cuts and self._cuts[0].start + self._cuts[0].size <= span.start:
            self._cuts.popleft()
        if not self._cuts or self._cuts[-1].start + self._cuts[-1].size < span.end:
            return None
        return [
            ChunkRef(
                offset=max(cut.start - span.start, 0),
                size=cut.size,
                id=cut.id,
                skip=max(span.start - cut.start, 0),
                cut=max(cut.start + cut.size - span.end, 0),
            )
            for cut in self._cuts
            if cut.start < span.end
        ]
