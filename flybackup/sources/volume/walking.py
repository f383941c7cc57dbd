"""Walking a tree in the order of manifests, by directory descriptors: whatever is renamed or replaced by a link
meanwhile, nothing outside the tree is reached. Nothing here follows a symbolic link."""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from flybackup.errors import ConfigError
from flybackup.patterns import Patterns, Rules
from flybackup.sources.volume.paths import OWN_PREFIX, ROOT

IGNORE_FILE = ".flybackupignore"
_CACHE_TAG = "CACHEDIR.TAG"
_CACHE_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
"""https://bford.info/cachedir/"""
_LOST_AND_FOUND = "lost+found"
_LARGEST_IGNORE_BYTES = 1024 * 1024
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

OnProblem = Callable[[bytes, str], None]
"""Takes a path and what is wrong with it."""


class Found(NamedTuple):
    """Something in the tree: `name` in the open directory `parent`; `path` as in `paths`."""

    path: bytes
    name: str
    parent: int
    status: os.stat_result


@dataclass(frozen=True, slots=True)
class Walk:
    """What is walked and what is left out. `exclude` are patterns of the user's for the whole tree."""

    exclude: tuple[str, ...] = ()
    one_file_system: bool = True
    everything: bool = False
    """As it is when a target is measured: no `.flybackupignore`, no cache directory is respected."""

    def tree(self, root: int, on_problem: OnProblem) -> Iterator[Found]:
        """Yield everything below the open directory *root*, and it. Holds the names of the directories on the way.

        Descriptors are valid until the next is asked for. What vanishes meanwhile was not there.
        """
        status = os.fstat(root)
        yield Found(ROOT, ".", root, status)
        rules = Rules("", Patterns(self.exclude)) if self.exclude else None
        yield from _Directory(self, root, b"", rules, status.st_dev, on_problem).below()


@dataclass(slots=True)
class _Directory:
    walk: Walk
    fd: int
    path: bytes
    """With its slash; empty for the root."""
    rules: Rules | None
    device: int
    on_problem: OnProblem

    def below(self) -> Iterator[Found]:
        try:
            listed = self._listed()
        except OSError as exc:
            self.on_problem(self.path[:-1] or ROOT, f"cannot be listed: {exc.strerror}")
            return
        for name, raw_name, entry in listed:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as exc:
                self.on_problem(self.path + raw_name, f"cannot be looked at: {exc.strerror}")
                continue
            yield Found(self.path + raw_name, name, self.fd, status)
            # With one file system a mount point is a directory that is empty here.
            if stat.S_ISDIR(status.st_mode) and (not self.walk.one_file_system or status.st_dev == self.device):
                yield from self._inside(name, self.path + raw_name)

    def _listed(self) -> Iterable[tuple[str, bytes, os.DirEntry[str]]]:
        with os.scandir(self.fd) as entries:
            found = {entry.name: entry for entry in entries}
        if not self.walk.everything:
            if _CACHE_TAG in found and self._is_cache():
                found = {_CACHE_TAG: found[_CACHE_TAG]}
            if IGNORE_FILE in found:
                self._ignore()
        names = ((name, os.fsencode(name), entry) for name, entry in found.items() if not self._excluded(name, entry))
        return sorted(names, key=lambda each: each[1])

    def _excluded(self, name: str, entry: os.DirEntry[str]) -> bool:
        if not self.path and name.startswith(OWN_PREFIX):
            return True
        if self.walk.everything or self.rules is None:
            return False
        slash = "/" if entry.is_dir(follow_symlinks=False) else ""
        return self.rules.exclude(f"{os.fsdecode(self.path)}{name}{slash}")

    def _is_cache(self) -> bool:
        return self._read(_CACHE_TAG, len(_CACHE_SIGNATURE)) == _CACHE_SIGNATURE

    def _ignore(self) -> None:
        """Add the rules of this directory's ignore file. Patterns that are none are a problem, and none apply."""
        try:
            lines = self._read(IGNORE_FILE, _LARGEST_IGNORE_BYTES).decode(errors="surrogateescape").splitlines()
            self.rules = Rules(os.fsdecode(self.path), Patterns(lines), self.rules)
        except ConfigError as exc:
            self.on_problem(self.path + IGNORE_FILE.encode(), str(exc))

    def _read(self, name: str, limit: int) -> bytes:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError:
            return b""
        try:
            return os.read(fd, limit) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        finally:
            os.close(fd)

    def _inside(self, name: str, path: bytes) -> Iterator[Found]:
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=self.fd)
        except FileNotFoundError:
            return
        except OSError as exc:
            if exc.errno != errno.EACCES or name != _LOST_AND_FOUND:  # of which every file system has one, for root
                self.on_problem(path, f"cannot be opened: {exc.strerror}")
            return
        try:
            yield from _Directory(self.walk, fd, path + b"/", self.rules, self.device, self.on_problem).below()
        finally:
            os.close(fd)
