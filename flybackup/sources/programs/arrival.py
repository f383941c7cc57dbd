"""Put the extents of a restore in order: they may come in any, and holes do not come at all."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Final

from flybackup.chunking import Extent
from flybackup.errors import SourceError
from flybackup.sources import Stream

_BLOCK_BYTES: Final = 1024 * 1024


def in_order(stream: Stream, scratch: Path) -> Iterator[bytes | bytearray | memoryview]:
    """Yield the bytes of *stream* from its first to its last.

    What comes in its turn is passed on; what comes too early waits in a file in *scratch*, which reads as zeros where
    nothing came. Memory: one extent or 1 MiB.
    """
    position = 0
    early: dict[int, int] = {}
    with TemporaryFile(dir=scratch) as waiting:
        for extent in stream.extents:
            if extent.offset != position:
                _set_aside(extent, position, waiting, early)
                continue
            yield extent.data
            position += len(extent.data)
            while position in early:
                end = position + early.pop(position)
                yield from _read(waiting, position, end)
                position = end
        if position < stream.entry.size:
            waiting.truncate(stream.entry.size)
            yield from _read(waiting, position, stream.entry.size)


def spooled(stream: Stream, file: Path) -> Path:
    """Write the bytes of *stream* to *file*, readable by us alone, and return it."""
    with file.open("xb") as out:
        file.chmod(0o600)
        end = stream.entry.size
        for extent in stream.extents:
            out.seek(extent.offset)
            out.write(extent.data)
            end = max(end, out.tell())
        out.truncate(end)
    return file


def _set_aside(extent: Extent, position: int, waiting: IO[bytes], early: dict[int, int]) -> None:
    if extent.offset < position or extent.offset in early:
        raise SourceError(f"the bytes at {extent.offset} of the dump came twice", hint="check the repository")
    waiting.seek(extent.offset)
    waiting.write(extent.data)
    early[extent.offset] = len(extent.data)


def _read(waiting: IO[bytes], start: int, end: int) -> Iterator[bytes]:
    waiting.seek(start)
    while start < end:
        block = waiting.read(min(_BLOCK_BYTES, end - start))
        start += len(block)
        yield block
