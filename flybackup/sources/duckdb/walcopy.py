"""Copies of a live database's logs, taken before its blocks: what the log refers to is then on disk already."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flybackup.errors import SourceError
from flybackup.sources.duckdb.wal import WAL_SUFFIX, WAL_SUFFIXES, WalScan, WalVersionError, beside, scan

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class WalCopy:
    """The first `size` bytes of the log at `live`, copied to `copy`."""

    suffix: str
    live: Path
    copy: Path
    identity: tuple[int, int]
    mode: int
    mtime_ns: int
    size: int
    scan: WalScan


def copy_logs(database: Path, into: Path, *, whole: bool) -> tuple[WalCopy, ...]:
    """Copy every log of *database* beside the path *into*; up to the last commit, or *whole* when nobody writes.

    A static log is copied whole because what follows its last commit may say that the database has it already.
    """
    copies = (_copy_log(database, suffix, into, whole=whole) for suffix in WAL_SUFFIXES)
    return tuple(copy for copy in copies if copy is not None)


def _copy_log(database: Path, suffix: str, into: Path, *, whole: bool) -> WalCopy | None:
    live, copy = beside(database, suffix), beside(into, suffix)
    copy.unlink(missing_ok=True)
    try:
        fd = os.open(live, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(fd)
        scanned = _scan(live, fd, found.st_size, None)
        size = found.st_size if whole else scanned.committed_bytes
        _copy_bytes(fd, copy, size)
    finally:
        os.close(fd)
    return WalCopy(
        suffix, live, copy, (found.st_dev, found.st_ino), found.st_mode & 0o7777, found.st_mtime_ns, size, scanned
    )


def _scan(live: Path, fd: int, size: int, since: WalScan | None) -> WalScan:
    try:
        return scan(lambda offset, count: os.pread(fd, count, offset), size, since)
    except WalVersionError as exc:
        if exc.version == 1:
            hint = "Open it once with DuckDB 0.10 or newer, run CHECKPOINT, and back up again."
            raise SourceError(
                f"{live} was written by DuckDB 0.9 or older, whose log has no checksums", hint=hint
            ) from exc
        hint = "If it is DuckDB's, this flybackup is too old for the DuckDB that wrote it."
        raise SourceError(f"{live} is not a log that this flybackup can read", hint=hint) from exc


def _copy_bytes(fd: int, copy: Path, size: int) -> None:
    if not size:
        return  # DuckDB need not find an empty log beside a staged copy
    with copy.open("wb") as out:
        for offset in range(0, size, _PIECE_BYTES):
            out.write(os.pread(fd, min(_PIECE_BYTES, size - offset), offset))


def checkpoint_seen(copies: tuple[WalCopy, ...]) -> bool:
    """Tell whether the logs say that the database file is being rewritten (or was, when its writer died)."""
    return any(copy.scan.checkpoint_began or copy.suffix != WAL_SUFFIX for copy in copies)


def checkpoint_running(database: Path) -> bool:
    """Tell the same from the live logs as they are now."""
    if any(beside(database, suffix).exists() for suffix in WAL_SUFFIXES if suffix != WAL_SUFFIX):
        return True
    live = beside(database, WAL_SUFFIX)
    return _with_open(live, lambda fd: _scan(live, fd, os.fstat(fd).st_size, None).checkpoint_began)


def still_begins(copy: WalCopy, *, may_checkpoint: bool) -> bool:
    """Tell whether the live log still begins with the copied bytes and, unless it may, no checkpoint began since."""
    return _with_open(copy.live, lambda fd: _begins(copy, fd, may_checkpoint=may_checkpoint))


def _begins(copy: WalCopy, fd: int, *, may_checkpoint: bool) -> bool:
    found = os.fstat(fd)
    if (found.st_dev, found.st_ino) != copy.identity or found.st_size < copy.size or not _same_bytes(copy, fd):
        return False
    return may_checkpoint or not _scan(copy.live, fd, found.st_size, _before_copy_end(copy)).checkpoint_began


def _before_copy_end(copy: WalCopy) -> WalScan | None:
    """Only what lies before `size` was compared, so a scan may go on from there and no further."""
    at = copy.scan.committed_bytes
    return WalScan(at, at, copy.scan.checkpoint_began) if at else None


def _same_bytes(copy: WalCopy, fd: int) -> bool:
    if not copy.size:
        return True
    with copy.copy.open("rb") as kept:
        for offset in range(0, copy.size, _PIECE_BYTES):
            size = min(_PIECE_BYTES, copy.size - offset)
            if os.pread(fd, size, offset) != kept.read(size):
                return False
    return True


def _with_open(path: Path, ask: Callable[[int], bool]) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return ask(fd)
    finally:
        os.close(fd)
