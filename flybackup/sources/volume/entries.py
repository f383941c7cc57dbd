"""From what the file system says of a name to the entry of a snapshot, and whether the entry before still holds."""

import os
import stat
from collections.abc import Iterable
from typing import Any

from flybackup.manifest import Kept
from flybackup.model import Entry, EntryKind
from flybackup.sources.volume.paths import order, raw, shown
from flybackup.sources.volume.walking import Found

_KINDS: dict[int, EntryKind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character-device",
    stat.S_IFBLK: "block-device",
}
_DEVICES = ("character-device", "block-device")

YOUNG_NS = 2_000_000_000
"""A file that changed less than this before the capture may change again without a trace: file systems' clocks tick."""


def kind_of(status: os.stat_result) -> EntryKind:
    return _KINDS[stat.S_IFMT(status.st_mode)]


def is_unchanged(status: os.stat_result, entry: Entry) -> bool:
    """Tell whether *entry* describes what is there now: then its data is that as well, and its attributes."""
    return (
        entry.inode == status.st_ino
        and entry.ctime_ns == status.st_ctime_ns
        and entry.mtime_ns == status.st_mtime_ns
        and entry.kind == kind_of(status)
        and (entry.size == status.st_size or entry.kind != "file")
    )


def entry_of(found: Found, status: os.stat_result, *, old_ns: int, **more: Any) -> Entry:
    """Make the entry of what was *found* and has this *status*; *more* are fields of it.

    It can be recognised in the next capture when it was last changed before *old_ns*.
    """
    kind = kind_of(status)
    is_old = status.st_ctime_ns < old_ns and status.st_mtime_ns < old_ns
    return Entry(
        path=shown(found.path),
        raw_path=raw(found.path),
        kind=kind,
        size=status.st_size if kind == "file" else 0,
        mode=stat.S_IMODE(status.st_mode),
        mtime_ns=status.st_mtime_ns,
        uid=status.st_uid,
        gid=status.st_gid,
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in _DEVICES else None,
        inode=status.st_ino if is_old else None,
        ctime_ns=status.st_ctime_ns if is_old else None,
        **more,
    )


def xattrs_of(place: int | str) -> tuple[tuple[bytes, bytes], ...]:
    """Return the extended attributes of an open file, or of what a path names: of a link itself."""
    follow = isinstance(place, int)
    try:
        names = sorted(os.listxattr(place, follow_symlinks=follow))
        return tuple((os.fsencode(name), os.getxattr(place, name, follow_symlinks=follow)) for name in names)
    except OSError:  # a file system without them, or they vanished
        return ()


def place_of(found: Found) -> str:
    """Return a path for what cannot be opened, that no renaming above it can lead astray."""
    return f"/proc/self/fd/{found.parent}/{found.name}"


class Previous:
    """The entries of the snapshot before, met in the order of their paths. Databases are captured anew every time."""

    def __init__(self, kept: Iterable[Kept]) -> None:
        self._kept = (each for each in kept if each.entry.database is None and each.entry.part_of is None)
        self._at: bytes | None = b""
        self._next: Kept | None = None

    def find(self, path: bytes, status: os.stat_result) -> Kept | None:
        """Return the entry at *path* when it still describes what is there. Paths ascend from call to call."""
        wanted = order(path)
        while self._at is not None and (self._next is None or self._at < wanted):
            self._next = next(self._kept, None)
            self._at = None if self._next is None else order(self._next.entry.name)
        if self._at == wanted and self._next is not None and is_unchanged(status, self._next.entry):
            return self._next
        return None
