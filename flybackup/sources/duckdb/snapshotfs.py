"""A read-only file system that shows DuckDB one snapshot: kept blocks from their copy, the others from the live file.

DuckDB opens `snap://database.duckdb` and its logs through it, so a validation needs no second copy on disk and takes
no lock. The live file comes as an inherited descriptor: the same inode that was copied, whatever its path says now.
"""

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec.spec import AbstractFileSystem

PROTOCOL = "snap"
DATABASE = "database.duckdb"
_HEADER_BYTES = 12288


@dataclass(frozen=True, slots=True)
class Layers:
    """`kept_map` holds one byte a block: 1 where `kept_fd` has the block. `size` and `block_bytes` in bytes."""

    live_fd: int
    kept_fd: int
    kept_map: bytes
    block_bytes: int
    size: int


class SnapshotFile:
    """One open file. DuckDB seeks and reads from several threads on one handle, so each thread has its own position."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._positions: dict[int, int] = {}

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self.size}[whence]
        self._positions[threading.get_ident()] = base + offset
        return base + offset

    def tell(self) -> int:
        return self._positions.get(threading.get_ident(), 0)

    def read(self, size: int = -1) -> bytes:
        start = self.tell()
        end = self.size if size < 0 else min(start + size, self.size)
        data = self._read_at(start, max(end - start, 0))
        self.seek(start + len(data))
        return data

    def seekable(self) -> bool:
        return True

    def flush(self) -> None:
        """Nothing is ever written."""

    def close(self) -> None:
        """The descriptors live as long as the process."""

    def _read_at(self, offset: int, size: int) -> bytes:
        raise NotImplementedError


class LogFile(SnapshotFile):
    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        super().__init__(os.fstat(self._fd).st_size)

    def _read_at(self, offset: int, size: int) -> bytes:
        return os.pread(self._fd, size, offset)


class LayeredFile(SnapshotFile):
    """The database. `live_blocks` says which blocks were read from the live file: they must be proved afterwards."""

    def __init__(self, layers: Layers) -> None:
        super().__init__(layers.size)
        self._layers = layers
        self.live_blocks = bytearray(len(layers.kept_map))

    def _read_at(self, offset: int, size: int) -> bytes:
        end = offset + size
        if end <= _HEADER_BYTES:
            return os.pread(self._layers.kept_fd, size, offset)
        pieces = []
        while offset < end:
            piece = self._piece(offset, end)
            pieces.append(piece)
            offset += len(piece)
            if not piece:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _piece(self, offset: int, end: int) -> bytes:
        if offset < _HEADER_BYTES:
            return os.pread(self._layers.kept_fd, min(_HEADER_BYTES, end) - offset, offset)
        block_bytes, kept = self._layers.block_bytes, self._layers.kept_map
        first = (offset - _HEADER_BYTES) // block_bytes
        stop = min(-(-(end - _HEADER_BYTES) // block_bytes), len(kept))
        last = kept.find(b"\0" if kept[first] else b"\1", first, stop)
        last = stop if last < 0 else last
        count = min(end, _HEADER_BYTES + last * block_bytes) - offset
        if kept[first]:
            return os.pread(self._layers.kept_fd, count, offset)
        self.live_blocks[first:last] = b"\1" * (last - first)
        return os.pread(self._layers.live_fd, count, offset)


class SnapshotFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """Serves the database and its logs under their names; knows no other file and no writing."""

    protocol = PROTOCOL
    cachable = False

    def __init__(self, files: dict[str, SnapshotFile]) -> None:
        super().__init__()
        self._files = files

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix(f"{PROTOCOL}://")

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        name = self._strip_protocol(path)
        if name not in self._files:
            raise FileNotFoundError(name)
        return {"name": name, "size": self._files[name].size, "type": "file"}

    def open(self, path: str, mode: str = "rb", **_: Any) -> SnapshotFile:
        name = self._strip_protocol(path)
        if mode != "rb":
            raise PermissionError(name)
        if name not in self._files:
            raise FileNotFoundError(name)
        return self._files[name]

    def glob(self, path: str, **_: Any) -> list[str]:
        name = self._strip_protocol(path)
        return [name] if name in self._files else []
