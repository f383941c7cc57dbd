"""The DuckDB file format as far as a copy must understand it: headers, free list, checksums. Bytes in, values out.

    0       main header: checksum, `DUCK`, storage version, flags, library version of the file's creator
    4096    database header 1     The active one is that with the higher iteration; every checkpoint writes the other
    8192    database header 2     one, so that a crash leaves one whole.
    12288   block 0, block 1, …   each begins with the checksum of the rest

From DuckDB's `single_file_block_manager.cpp`, `storage_info.hpp`, `checksum.cpp`; the same from 0.10 to 2.0.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Words = NDArray[np.uint64]

HEADER_BYTES = 12288
PAGE_BYTES = 4096
MAGIC = b"DUCK"
MIN_BLOCK_BYTES = 16384
MAX_BLOCK_BYTES = 262144
INVALID = (1 << 64) - 1
STORAGE_VERSION_IN_DATABASE_HEADER = 999
"""Written by 2.0 in the main header's place."""

_SEED = 5381
_FACTOR = np.uint64(0xBF58476D1CE4E5B9)
_SUB_BLOCKS = 64
_BLOCK_ID_BITS = 56
_DATABASE_HEADER = struct.Struct("<8Q")
_MAIN_HEADER = struct.Struct("<8x4sQQ24x32s")


class TornError(Exception):
    """What was read does not hold together: it was being written. Read it again."""


class NotDuckdbError(Exception):
    """The file does not begin like a DuckDB database."""


@dataclass(frozen=True, slots=True)
class Header:
    """The first 12,288 bytes, understood. Two headers are the same database state exactly when `raw` is equal.

    `block_count` may count free blocks that lie beyond the end of the file. Of an encrypted file only `raw`,
    `encrypted` and `library_version` are known.
    """

    raw: bytes
    library_version: str
    storage_version: int
    encrypted: bool
    iteration: int = 0
    free_list: int = INVALID
    block_count: int = 0
    block_bytes: int = MAX_BLOCK_BYTES

    @property
    def blocks_end(self) -> int:
        return block_offset(self.block_count, self.block_bytes)


@dataclass(frozen=True, slots=True)
class BlockMap:
    """What each of the first `block_count` blocks is. Metadata is rewritten in place; other blocks never while used."""

    free: Mask
    metadata: Mask

    @property
    def used_count(self) -> int:
        """How many blocks there are up to the last one in use."""
        used = np.flatnonzero(~self.free)
        return int(used[-1]) + 1 if used.size else 0


def has_magic(head: bytes) -> bool:
    return head[8:12] == MAGIC


def block_offset(block: int, block_bytes: int) -> int:
    return HEADER_BYTES + block * block_bytes


def words_of(data: bytes | bytearray | memoryview) -> Words:
    return np.frombuffer(data, dtype=np.uint64)


def checksum(words: Words, products: Words | None = None) -> int:
    """Return DuckDB's checksum of whole 64-bit words. It finds torn reads; it is too weak to compare contents with.

    *products* is room for at least as many words, so that nothing need be allocated.
    """
    room = None if products is None else products[: words.size]
    return _SEED ^ int(np.bitwise_xor.reduce(np.multiply(words, _FACTOR, out=room)))


def holds(words: Words, products: Words | None = None) -> bool:
    """Tell whether a block or header page has the checksum that its first word says."""
    return int(words[0]) == checksum(words[1:], products)


def parse_header(raw: bytes) -> Header:
    """Raise `NotDuckdbError`, or `TornError` when a checksum does not hold: DuckDB writes all three pages whole."""
    if len(raw) < HEADER_BYTES or not has_magic(raw):
        raise NotDuckdbError
    magic, storage_version, flags, library = _MAIN_HEADER.unpack_from(raw)
    assert magic == MAGIC
    library_version = library.rstrip(b"\0").decode("ascii", "replace")
    if flags & 1:
        return Header(raw, library_version, storage_version, encrypted=True)
    if not all(holds(words_of(raw[at : at + PAGE_BYTES])) for at in range(0, HEADER_BYTES, PAGE_BYTES)):
        raise TornError("the header")
    return _with_active_page(raw, library_version, storage_version)


def _with_active_page(raw: bytes, library_version: str, storage_version: int) -> Header:
    pages = [_DATABASE_HEADER.unpack_from(raw, at) for at in (PAGE_BYTES, 2 * PAGE_BYTES)]
    active = max(pages, key=lambda page: cast("int", page[1]))
    _, iteration, _, free_list, block_count, block_bytes, _, compatibility = active
    block_bytes = block_bytes or MAX_BLOCK_BYTES
    if not MIN_BLOCK_BYTES <= block_bytes <= MAX_BLOCK_BYTES or block_bytes & (block_bytes - 1):
        raise NotDuckdbError
    if storage_version == STORAGE_VERSION_IN_DATABASE_HEADER:
        storage_version = compatibility
    return Header(raw, library_version, storage_version, False, iteration, free_list, block_count, block_bytes)


def read_block_map(header: Header, read_block: Callable[[int], bytes]) -> BlockMap:
    """Read the free list that *header* points to: the free blocks and the metadata blocks.

    *read_block* returns a whole block or raises `TornError`. Read while the next checkpoint has begun to re-use its
    blocks, a list may say anything, so every number is checked before it is believed.
    """
    free = np.zeros(header.block_count, np.bool_)
    metadata = np.zeros(header.block_count, np.bool_)
    if header.free_list != INVALID:
        chain = _Chain(header, read_block)
        _mark(free, np.frombuffer(chain.take(8 * chain.count(8)), np.int64))
        chain.take(12 * chain.count(12))  # blocks shared by several segments, with their number of users
        _mark(metadata, np.frombuffer(chain.take(16 * chain.count(16)), np.int64)[::2])
        _mark(metadata, np.fromiter(chain.visited, np.int64))
    return BlockMap(free, metadata)


def _mark(mask: Mask, blocks: NDArray[np.int64]) -> None:
    if blocks.size and (int(blocks.min()) < 0 or int(blocks.max()) >= mask.size):
        raise TornError("the free list names blocks that do not exist")
    mask[blocks] = True


class _Chain:
    """A metadata stream: sub-blocks of 1/64 block, each beginning with a pointer to the next."""

    def __init__(self, header: Header, read_block: Callable[[int], bytes]) -> None:
        self._read_block = read_block
        self._block_count = header.block_count
        self._sub_bytes = (header.block_bytes - 8) // _SUB_BLOCKS & ~7
        self._next = header.free_list
        self._steps = 0
        self._buffer = bytearray()
        self.visited: dict[int, bytes] = {}

    def count(self, item_bytes: int) -> int:
        (count,) = struct.unpack("<Q", self.take(8))
        if count > self._block_count or count * item_bytes > self._block_count * 16:
            raise TornError("the free list is longer than there are blocks")
        return int(count)

    def take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._follow()
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _follow(self) -> None:
        block, index = self._next & (1 << _BLOCK_ID_BITS) - 1, self._next >> _BLOCK_ID_BITS
        self._steps += 1
        if block >= self._block_count or index >= _SUB_BLOCKS or self._steps > self._block_count * _SUB_BLOCKS:
            raise TornError("the free list points nowhere")
        if block not in self.visited:
            self.visited[block] = self._read_block(block)
        start = 8 + index * self._sub_bytes
        sub_block = self.visited[block][start : start + self._sub_bytes]
        (self._next,) = struct.unpack_from("<Q", sub_block)
        self._buffer += sub_block[8:]
