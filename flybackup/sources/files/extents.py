"""A finished file of ours as a stream."""

from collections.abc import Iterator
from pathlib import Path

from flybackup.chunking import Extent

_PIECE_BYTES = 1 << 20


def file_extents(path: Path) -> Iterator[Extent]:
    """Yield the whole of *path* and its end; holds 1 MiB, used again for each piece."""
    buffer = bytearray(_PIECE_BYTES)
    view = memoryview(buffer)
    offset = 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            yield Extent(offset, view[:count])
            offset += count
    yield Extent(offset, b"")
