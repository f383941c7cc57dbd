"""Private directories for what a command needs on disk: removed at its end, and after a kill by the next command.

    <scratch>/flybackup-scratch-<pid>-<random>/     0700, locked (flock) by the process as long as it lives

The lock, not the process id, says whether the owner lives: containers that share a disk do not see each other's
processes, and ids are used again. The kernel lets go of the lock however the process ends.
"""

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from flybackup.errors import ConfigError

_PREFIX = "flybackup-scratch-"
_NAME = re.compile(rf"{_PREFIX}\d+-[a-z0-9_]{{8}}")
_PRIVATE = 0o700
VARIABLE = "FLYBACKUP_SCRATCH_DIR"


def scratch_root(env: Mapping[str, str]) -> Path:
    """Return where scratch directories are made. Raise `ConfigError` when that is no directory."""
    root = Path(env.get(VARIABLE) or tempfile.gettempdir())
    if not root.is_dir():
        raise ConfigError(f"the scratch directory {root} does not exist", hint=f"Make it, or set {VARIABLE}.")
    return root


@contextmanager
def scratch_directory(env: Mapping[str, str]) -> Iterator[Path]:
    """Make an empty private directory and remove it with all its content when the block ends, however it ends."""
    root = scratch_root(env)
    remove_abandoned(root)
    path, lock = _make(root)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def remove_abandoned(root: Path) -> None:
    """Remove scratch directories of this user whose process is gone. What cannot be removed stays."""
    for path in root.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if _NAME.fullmatch(path.name):  # and nothing else: somebody may keep a database in a name that begins so
                _remove_if_abandoned(path)


def _make(root: Path) -> tuple[Path, int]:
    """Make and lock a directory; again when another process's clean-up was quicker than the lock."""
    while True:
        try:
            path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=root))
        except OSError as exc:
            raise ConfigError(f"cannot write to {root}: {exc.strerror}", hint=f"Set {VARIABLE}.") from exc
        with suppress(FileNotFoundError):
            lock = _open(path)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return path, lock
            os.close(lock)


def _remove_if_abandoned(path: Path) -> None:
    lock = _open(path)
    try:
        status = os.fstat(lock)
        if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == _PRIVATE:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
    finally:
        os.close(lock)


def _open(path: Path) -> int:
    # No link: in a directory that everybody writes to, somebody may have laid one to a directory of ours.
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
