"""The first hundred bytes of a SQLite database. Bytes in, values out."""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"SQLite format 3\0"
HEADER_BYTES = 100
_FIELDS = struct.Struct(">16sHBB36xII4xI20xII")
"""Magic, page size, write and read version, encoding, user version, application id, version-valid-for, version."""

_SMALLEST_PAGE_BYTES = 512
_LARGEST_PAGE_BYTES = 65536
_WAL = 2
_ENCODINGS = {0: "UTF-8", 1: "UTF-8", 2: "UTF-16le", 3: "UTF-16be"}


@dataclass(frozen=True, slots=True)
class Header:
    """`wal`: the file says that it is used with a write-ahead log. `library` is the version that last wrote it, or ""
    where that was one before 3.7, which does not say."""

    page_bytes: int
    wal: bool
    encoding: str
    user_version: int
    application_id: int
    library: str


def is_sqlite(head: bytes) -> bool:
    """Tell whether a file that begins with *head* (16 bytes or more) is a SQLite database that is not encrypted.

    A database into which nothing was ever written is an empty file, and nobody can tell what that is.
    """
    return head.startswith(MAGIC)


def is_sqlite_file(path: Path) -> bool:
    """Tell whether *path* is a SQLite database. Raise `OSError` when it cannot be read.

    POSIX drops a process's locks on a file when it closes any descriptor of it: not for a file that this process has
    open with SQLite, which includes one that another thread is capturing.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return is_sqlite(os.read(fd, len(MAGIC)))
    finally:
        os.close(fd)


def parse_header(head: bytes) -> Header | None:
    """Return what *head* says; None when that is no SQLite database of a version known here."""
    if len(head) < HEADER_BYTES or not is_sqlite(head):
        return None
    _, page, write, read, encoding, user, application, _, version = _FIELDS.unpack_from(head)
    page_bytes = _LARGEST_PAGE_BYTES if page == 1 else page
    possible = page_bytes >= _SMALLEST_PAGE_BYTES and not page_bytes & (page_bytes - 1)
    if not possible or max(write, read) > _WAL or encoding not in _ENCODINGS:
        return None
    return Header(
        page_bytes=page_bytes,
        wal=_WAL in (write, read),
        encoding=_ENCODINGS[encoding],
        user_version=_signed(user),
        application_id=_signed(application),
        library=_version(version),
    )


def _signed(number: int) -> int:
    return number - (1 << 32) if number >= 1 << 31 else number


def _version(number: int) -> str:
    """Write 3045001 as 3.45.1."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}" if number else ""
