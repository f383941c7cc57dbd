"""Reading a DuckDB file that another process is writing: nothing here locks, writes, or trusts what it read once.

Closing a file drops every POSIX lock the same process holds on it, so none of this may run inside the application
that has the database open; `LiveFile` refuses when it sees that it does.
"""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from flybackup.clock import Clock
from flybackup.errors import SourceError
from flybackup.sources.duckdb.layout import (
    HEADER_BYTES,
    BlockMap,
    Header,
    NotDuckdbError,
    TornError,
    block_offset,
    has_magic,
    holds,
    parse_header,
    read_block_map,
    words_of,
)
from flybackup.sources.duckdb.wal import logs_of
from flybackup.sources.files import holders

REREADS = 8
"""How often a block that does not hold is read again at once: DuckDB is in the middle of writing it."""

_HEADER_REREADS = 1000
_HEADER_PAUSE_SECONDS = 0.002


def is_duckdb_file(path: Path) -> bool:
    """Tell by its first bytes whether *path* is a DuckDB database. False for what cannot be read."""
    try:
        with path.open("rb") as file:
            return has_magic(file.read(16))
    except OSError:
        return False


class LiveFile:
    """One open database file, for as long as its `with` block lasts. Raises `SourceError` when it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.path = path = _where_its_logs_are(path)
        _refuse_inside_application(path)
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise SourceError(f"cannot open {path}: {exc.strerror}", hint=_open_hint(exc)) from exc
        self.opened = os.fstat(self.fd)
        if not stat.S_ISREG(self.opened.st_mode):
            os.close(self.fd)
            raise SourceError(f"{path} is not a file", hint="Name the DuckDB database file itself.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self.fd)

    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def is_at_its_path(self) -> bool:
        """Tell whether the path still leads to the open file: `os.replace` may have put another one there."""
        try:
            found = self.path.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (self.opened.st_dev, self.opened.st_ino)

    def writer(self) -> holders.Holder | None:
        return holders.writer_of(self.fd)

    def raw_header(self) -> bytes:
        return os.pread(self.fd, HEADER_BYTES, 0)

    def header(self, clock: Clock) -> Header:
        """Return the header, read again while it is being written. Raise `SourceError` when it never holds."""
        for _ in range(_HEADER_REREADS):
            try:
                return parse_header(self.raw_header())
            except TornError:
                clock.sleep(_HEADER_PAUSE_SECONDS)
            except NotDuckdbError as exc:
                hint = "Check the path; SQLite files and directories are sources of other types."
                raise SourceError(f"{self.path} is not a DuckDB database (0.10 to 2.x)", hint=hint) from exc
        message = f"the header of {self.path} is damaged: its checksums never held"
        raise SourceError(message, hint="Restore the newest snapshot: DuckDB itself refuses such a file.")

    def block_map(self, header: Header) -> BlockMap:
        """Return which blocks are free and which hold metadata. Raise `TornError` when the list cannot be trusted."""
        return read_block_map(header, lambda block: self._whole_block(header, block))

    def _whole_block(self, header: Header, block: int) -> bytes:
        for _ in range(REREADS):
            data = os.pread(self.fd, header.block_bytes, block_offset(block, header.block_bytes))
            if len(data) == header.block_bytes and holds(words_of(data)):
                return data
        raise TornError(f"block {block}")

    def read_into(self, view: memoryview, offset: int) -> int:
        """Fill *view* from *offset* and return how much there was: less than asked for only at the end of the file."""
        done = 0
        while done < len(view) and (count := os.preadv(self.fd, [view[done:]], offset + done)):
            done += count
        return done

    def data_ranges(self, size: int) -> Iterator[tuple[int, int]]:
        """Yield where the first *size* bytes are not holes. 2.0 grows a memory-mapped file to 256 GiB of them."""
        end = 0
        while end < size:
            try:
                start = os.lseek(self.fd, end, os.SEEK_DATA)
                end = min(os.lseek(self.fd, start, os.SEEK_HOLE), size)
            except OSError as exc:
                if exc.errno == errno.ENXIO:  # nothing but a hole up to the end
                    return
                raise
            if start < size:
                yield start, end


def _where_its_logs_are(path: Path) -> Path:
    """Return *path*, or what a symbolic link there leads to when the logs are there (from 2.0 on; else at the link)."""
    if not path.is_symlink():
        return path
    real = path.resolve()
    if logs_of(real) and logs_of(path):
        message = f"{path} and {real} both have logs, so nobody can say which belong to the database"
        raise SourceError(message, hint="Let every application open it by one path, and name that path here.")
    return real if logs_of(real) else path


def _refuse_inside_application(path: Path) -> None:
    if holders.locked_by_this_process(path):
        message = f"{path} is open in this very process; reading it here would drop DuckDB's lock on it"
        raise SourceError(message, hint="Run flybackup as a process of its own.")


def _open_hint(exc: OSError) -> str:
    if exc.errno == errno.ENOENT:
        return "Check the path; is the volume mounted?"
    if exc.errno == errno.EACCES:
        return "Run flybackup as a user who may read the database and its directory."
    return ""
