"""The blocks a validation reads from a copy instead of the live file: metadata, which is rewritten in place, or all."""

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from flybackup.chunking import Extent
from flybackup.errors import SourceError
from flybackup.sources.duckdb.layout import HEADER_BYTES, Header, Mask

_MARGIN_BYTES = 64 << 20


class KeptBlocks:
    """A sparse file in the scratch directory. `everything` keeps all blocks: the file is then a whole copy."""

    def __init__(self, path: Path, *, everything: bool) -> None:
        self.path = path
        self.everything = everything
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_TRUNC, 0o600)
        self._kept: Mask = np.zeros(0, np.bool_)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self._fd)

    def ensure_space(self, needed_bytes: int) -> None:
        """Raise `SourceError` when a whole copy would not fit."""
        free = shutil.disk_usage(self.path.parent).free
        if self.everything and free < needed_bytes + _MARGIN_BYTES:
            message = (
                f"a staged copy of {needed_bytes >> 20} MiB does not fit into the {free >> 20} MiB free for scratch"
            )
            hint = "Give flybackup a larger scratch directory (TMPDIR), not on the database's own volume."
            raise SourceError(message, hint=hint)

    def begin(self, header: Header, block_count: int) -> None:
        """Start a pass over *block_count* blocks. Metadata is kept anew in every pass."""
        self._write(header.raw, 0)
        self._kept = np.zeros(block_count, np.bool_)

    def keep(self, extent: Extent, first: int, metadata: Mask, block_bytes: int) -> Extent:
        """Keep a run of blocks that begins with block *first*: all of it, or those that *metadata* says. Return it."""
        data = memoryview(extent.data)
        if self.everything:
            self._write(data, extent.offset)
            return extent
        for index in np.flatnonzero(metadata):
            start = int(index) * block_bytes
            self._write(data[start : start + block_bytes], extent.offset + start)
        self._kept[first : first + metadata.size] = metadata
        return extent

    def finish(self, size: int) -> None:
        os.ftruncate(self._fd, max(size, HEADER_BYTES))

    def write_map(self, path: Path) -> None:
        """Write one byte a block, 1 where the block is kept, for the validating child."""
        path.write_bytes(self._kept.tobytes())

    def _write(self, data: bytes | memoryview, offset: int) -> None:
        view = memoryview(data)
        try:
            while view:
                count = os.pwrite(self._fd, view, offset)
                view, offset = view[count:], offset + count
        except OSError as exc:
            raise SourceError(f"cannot write to the scratch directory: {exc.strerror}") from exc
