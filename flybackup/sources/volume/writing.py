"""Making a tree of entries below an open directory. No name and no link of a snapshot leads out of it:

- a path is taken apart into names, none of them `..`, and each directory on the way is opened by its name in the one
  above, never through a link (`O_NOFOLLOW`);
- everything is made new (`O_EXCL`): nothing that is there, however it came there, is written to.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from types import TracebackType
from typing import Self

from flybackup.errors import RefusedError, SourceError
from flybackup.model import Entry
from flybackup.sources import Stream
from flybackup.sources.volume.attributes import Shortfalls, apply_named, apply_open
from flybackup.sources.volume.paths import ROOT, checked, components

_PRIVATE_FILE = 0o600
_PRIVATE_DIRECTORY = 0o700
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MISLEADING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EEXIST)


@dataclass(slots=True)
class _Open:
    """A directory on the way to what is being written; `entry` is applied when everything in it has been."""

    name: bytes
    fd: int
    entry: Entry | None


class TreeWriter:
    """Writes entries in the order of a manifest. Use as a context manager; leaving it well finishes the directories."""

    def __init__(self, root: int) -> None:
        self._way = [_Open(ROOT, root, None)]
        self.shortfalls = Shortfalls()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        while len(self._way) > 1:
            self._leave(finished=kind is None)
        root = self._way[0]
        if kind is None and root.entry is not None:
            apply_open(root.entry, root.fd, self.shortfalls)

    def write(self, stream: Stream) -> None:
        """Make one entry. Raise `SourceError` for what the system refuses, `RefusedError` for what leads astray."""
        entry = stream.entry
        names = components(entry)
        with _translated(entry):
            if not names:
                self._way[0].entry = entry
                return
            parent = self._enter(names[:-1])
            self._make(stream, names[-1], parent)

    def _enter(self, names: list[bytes]) -> int:
        """Go to the directory of these names and return its descriptor."""
        there = [each.name for each in self._way[1:]]
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(there, names, strict=False)))
        while len(self._way) - 1 > common:
            self._leave(finished=True)
        for name in names[common:]:
            self._way.append(_Open(name, os.open(name, _DIRECTORY, dir_fd=self._way[-1].fd), None))
        return self._way[-1].fd

    def _leave(self, *, finished: bool) -> None:
        directory = self._way.pop()
        try:
            if finished and directory.entry is not None:
                apply_open(directory.entry, directory.fd, self.shortfalls)
        finally:
            os.close(directory.fd)

    def _make(self, stream: Stream, name: bytes, parent: int) -> None:
        entry = stream.entry
        match entry.kind:
            case "file" | "dump":
                self._file(stream, name, parent)
            case "directory":
                os.mkdir(name, _PRIVATE_DIRECTORY, dir_fd=parent)
                self._way.append(_Open(name, os.open(name, _DIRECTORY, dir_fd=parent), entry))
            case "hardlink":
                self._link(entry, name, parent)
            case "symlink":
                os.symlink(entry.target or b"", name, dir_fd=parent)
                apply_named(entry, name, parent, self.shortfalls)
            case "fifo":
                os.mkfifo(name, _PRIVATE_FILE, dir_fd=parent)
                apply_named(entry, name, parent, self.shortfalls)
            case "character-device" | "block-device":
                self._device(entry, name, parent)
            case "socket":
                self.shortfalls.note("socket")

    def _file(self, stream: Stream, name: bytes, parent: int) -> None:
        fd = os.open(name, _NEW_FILE, _PRIVATE_FILE, dir_fd=parent)
        try:
            end = 0
            for offset, data in stream.extents:
                _write_at(fd, memoryview(data), offset)
                end = max(end, offset + len(data))
            if end != stream.entry.size:
                os.ftruncate(fd, stream.entry.size)
            apply_open(stream.entry, fd, self.shortfalls)
        finally:
            os.close(fd)

    def _link(self, entry: Entry, name: bytes, parent: int) -> None:
        *way, source = checked(entry.target or b"")
        with self._walked(way) as directory:
            os.link(source, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)

    @contextmanager
    def _walked(self, names: list[bytes]) -> Iterator[int]:
        """Open the directory of these names, from the root, for as long as the block lasts."""
        fd = os.dup(self._way[0].fd)
        try:
            for name in names:
                inner = os.open(name, _DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = inner
            yield fd
        finally:
            os.close(fd)

    def _device(self, entry: Entry, name: bytes, parent: int) -> None:
        kind = stat.S_IFCHR if entry.kind == "character-device" else stat.S_IFBLK
        try:
            os.mknod(name, kind | _PRIVATE_FILE, os.makedev(*(entry.device or (0, 0))), dir_fd=parent)
        except PermissionError:
            self.shortfalls.note("device")
            return
        apply_named(entry, name, parent, self.shortfalls)


@contextmanager
def _translated(entry: Entry) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in _MISLEADING:
            raise RefusedError(
                f"the snapshot names {entry.path!r}, where nothing new can be made below the target: {exc.strerror}",
                hint="It was not written by flybackup. Restore another snapshot, and ask who has the write key.",
            ) from exc
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "Free some space or restore elsewhere; what was written of it has been removed again."
            raise SourceError(f"no space left for {entry.path}", hint=hint) from exc
        raise SourceError(f"cannot write {entry.path}: {exc.strerror}", hint="Check the target's file system.") from exc


def _write_at(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count
