"""A store in a directory: a disk, a mounted share.

    <root>/<key>        one file an object, 0600; directories are 0700
    <root>/.tmp/        objects being written; a name that no key can have, on the same file system

An object is written beside, flushed to the disk, and only then given its name, so whatever is interrupted leaves either
the whole object or a file under `.tmp` that nobody reads. Measured on ext4 with two writers of 16 MiB packs: 1 GB/s,
of which flushing the file costs about 10 ms a pack and flushing its directory 2 ms; `fdatasync` is no quicker.
"""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from flybackup.errors import ObjectExistsError, ObjectNotFoundError, StoreError
from flybackup.stores import Buffer, ObjectInfo, check_key, check_prefix, check_range, is_key, range_end

_SCRATCH = ".tmp"
_LARGE_BYTES = 1 << 20
_SECTOR_BYTES = 4096

_ABANDONED_SECONDS = 3600
"""No write of one object lasts that long. Should one, because its process was stopped, it fails and may be repeated."""

_HINTS = {
    errno.ENOSPC: "The disk is full; free space on it.",
    errno.EDQUOT: "The disk quota is used up; free space or raise it.",
    errno.EFBIG: "The file size limit (ulimit -f) or the file system does not allow a file this large.",
    errno.EROFS: "The file system is mounted read-only.",
    errno.EACCES: "Give this user the right to read and write there.",
    errno.EPERM: "Give this user the right to read and write there.",
    errno.ENOTDIR: "Something on that path is a file, not a directory.",
    errno.EIO: "The disk or the network share has a fault; see the kernel's log.",
    errno.EXDEV: "The store's directories must lie on one file system.",
    errno.ENOTSUP: "Atomic creation needs a file system with hard links (ext4, XFS, ZFS, APFS, NTFS, NFS; not FAT).",
    errno.EMLINK: "Atomic creation needs a file system with hard links (ext4, XFS, ZFS, APFS, NTFS, NFS; not FAT).",
}

_NO_ROOT = "The directory does not exist: correct the path, or mount its disk."

_PASSING = {errno.ENOENT, errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE}


class LocalStore:
    """Objects as files under *root*, which `create` makes when it is not there.

    Nothing else makes it: a root that has vanished is a disk that is not mounted, and filling the mount point instead
    would look like a backup.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._durable: set[Path] = set()
        self._swept = False

    @property
    def url(self) -> str:
        return self._root.as_uri()

    def put(self, key: str, data: Buffer) -> datetime:
        with _translated(check_key(key), self.url), self._written(data) as new:
            target = self._place(key)
            new.path.replace(target)
            _flush_directory(target.parent)
        return new.time

    def create(self, key: str, data: Buffer) -> datetime:
        with _translated(check_key(key), self.url):
            _make_directories(self._root)
            with self._written(data) as new:
                target = self._place(key)
                self._link(new.path, target, key)
                _flush_directory(target.parent)
        return new.time

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        check_range(offset, length)
        with _translated(check_key(key), self.url):
            try:
                with _opened(self._root / key) as file:
                    end = range_end(key, os.fstat(file).st_size, offset, length)
                    return _read(file, key, offset, end - offset)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as exc:
                hint = "" if self._root.is_dir() else _NO_ROOT
                raise ObjectNotFoundError(f"no object {key} in {self.url}", hint=hint) from exc

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        directory = check_prefix(prefix).rpartition("/")[0]
        with _translated(prefix, self.url):
            if not self._root.is_dir():
                raise StoreError(f"the directory {self._root} does not exist", hint=_NO_ROOT)
            yield from _walk(self._root, directory, prefix)

    def delete(self, key: str) -> None:
        with _translated(check_key(key), self.url), suppress(FileNotFoundError, NotADirectoryError):
            (self._root / key).unlink()

    @contextmanager
    def _written(self, data: Buffer) -> "Iterator[_NewFile]":
        """Yield a complete, flushed file under a temporary name, which is gone afterwards."""
        path = self._scratch() / secrets.token_hex(16)
        try:
            new = _NewFile(path, _write(path, data))
            self._sweep_once(new.time)
            yield new
        finally:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _scratch(self) -> Path:
        scratch = self._root / _SCRATCH
        try:
            scratch.mkdir(mode=0o700, exist_ok=True)
        except FileNotFoundError as exc:
            raise StoreError(f"nothing can be written to {self.url}", hint=_NO_ROOT) from exc
        return scratch

    def _place(self, key: str) -> Path:
        """Return the path of *key*, in a directory whose name is on the disk."""
        target = self._root / key
        self._make_durable(target.parent)
        return target

    def _make_durable(self, directory: Path) -> None:
        # Once for each directory, even when it exists: who made it may not have flushed its name yet.
        if directory == self._root or (directory in self._durable and directory.is_dir()):
            return
        self._make_durable(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)
        _flush_directory(directory.parent)
        self._durable.add(directory)

    def _link(self, new: Path, target: Path, key: str) -> None:
        # A rename would replace; only a link tests and makes in one step, and the file it names is already complete.
        try:
            target.hardlink_to(new)
        except FileExistsError as exc:
            raise ObjectExistsError(f"{key} exists already in {self.url}") from exc
        except OSError as exc:
            if exc.errno == errno.EPERM:  # Linux's answer where the file system has no hard links
                raise OSError(errno.ENOTSUP, "no hard links here", str(target)) from exc
            raise

    def _sweep_once(self, now: datetime) -> None:
        """Remove what killed processes left behind. Only when writing: who reads may not be allowed to remove."""
        if self._swept:
            return
        self._swept = True
        oldest = now.timestamp() - _ABANDONED_SECONDS
        with suppress(OSError), os.scandir(self._root / _SCRATCH) as entries:
            for entry in entries:
                if entry.stat(follow_symlinks=False).st_mtime < oldest:
                    Path(entry.path).unlink(missing_ok=True)


class _NewFile(NamedTuple):
    path: Path
    time: datetime


def _write(path: Path, data: Buffer) -> datetime:
    """Write *data* to a new file, flush it to the disk, and return the file system's clock reading."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with memoryview(data) as view, view.cast("B") as rest:
            written = _write_past_cache(file, rest[: len(rest) // _SECTOR_BYTES * _SECTOR_BYTES])
            while written < len(rest):
                written += os.write(file, rest[written:])
        os.fsync(file)
        return datetime.fromtimestamp(os.fstat(file).st_mtime, UTC)
    finally:
        os.close(file)


def _write_past_cache(file: int, data: memoryview) -> int:
    """Write large *data* straight to the disk, as far as the system allows that, and return how much was written.

    A backup is not read again soon: kept in the page cache it would only drive out what the application needs. It also
    saves the copy (measured: 576 MiB in 0.31 s and 0.02 s of CPU time, through the cache 0.4 to 0.6 s and as much CPU).
    """
    written = 0
    if len(data) < _LARGE_BYTES or not hasattr(os, "O_DIRECT"):
        return written
    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    try:
        fcntl.fcntl(file, fcntl.F_SETFL, flags | os.O_DIRECT)
        while written < len(data):
            written += os.write(file, data[written:])
    except OSError as exc:
        if exc.errno != errno.EINVAL:  # not on this file system, or not from this address in memory
            raise
    finally:
        fcntl.fcntl(file, fcntl.F_SETFL, flags)
    return written


def _make_directories(path: Path) -> None:
    """Make *path* and what is missing above it, so that a power cut does not take it away."""
    if path.is_dir():
        return
    _make_directories(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    _flush_directory(path.parent)


def _flush_directory(directory: Path) -> None:
    """Make the names in *directory* survive a power cut."""
    with _opened(directory) as file:
        try:
            os.fsync(file)
        except OSError as exc:
            # Some network file systems cannot: there the server answers for its names.
            if exc.errno not in {errno.EINVAL, errno.ENOTSUP}:
                raise


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)


def _read(file: int, key: str, offset: int, length: int) -> bytes:
    parts: list[bytes] = []
    missing = length
    while missing:
        part = os.pread(file, missing, offset + length - missing)
        if not part:
            raise StoreError(f"{key} became shorter while it was read: {missing} of {length} bytes are missing")
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _walk(root: Path, directory: str, prefix: str) -> Iterator[ObjectInfo]:
    """Yield the objects under *directory* that start with *prefix*, holding the names of one directory a level."""
    for key in _names(root / directory, f"{directory}/" if directory else ""):
        if not key.startswith(prefix) and not (key.endswith("/") and prefix.startswith(key)):
            continue
        if key.endswith("/"):
            yield from _walk(root, key.rstrip("/"), prefix)
        else:
            with suppress(FileNotFoundError):  # deleted since
                yield ObjectInfo(key, (root / key).stat().st_size)


def _names(path: Path, base: str) -> list[str]:
    """Return the keys in one directory, ascending; those of directories end with a slash.

    With its slash a directory sorts where its objects belong: `a-b`, `a/c`, `a0`.
    """
    try:
        with os.scandir(path) as entries:
            return sorted(f"{base}{e.name}{'/' * e.is_dir()}" for e in entries if is_key(e.name) and _is_ours(e))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_ours(entry: os.DirEntry[str]) -> bool:
    return entry.is_file() or entry.is_dir()


@contextmanager
def _translated(key: str, url: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        number = exc.errno or 0
        message = f"{url}: {key}: {exc.strerror or exc}".replace(": : ", ": ")
        raise StoreError(message, hint=_HINTS.get(number, ""), retryable=number in _PASSING) from exc
