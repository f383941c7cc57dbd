"""Owners, permissions, times and extended attributes of what was restored, as far as this user may set them."""

import os
from collections import Counter
from contextlib import suppress

from flybackup.model import Entry

_SENTENCES = {
    "owner": "{} could not be given to their owners: run the restore as root for that.",
    "attribute": "{} could not get all of their extended attributes: this user or file system does not allow it.",
    "device": "{} are devices, which this user may not make: they are missing.",
    "socket": "{} are sockets, which the application makes itself: they are missing.",
}


class Shortfalls:
    """How many entries lack what."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def note(self, what: str) -> None:
        self._counts[what] += 1

    def sentences(self) -> tuple[str, ...]:
        """One for each kind of shortfall, however many entries have it."""
        return tuple(
            text.format(f"{count:,} of the entries")
            for what, text in _SENTENCES.items()
            if (count := self._counts[what])
        )


def apply_open(entry: Entry, fd: int, shortfalls: Shortfalls) -> None:
    """Give the open file or directory its attributes. Raise `OSError` where even an owner cannot."""
    if not _own(entry):
        try:
            os.chown(fd, -1 if entry.uid is None else entry.uid, -1 if entry.gid is None else entry.gid)
        except OSError:
            shortfalls.note("owner")
    if entry.xattrs:
        _set_xattrs(entry, fd, shortfalls)
    if entry.mode is not None:
        os.chmod(fd, entry.mode)  # after the owner, whose change clears setuid
    if entry.mtime_ns is not None:
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))


def apply_named(entry: Entry, name: bytes, parent: int, shortfalls: Shortfalls) -> None:
    """The same for what is not opened: links, FIFOs, devices."""
    try:
        os.chown(name, entry.uid or 0, entry.gid or 0, dir_fd=parent, follow_symlinks=False)
    except OSError:
        if not _own(entry):
            shortfalls.note("owner")
    if entry.kind != "symlink" and entry.mode is not None:
        os.chmod(name, entry.mode, dir_fd=parent)
    if entry.xattrs:
        _set_xattrs(entry, os.fsdecode(b"/proc/self/fd/%d/%b" % (parent, name)), shortfalls)
    if entry.mtime_ns is not None:
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)


def _own(entry: Entry) -> bool:
    """Tell whether the entry's owner is who we are: a new file belongs to us already."""
    return entry.uid in (None, os.geteuid()) and entry.gid in (None, os.getegid())


def _set_xattrs(entry: Entry, place: int | str, shortfalls: Shortfalls) -> None:
    done = 0
    for name, value in entry.xattrs:
        with suppress(OSError):
            os.setxattr(place, name, value, follow_symlinks=isinstance(place, int))
            done += 1
    if done < len(entry.xattrs):
        shortfalls.note("attribute")
