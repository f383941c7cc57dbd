"""The application's database file, held open to be looked at and locked the way SQLite locks it.

SQLite's locks are byte ranges far behind the data. A shared lock is what every reader holds: with it nobody can take
the exclusive one, which a rollback-mode commit needs, and the last process that closes a WAL database before it removes
its log. Ours are open file description locks: closing another descriptor of the file does not drop them.
"""

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from flybackup.errors import SourceError
from flybackup.sources.files import holders
from flybackup.sources.files.family import Family
from flybackup.sources.files.refusals import source_errors
from flybackup.sources.sqlite.connecting import SUFFIXES
from flybackup.sources.sqlite.header import HEADER_BYTES, Header, parse_header

_FLOCK = struct.Struct("hhqqi4x")
_PENDING = (0x40000000, 1)
_RESERVED = (0x40000001, 1)
_SHARED = (0x40000002, 510)
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class NotNowError(Exception):
    """Somebody's lock is in the way, or the file changed meanwhile: try again."""


class Identity(NamedTuple):
    """A file and the state of its content, as far as the file system tells."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class LiveFile:
    """The database at *path*, which is not made when it is missing. Raise `SourceError` when it is not to be read.

    SQLite keeps the companions beside the file that a symbolic link leads to; so `real` is what they belong to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with source_errors(f"cannot read {path}"):
            self.real = Family(path.resolve(), SUFFIXES)
            if holders.locked_by_this_process(path):
                raise SourceError(f"{path} is in use by this very process", hint="Run flybackup in one of its own.")
            self.fd = os.open(self.real.path, _OPEN_FLAGS)
        self.opened = os.fstat(self.fd)
        if not stat.S_ISREG(self.opened.st_mode):
            os.close(self.fd)
            raise SourceError(f"{path} is not a file", hint="Name the SQLite database file itself.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self.fd)

    def header(self) -> Header:
        """Raise `SourceError` when the file does not begin like a SQLite database."""
        with source_errors(f"cannot read {self.path}"):
            head = os.pread(self.fd, HEADER_BYTES, 0)
        header = parse_header(head)
        if header is not None:
            return header
        if not head:
            hint = "An application has not written to it yet, or its content is lost; there is nothing to back up."
            raise SourceError(f"{self.path} is empty", hint=hint)
        hint = "Check the path. An encrypted database (SQLCipher, SEE) cannot be read without its key."
        raise SourceError(f"{self.path} is not a SQLite database, or it is encrypted", hint=hint)

    def user(self) -> holders.Holder | None:
        """Return a process that holds any lock on the database; not for one that `guarded` is around."""
        return holders.user_of(self.fd)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Hold a shared lock. Raise `NotNowError` when a writer has the file, or waits for it and must not starve."""
        self._lock(fcntl.F_RDLCK, _PENDING)
        try:
            self._lock(fcntl.F_RDLCK, _SHARED)
        finally:
            self._lock(fcntl.F_UNLCK, _PENDING)
        try:
            yield
        finally:
            self._lock(fcntl.F_UNLCK, _SHARED)

    def _lock(self, kind: int, place: tuple[int, int]) -> None:
        try:
            fcntl.fcntl(self.fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, *place, 0))
        except OSError as exc:
            if exc.errno in (errno.EAGAIN, errno.EACCES):
                raise NotNowError from exc
            raise SourceError(f"cannot lock {self.path} for reading: {exc.strerror}") from exc

    def shares_a_log(self) -> bool:
        """Tell whether another process uses the database with its WAL now: log and index are there and are its own."""
        try:
            fd = os.open(self.real.beside("-shm"), _OPEN_FLAGS)
        except FileNotFoundError:
            return False
        try:
            return holders.user_of(fd) is not None and self.real.beside("-wal").exists()
        finally:
            os.close(fd)

    def has_hot_journal(self) -> bool:
        """Tell, by SQLite's own rule, whether the last writer died in a transaction that has to be rolled back.

        To be asked while `guarded`: a journal that has begun is hot when nobody has reserved the database for writing.
        SQLite must not be asked: run by root it gives the journal an owner, which changes it.
        """
        try:
            fd = os.open(self.real.beside("-journal"), _OPEN_FLAGS)
        except FileNotFoundError:
            return False
        try:
            begun = os.read(fd, 1) not in (b"", b"\0")
        finally:
            os.close(fd)
        return begun and self._reserved() is None

    def _reserved(self) -> int | None:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, *_RESERVED, 0)
        kind, *_, pid = _FLOCK.unpack(fcntl.fcntl(self.fd, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else int(pid)

    def identities(self) -> dict[str, Identity]:
        """Return the state of the database ("" in the answer) and of its logs that hold something, as they lie there.

        Raise `NotNowError` when another file has come into the database's place.
        """
        found = {suffix: self._identity(suffix) for suffix in ("", "-wal", "-journal")}
        if found[""] is None or found[""][:2] != (self.opened.st_dev, self.opened.st_ino):
            raise NotNowError
        return {suffix: each for suffix, each in found.items() if each is not None and (each.size or not suffix)}

    def _identity(self, suffix: str) -> Identity | None:
        try:
            found = self.real.beside(suffix).stat() if suffix else self.real.path.stat()
        except FileNotFoundError:
            return None
        return Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
