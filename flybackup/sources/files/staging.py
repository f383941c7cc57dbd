"""Writing a restored database beside its target, under a name nobody can guess, synced before it is believed."""

import errno
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from flybackup.errors import SourceError
from flybackup.sources import Stream
from flybackup.sources.files.family import Family

PRIVATE_MODE = 0o600
_FLUSH_BYTES = 64 << 20


def staged_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.restoring-{secrets.token_hex(8)}")


def write_streams(streams: Iterator[Stream], database: Family) -> int:
    """Write the database and its companions to *database* and the names that follow from it. Return the bytes written.

    The first stream is the database, whatever it is called; the others are its companions. Raise `SourceError`.
    """
    written = 0
    name: str | None = None
    for stream in streams:
        name = name or stream.entry.path
        suffix = stream.entry.path.removeprefix(name)
        if not stream.entry.path.startswith(name) or suffix not in ("", *database.suffixes):
            raise SourceError(f"a snapshot of this kind holds no such entry: {stream.entry.path!r}")
        written += _write(stream, database.beside(suffix))
    if name is None:
        raise SourceError("the snapshot holds no database file", hint="Choose another snapshot.")
    return written


def _write(stream: Stream, path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_MODE)
    except OSError as exc:
        raise _write_error(path, exc) from exc
    try:
        return _write_extents(stream, fd, path)
    finally:
        os.close(fd)


def _write_extents(stream: Stream, fd: int, path: Path) -> int:
    """The extents' own errors are their source's and pass; those of writing become `SourceError`."""
    written, size = 0, stream.entry.size
    with _Flushing(fd) as flushing:
        for extent in stream.extents:
            if not len(extent.data):
                size = extent.offset
            try:
                _pwrite(fd, extent.data, extent.offset)
                flushing.wrote(len(extent.data))
            except OSError as exc:
                raise _write_error(path, exc) from exc
            written += len(extent.data)
    try:
        os.ftruncate(fd, size)
        os.fsync(fd)
    except OSError as exc:
        raise _write_error(path, exc) from exc
    return written


class _Flushing:
    """Flushes a file while it is being written, so that the disk does not wait for the end and memory does not fill."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="flush")
        self._under_way: Future[None] | None = None
        self._unflushed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._pool.shutdown(wait=True)

    def wrote(self, count: int) -> None:
        """Begin a flush every `_FLUSH_BYTES`. Raise `OSError` when the one before failed."""
        self._unflushed += count
        if self._unflushed >= _FLUSH_BYTES:
            if self._under_way is not None:
                self._under_way.result()
            self._under_way = self._pool.submit(os.fdatasync, self._fd)
            self._unflushed = 0


def _pwrite(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def _write_error(path: Path, exc: OSError) -> SourceError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "Free some space or restore to another volume; what was written of it has been removed again."
        return SourceError(f"no space left in {path.parent} for the restored database", hint=hint)
    return SourceError(f"cannot write beside {path.parent / path.name}: {exc.strerror}", hint="Check the directory.")


def sync(path: Path) -> None:
    """Make durable what a library wrote to *path*. Raise `SourceError`."""
    try:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    except OSError as exc:
        raise _write_error(path, exc) from exc


def sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
