"""Neighbouring blocks read together, one run ahead, into buffers that are used again and again, and checked there."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import numpy as np

from flybackup.chunking import Extent
from flybackup.concurrency import ordered_map
from flybackup.sources.duckdb.layout import MAX_BLOCK_BYTES, Mask, block_offset, holds, words_of
from flybackup.sources.duckdb.live import REREADS, LiveFile

RUN_BYTES = 2 << 20


class TornRunError(Exception):
    """A used block did not hold, however often it was read."""

    def __init__(self, block: int) -> None:
        super().__init__(f"block {block}")
        self.block = block


def runs(wanted: Mask, block_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield [first, last) of neighbouring wanted blocks, at most `RUN_BYTES` together, ascending."""
    edges = np.flatnonzero(np.diff(wanted, prepend=False, append=False))
    longest = RUN_BYTES // block_bytes
    for first, end in edges.reshape(-1, 2):
        for start in range(int(first), int(end), longest):
            yield start, min(start + longest, int(end))


class RunReader:
    """Reads runs of a live file without allocating: page faults would cost more than the reading."""

    def __init__(self, live: LiveFile) -> None:
        self._live = live
        self._buffers = cycle([memoryview(bytearray(RUN_BYTES)) for _ in range(2)])
        self._products = np.empty(MAX_BLOCK_BYTES // 8, np.uint64)

    def read(
        self, size: int, wanted: Iterable[tuple[int, int]], used: Mask, block_bytes: int
    ) -> Iterator[tuple[int, int, Extent]]:
        """Yield the runs *wanted* of a file that ends at *size*: first block, last block, what they hold.

        While the consumer works on one, another thread reads and checks the next; the two buffers take turns. Raise
        `TornRunError` when a block that *used* names is not whole.
        """

        def read(run: tuple[int, int, memoryview]) -> tuple[int, int, Extent]:
            first, last, buffer = run
            return first, last, self._read(size, first, used[first:last], block_bytes, buffer)

        with ThreadPoolExecutor(1, thread_name_prefix="read") as pool:
            yield from ordered_map(pool, read, ((*run, next(self._buffers)) for run in wanted), ahead=1)

    def _read(self, size: int, first: int, used: Mask, block_bytes: int, buffer: memoryview) -> Extent:
        offset = block_offset(first, block_bytes)
        view = buffer[: min(used.size * block_bytes, size - offset)]
        count = self._live.read_into(view, offset)
        view[count:] = bytes(len(view) - count)  # a free end was cut off meanwhile
        for index in np.flatnonzero(used):
            start = int(index) * block_bytes
            self._check(view[start : start + block_bytes], first + int(index), block_bytes)
        return Extent(offset, view)

    def zeros(self, size: int, first: int, last: int, block_bytes: int) -> Extent:
        """Return zeros in place of blocks that were given and have become a hole."""
        offset = block_offset(first, block_bytes)
        view = next(self._buffers)[: min((last - first) * block_bytes, size - offset)]
        view[:] = bytes(len(view))
        return Extent(offset, view)

    def _check(self, view: memoryview, block: int, block_bytes: int) -> None:
        for _ in range(REREADS):
            if len(view) == block_bytes and holds(words_of(view), self._products):
                return
            self._live.read_into(view, block_offset(block, block_bytes))
        raise TornRunError(block)
