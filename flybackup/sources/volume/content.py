"""Reading a file that may change meanwhile: read again, and after a few tries taken as it was read."""

import errno
import os
import stat
from collections.abc import Generator, Iterator
from typing import Self

from flybackup.chunking import Extent
from flybackup.crypto import Digest, digest, new_digest

SMALL_BYTES = 512 * 1024
"""A file up to this size is read before anything of it is given out."""
TRIES = 3
PIECE_BYTES = 1024 * 1024
_ZEROS = bytes(PIECE_BYTES)
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Content:
    """One open file. Use as a context manager."""

    def __init__(self, name: str, parent: int) -> None:
        self.fd = os.open(name, _FLAGS, dir_fd=parent)
        self.status = os.fstat(self.fd)
        """As it was when what was read last was read."""
        self.digest: bytes | None = None
        self.torn = False
        self.error: OSError | None = None

    def __enter__(self) -> Self:
        if not stat.S_ISREG(self.status.st_mode):
            os.close(self.fd)
            raise OSError(errno.ESTALE, "it became something else meanwhile")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def head(self, size: int) -> bytes:
        return os.pread(self.fd, size, 0)

    def whole(self) -> bytes | None:
        """Return all of a small file; None when it is, or has become, larger than `SMALL_BYTES`."""
        if self.status.st_size > SMALL_BYTES:
            return None
        data = self._read_small()
        tries = 1
        while self._changed(len(data)) and tries < TRIES:
            data = self._read_small()
            tries += 1
        if len(data) > SMALL_BYTES:
            return None
        self.digest = digest(data)
        return data

    def _read_small(self) -> bytes:
        # One byte more than there should be, to see that there is none.
        return os.pread(self.fd, min(self.status.st_size, SMALL_BYTES) + 1, 0)

    def extents(self) -> Iterator[Extent]:
        """Yield the file's data without its holes, from the beginning again when it changed, and its end.

        Holds `PIECE_BYTES`.
        """
        for number in range(TRIES):
            if number:
                yield Extent(0, b"")
            size = yield from self._pass()
            if not self._changed(size) or self.error is not None:
                return

    def _pass(self) -> Generator[Extent, None, int]:
        """Yield the data once and return where it ended. Zeros of holes are in the digest, because readers see them."""
        running = new_digest()
        buffer = bytearray(PIECE_BYTES)
        at = 0
        for start, end in _data_ranges(self.fd, self.status):
            _add_zeros(running, start - at)
            at = start
            while at < end and (count := self._read(memoryview(buffer)[: end - at], at)):
                running.update(memoryview(buffer)[:count])
                yield Extent(at, memoryview(buffer)[:count])
                at += count
        if self.error is None and at < self.status.st_size and _is_sparse(self.status):
            _add_zeros(running, self.status.st_size - at)
            at = self.status.st_size
        yield Extent(at, b"")
        self.digest = running.digest()
        return at

    def _read(self, into: memoryview, at: int) -> int:
        """Return how many bytes were read, 0 at the end and where the disk gives no more."""
        try:
            return os.preadv(self.fd, [into], at)
        except OSError as exc:
            self.error = exc
            return 0

    def _changed(self, size: int) -> bool:
        """Tell, and note, whether the file is another than before the *size* bytes of it were read."""
        before, self.status = self.status, os.fstat(self.fd)
        self.torn = _identity(before) != _identity(self.status) or size != self.status.st_size
        return self.torn


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_sparse(status: os.stat_result) -> bool:
    return status.st_blocks * 512 < status.st_size


def _data_ranges(fd: int, status: os.stat_result) -> Iterator[tuple[int, int]]:
    """Yield where data begins and ends; one range for a file without holes, or where nobody knows."""
    if not _is_sparse(status):
        yield 0, status.st_size
        return
    end = 0
    while end < status.st_size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # only a hole is left
                return
            start = end
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, min(end, status.st_size)


def _add_zeros(running: Digest, count: int) -> None:
    while count > 0:
        running.update(_ZEROS[:count])
        count -= PIECE_BYTES
