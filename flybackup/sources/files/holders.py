"""Who holds a file: by its POSIX locks and by the open files of every process that /proc shows. Linux.

DuckDB locks its whole file with `fcntl` (exclusive for writing, shared for READ_ONLY), SQLite some bytes far behind its
data. Asking with F_GETLK takes no lock and disturbs none.
"""

import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_FLOCK = struct.Struct("hhqqi4x")
_PROC = Path("/proc")
_NETWORK_FILESYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "fuse.sshfs", "glusterfs"}


class Holder(NamedTuple):
    """A process that has a file open or locked. `pid` 0 is one of another PID namespace: it cannot be named."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command})" if self.pid else "a process of another container"


def writer_of(fd: int) -> Holder | None:
    """Return the process that holds a write lock on the open file: a database engine that may write."""
    return _lock_holder(fd, fcntl.F_RDLCK)


def user_of(fd: int) -> Holder | None:
    """Return a process that holds any lock on the open file: a database engine that reads or writes."""
    return _lock_holder(fd, fcntl.F_WRLCK)


def _lock_holder(fd: int, want: int) -> Holder | None:
    answer = fcntl.fcntl(fd, fcntl.F_GETLK, _FLOCK.pack(want, os.SEEK_SET, 0, 0, 0))
    kind, _, _, _, pid = _FLOCK.unpack(answer)
    return None if kind == fcntl.F_UNLCK else Holder(max(pid, 0), _command(pid))


def openers(paths: Iterable[Path]) -> Iterator[Holder]:
    """Yield every other process that has one of the existing *paths* open and that this user may look into."""
    wanted = {(found.st_dev, found.st_ino) for path in paths if (found := _stat(path)) is not None}
    for process in _PROC.glob("[0-9]*"):
        if int(process.name) != os.getpid() and not wanted.isdisjoint(_open_files(process)):
            yield Holder(int(process.name), _command(int(process.name)))


def locked_by_this_process(path: Path) -> bool:
    """Tell whether this very process holds a lock on *path*, which closing any descriptor of it would drop (POSIX)."""
    wanted = _stat(path)
    for link in _list(_PROC / "self" / "fd"):
        found = _stat(link)
        same = wanted and found and (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)
        if same and "\nlock:" in _read(_PROC / "self" / "fdinfo" / link.name):
            return True
    return False


def network_filesystem_of(path: Path) -> str | None:
    """Return the type of the network file system that *path* lies on; None on a local one, or where it is not known."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in _read(_PROC / "self" / "mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == wanted and rest.split()[0] in _NETWORK_FILESYSTEMS:
            return rest.split()[0]
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _open_files(process: Path) -> Iterator[tuple[int, int]]:
    for link in _list(process / "fd"):
        if (found := _stat(link)) is not None:
            yield found.st_dev, found.st_ino


def _list(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:  # it ended, or belongs to somebody else
        return []


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _command(pid: int) -> str:
    return _read(_PROC / str(pid) / "comm").strip() or "unknown"
