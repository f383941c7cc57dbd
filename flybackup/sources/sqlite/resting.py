"""A database that nobody uses, copied raw with its logs: SQLite cannot open it without leaving something behind.

Opened for reading, a WAL database that was closed gets a `-wal` and a `-shm` again, which belong to whoever opened it
and stay; and one whose application died in a transaction is not opened at all, because it would have to be rolled
back. So the files are copied, it is proved that nothing wrote them meanwhile, and SQLite recovers the copy in scratch.
"""

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flybackup.clock import Clock
from flybackup.errors import SourceError
from flybackup.sources.files.family import Family
from flybackup.sources.files.refusals import source_errors
from flybackup.sources.sqlite.connecting import SUFFIXES, scratch_connection, sqlite_errors
from flybackup.sources.sqlite.live import Identity, LiveFile, NotNowError

_PIECE_BYTES = 16 << 20
_SETTLED_NS = 100_000_000
"""A file system's clock ticks every few milliseconds: two writes in one tick leave the same times."""

_JOURNAL_MAGIC = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
_TRAILER = struct.Struct(">II8s")


def copy_at_rest(live: LiveFile, copy: Path, clock: Clock) -> str:
    """Copy the database to *copy* and return which logs it had. Raise `NotNowError` when somebody uses it."""
    before = _settled(live, clock)
    family = Family(copy, SUFFIXES)
    with _copying(live.path):
        _copy(live.fd, copy, before[""].size)
        logs = [suffix for suffix in before if suffix]
        for suffix in logs:
            _copy_log(live.real.beside(suffix), family.beside(suffix), before[suffix])
    if live.user() is not None or live.identities() != before:
        raise NotNowError
    if logs:
        _recover(live, family)
    return "copied at rest" + "".join(f", with its {suffix}" for suffix in logs)


def no_space(path: Path) -> SourceError:
    hint = "A capture needs room for a whole copy: free some, or set FLYBACKUP_SCRATCH_DIR."
    return SourceError(f"no space left in the scratch directory for a copy of {path}", hint=hint)


@contextmanager
def _copying(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space(path) from exc
        raise SourceError(f"cannot copy {exc.filename or path}: {exc.strerror}", hint="Check its rights.") from exc


def _settled(live: LiveFile, clock: Clock) -> dict[str, Identity]:
    """Return the files' state, which the next write is bound to change. Raise `NotNowError` when it is too fresh."""
    if live.user() is not None:
        raise NotNowError
    found = live.identities()
    newest = max(max(each.mtime_ns, each.ctime_ns) for each in found.values())
    now = round(clock.now().timestamp() * 1e9)
    if newest <= now < newest + _SETTLED_NS:
        raise NotNowError
    return found


def _copy_log(path: Path, to: Path, seen: Identity) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError as exc:
        raise NotNowError from exc
    try:
        _copy(fd, to, seen.size)
    finally:
        os.close(fd)


def _copy(fd: int, to: Path, size: int) -> None:
    out = os.open(to, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        offset = 0
        while offset < size:
            count = os.sendfile(out, fd, offset, min(_PIECE_BYTES, size - offset))
            if not count:
                raise NotNowError
            offset += count
    finally:
        os.close(out)


def _recover(live: LiveFile, copy: Family) -> None:
    """Let SQLite replay the log or roll back the journal of the copy, which removes it."""
    with source_errors(f"cannot prepare the copy of {live.path}"):
        _settle_super_journal(copy.beside("-journal"))
    hint = "Let the application open it, which recovers it or says what is wrong."
    with (
        sqlite_errors(f"SQLite cannot recover a copy of {live.path}", hint=hint),
        scratch_connection(copy.path) as con,
    ):
        con.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with source_errors(f"cannot prepare the copy of {live.path}"):
        for path in copy.companions():  # what was not valid, and so no log of this database
            path.unlink()


def _settle_super_journal(journal: Path) -> None:
    """Do what SQLite does with the journal of a transaction over several databases, but leave their files alone.

    Such a journal names a file, and counts for nothing when that is gone: the transaction was committed. After a
    rollback SQLite removes the named file, whatever it is; the copy's journal must therefore name none.
    """
    if not journal.exists():
        return
    name_bytes = _super_journal_name(journal)
    if name_bytes is None:
        return
    if Path(os.fsdecode(name_bytes)).exists():
        os.truncate(journal, journal.stat().st_size - _TRAILER.size - len(name_bytes))
    else:
        journal.unlink()


def _super_journal_name(journal: Path) -> bytes | None:
    """Return the name at the journal's end: name, length, sum of its bytes, magic."""
    with journal.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < _TRAILER.size:
            return None
        file.seek(size - _TRAILER.size)
        length, checksum, magic = _TRAILER.unpack(file.read())
        if magic != _JOURNAL_MAGIC or not 0 < length <= size - _TRAILER.size:
            return None
        file.seek(size - _TRAILER.size - length)
        name = file.read(length)
    return name if sum(name) & 0xFFFFFFFF == checksum and b"\0" not in name else None
