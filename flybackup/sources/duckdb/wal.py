"""The write-ahead log of a DuckDB file, frame by frame: where the last commit ends, and whether a checkpoint began.

A log begins with an unframed entry that names its version; then frames follow: size, checksum, entry. An entry's type
is its third byte. A commit is complete when its FLUSH entry is there; DuckDB ignores what follows the last one. From
DuckDB's `write_ahead_log.cpp`; version 2 is written by 0.10 to 2.0, version 3 is encrypted, 0.9 wrote version 1.
"""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

WAL_SUFFIX = ".wal"
WAL_SUFFIXES = (".wal", ".wal.checkpoint", ".wal.recovery")
"""Every file beside the database that belongs to it: the log, the log since a checkpoint began (1.5), a recovery's."""

FRAMED_VERSION = 2

_FIELD_END = 0xFFFF
_FIELD_IDENTIFIER = 0x66
_FIELD_ITERATION = 0x67
_ENTRY_CHECKPOINT = 99
_ENTRY_FLUSH = 100
_FRAME = struct.Struct("<QQ")
_TYPE_AT = _FRAME.size + 2
_LONGEST_HEADER = 64

Read = Callable[[int, int], bytes]
"""(offset, size) → the bytes there, fewer at the end."""


def beside(database: Path, suffix: str) -> Path:
    """Return the path of the log of *database* with that suffix."""
    return database.with_name(database.name + suffix)


def logs_of(database: Path) -> list[Path]:
    """Return the logs of *database* that exist."""
    return [path for suffix in WAL_SUFFIXES if os.path.lexists(path := beside(database, suffix))]


class WalVersionError(Exception):
    """The log's version is not the one with framed, plain entries."""

    def __init__(self, version: int | None) -> None:
        super().__init__(f"version {version}")
        self.version = version


@dataclass(frozen=True, slots=True)
class WalScan:
    """`committed_bytes` ends with the last FLUSH or CHECKPOINT, 0 when there is none; `whole_bytes` with the last whole
    frame. `checkpoint_began` tells of a CHECKPOINT entry: the database is being rewritten, or was when its writer died.
    """

    committed_bytes: int = 0
    whole_bytes: int = 0
    checkpoint_began: bool = False


def scan(read: Read, size: int, since: WalScan | None = None) -> WalScan:
    """Walk the frames of a log of *size* bytes, from where an earlier scan *since* ended. Raise `WalVersionError`."""
    found = since or WalScan()
    at = found.whole_bytes or _header_bytes(read(0, _LONGEST_HEADER))
    if at == 0:
        return found
    window = _Window(read, size)
    committed, began = found.committed_bytes, found.checkpoint_began
    while (frame := window.frame_at(at)) is not None:
        at, entry = frame
        began = began or entry == _ENTRY_CHECKPOINT
        committed = at if entry in (_ENTRY_FLUSH, _ENTRY_CHECKPOINT) else committed
    return WalScan(committed, at, began)


def _header_bytes(head: bytes) -> int:
    """Return where the first frame begins, 0 when the version entry is not all there yet."""
    if len(head) < 6:  # noqa: PLR2004 - field 100, type, field 101, version
        return 0
    if head[:5] != b"\x64\x00\x62\x65\x00" or head[5] != FRAMED_VERSION:
        raise WalVersionError(head[5] if head[:5] == b"\x64\x00\x62\x65\x00" else None)
    try:
        return _skip_fields(head, 6)
    except IndexError:
        return 0


def _skip_fields(head: bytes, at: int) -> int:
    while (name := head[at] | head[at + 1] << 8) != _FIELD_END:
        value, at = _varint(head, at + 2)
        if name == _FIELD_IDENTIFIER:
            for _ in range(value):
                _, at = _varint(head, at)
        elif name != _FIELD_ITERATION:
            raise WalVersionError(None)
    return at + 2


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:  # noqa: PLR2004 - LEB128's continuation bit
            return value, at


class _Window:
    """Frame heads read a MiB at a time: a log has hundreds of thousands of small frames, or a few huge ones."""

    _BYTES = 1 << 20

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self._size = size
        self._start = 0
        self._data = b""

    def frame_at(self, at: int) -> tuple[int, int] | None:
        """Return the end and the entry type of the whole frame at *at*; None when there is none (yet)."""
        if at + _TYPE_AT >= self._size:
            return None
        if not self._start <= at or at + _TYPE_AT >= self._start + len(self._data):
            self._start, self._data = at, self._read(at, min(self._BYTES, self._size - at))
        if len(self._data) <= at - self._start + _TYPE_AT:
            return None
        size, _ = _FRAME.unpack_from(self._data, at - self._start)
        end = at + _FRAME.size + size
        return None if size == 0 or end > self._size else (end, self._data[at - self._start + _TYPE_AT])
