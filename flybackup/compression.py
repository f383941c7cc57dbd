"""Compression of one chunk: zstd (RFC 8878), kept raw when that does not pay."""

import sys
import threading
from typing import Final

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from flybackup.errors import IntegrityError

Buffer = bytes | bytearray | memoryview

RAW = 0
ZSTD = 1
LEVEL = 1
_PAYS = 0.98
_SLICE_BYTES = 8 * 1024
_JUDGED_BYTES = 8 * _SLICE_BYTES
_FRAME: Final = zstd.ZstdCompressor.FLUSH_FRAME
_local = threading.local()


def compress(data: Buffer) -> tuple[int, Buffer]:
    """Return the encoding (`RAW` or `ZSTD`) and the encoded bytes: *data* itself when zstd saves under two per cent.

    Large chunks are judged by a sample first, because most blocks of a database that compresses its own columns do
    not shrink: on such a file three chunks of four cost a tenth of the time.
    """
    compressor = _compressor()
    if len(data) > _JUDGED_BYTES and not _pays(sample := _sample(data), compressor.compress(sample, _FRAME)):
        return RAW, data
    packed = compressor.compress(data, _FRAME)
    return (ZSTD, packed) if _pays(data, packed) else (RAW, data)


def _pays(data: Buffer, packed: bytes) -> bool:
    return len(packed) < _PAYS * len(data)


def _sample(data: Buffer) -> bytes:
    """Return slices from within: both ends of a database block are often empty and tell nothing of the rest."""
    quarter = len(data) // 4
    return b"".join(data[at : at + _SLICE_BYTES] for at in (quarter, 2 * quarter, 3 * quarter))


def decompress(encoding: int, data: Buffer, limit: int) -> Buffer:
    """Return the plain bytes, at most *limit* of them.

    The limit stands against a stolen write key: who can seal could store a few bytes that unpack to terabytes.
    Raise `IntegrityError` for bytes that are no frame, more than one frame, or too long.
    """
    if encoding == RAW:
        return data
    if encoding != ZSTD:
        raise IntegrityError(f"a chunk has the unknown encoding {encoding}")
    decompressor = zstd.ZstdDecompressor()
    try:
        plain = decompressor.decompress(data, max_length=limit + 1)
    except zstd.ZstdError as exc:
        raise IntegrityError("a chunk does not decompress") from exc
    if len(plain) > limit or not decompressor.eof or decompressor.unused_data:
        raise IntegrityError("a chunk decompresses to more or less than it should")
    return plain


def _compressor() -> zstd.ZstdCompressor:
    # A context costs about a megabyte to set up, so each thread keeps its own.
    if not hasattr(_local, "compressor"):
        _local.compressor = zstd.ZstdCompressor(LEVEL)
    compressor: zstd.ZstdCompressor = _local.compressor
    return compressor
