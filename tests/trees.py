"""Trees of files for tests: everything that can be said of one, as a value that can be compared."""

import os
import stat
from pathlib import Path
from typing import Any

Picture = dict[bytes, tuple[Any, ...]]


def pictured(root: Path) -> Picture:
    """Return what is at and below *root*: kind, permissions, owner, times, attributes, content; who is a hard link."""
    found: Picture = {}
    first_names: dict[tuple[int, int], bytes] = {}
    for path in sorted([os.fsencode(root), *_below(os.fsencode(root))]):
        status = os.lstat(path)
        at = os.path.relpath(path, os.fsencode(root))
        first = first_names.setdefault((status.st_dev, status.st_ino), at) if stat.S_ISREG(status.st_mode) else at
        found[at] = (
            stat.filemode(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_rdev if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode) else None,
            {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
            },
            first,
            _content(path, status),
        )
    return found


def _attributes(path: bytes) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)


def _below(directory: bytes) -> list[bytes]:
    found = []
    for path, directories, files in os.walk(directory):
        found += [path + b"/" + name for name in directories + files]
    return found


def _content(path: bytes, status: os.stat_result) -> bytes | None:
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path)  # noqa: PTH115  # as it is, not tidied up
    if stat.S_ISREG(status.st_mode):
        return Path(os.fsdecode(path)).read_bytes()
    return None
