"""Where a tree is made, and how it comes to its target.

Beside the target, where that is possible: the tree is then renamed to it in one step.

A mount point (a Fly volume's `/data`) cannot be renamed, and what is beside it lies on another file system. There the
tree is made inside, under a name that no capture takes, and its entries are moved up:

    step                                                        a kill after it leaves
    1  staged tree renamed to `….clearing-S`                    the old entries, all or some of them
    2  old entries moved into `….old-S`                         in `….old-S`, others in place
    3  `….clearing-S` renamed to `….filling-S`                  all old ones in `….old-S`
    4  new entries moved up                                     some new ones in place
    5  `….filling-S` removed                                    the new tree

The next restore into this target finds such a name without its owner, puts everything back as it was, and begins.
"""

import fcntl
import os
import secrets
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from flybackup.errors import RefusedError, SourceError
from flybackup.sources import RestoreOptions
from flybackup.sources.files import holders
from flybackup.sources.files.staging import sync_directory
from flybackup.sources.volume.paths import OWN_PREFIX

_LEFT_ALONE = "lost+found"
_STAGED, _CLEARING, _FILLING, _OLD = (f"{OWN_PREFIX}-{state}-" for state in ("staged", "clearing", "filling", "old"))


@dataclass(frozen=True, slots=True)
class Target:
    """A directory to restore into. `inside`: the tree is made in it, not beside it."""

    path: Path
    inside: bool

    def entries(self) -> list[Path]:
        """Return what is in it and is somebody's: not ours, nor the file system's own."""
        if not os.path.lexists(self.path):
            return []
        names = (path for path in self.path.iterdir() if not path.name.startswith(OWN_PREFIX))
        return sorted(path for path in names if path.name != _LEFT_ALONE)

    def staging_place(self) -> tuple[Path, str]:
        """Return the directory in which trees are staged, and how their names begin."""
        return (self.path, _STAGED) if self.inside else (self.path.parent, f".{self.path.name}.restoring-")


def target_at(path: Path) -> Target:
    """Look at *path*. Raise `RefusedError` or `SourceError` when no tree can come there."""
    if path.is_symlink():
        raise RefusedError(f"{path} is a symbolic link", hint=f"Name the directory it leads to: {path.resolve()}")
    if path.exists() and not path.is_dir():
        raise RefusedError(f"{path} is no directory", hint="A volume is restored to a directory.")
    if not path.exists() and not path.parent.is_dir():
        raise SourceError(f"{path.parent} is not a directory", hint="Make it first; is the volume mounted?")
    return Target(path, inside=path.is_dir() and (path.is_mount() or not os.access(path.parent, os.W_OK)))


def refuse_taken(target: Target, options: RestoreOptions) -> None:
    """Raise `RefusedError` when there is something at *target* that may not be replaced."""
    entries = target.entries()
    if entries and not options.replace:
        hint = "Name a new or empty directory, or say --replace: what is there is then kept aside."
        raise RefusedError(f"{target.path} is not empty", hint=hint)
    if entries and (options.only or options.tables):
        hint = "Name a new directory: it will hold that part only. Move what you need from there."
        raise RefusedError(f"this would replace all of {target.path} by a part of it", hint=hint)
    refuse_in_use(target)


def refuse_in_use(target: Target) -> None:
    """Raise `RefusedError` when a process that this user may look into has a file of the tree open."""
    holder = next(holders.openers(_files(target)), None)
    if holder is not None:
        hint = "Stop the application, then restore again."
        raise RefusedError(f"{target.path} is in use by {holder}", hint=hint)


def _files(target: Target) -> Iterator[Path]:
    for entry in target.entries():
        if entry.is_symlink() or not entry.is_dir():
            yield entry
            continue
        for directory, _, names in os.walk(entry):
            yield Path(directory)
            yield from (Path(directory, name) for name in names if not Path(directory, name).is_symlink())


@contextmanager
def staged(target: Target) -> Iterator[tuple[Path, int]]:
    """Make an empty directory for a tree, locked as long as this process lives; yield its path and a descriptor.

    Whatever is still there when the block ends is removed. What a killed restore left is cleared away first.
    """
    place, prefix = target.staging_place()
    with _source_errors(f"cannot make a directory in {place}"):
        recover(target)
        path = place / f"{prefix}{secrets.token_hex(8)}"
        path.mkdir(mode=0o700)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield path, fd
    finally:
        remove_tree(path)
        os.close(fd)


def recover(target: Target) -> None:
    """Undo what restores into this target left that were killed. Those that still run hold a lock."""
    place, prefix = target.staging_place()
    if not place.is_dir():
        return
    for path in _abandoned(place, prefix):
        remove_tree(path)
    if target.inside:
        for path in _abandoned(place, _FILLING):
            _move_all(target.entries(), path)
            _put_back(target, path, _FILLING)
        for path in _abandoned(place, _CLEARING):
            _put_back(target, path, _CLEARING)


def _put_back(target: Target, tree: Path, state: str) -> None:
    old = target.path / f"{_OLD}{tree.name.removeprefix(state)}"
    if old.is_dir():
        _move_all(sorted(old.iterdir()), target.path)
        old.rmdir()
    remove_tree(tree)


def _abandoned(place: Path, prefix: str) -> Iterator[Path]:
    for path in sorted(place.iterdir()):
        if path.name.startswith(prefix) and path.is_dir() and not path.is_symlink() and _is_abandoned(path):
            yield path


def _is_abandoned(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def publish(tree: Path, target: Target, now: datetime, *, replace: bool) -> tuple[str, ...]:
    """Move *tree* to its target. Return where the old content lies and the command that undoes it."""
    if target.entries() and not replace:
        raise RefusedError(f"{target.path} has been filled meanwhile", hint="Restore elsewhere, or say --replace.")
    with _source_errors(f"cannot move the restored tree to {target.path}; it is kept at {tree}"):
        return _fill(tree, target, now) if target.inside else _swap(tree, target, now)


def leave_aside(tree: Path, target: Target, now: datetime) -> Path:
    """Move *tree* to a name that says it is not verified, and return that."""
    name = f"{OWN_PREFIX}-unverified-{_stamp(now)}" if target.inside else f"{target.path.name}.unverified-{_stamp(now)}"
    with _source_errors(f"cannot keep the restored tree {tree}"):
        return tree.rename(tree.with_name(name))


def _swap(tree: Path, target: Target, now: datetime) -> tuple[str, ...]:
    kept = target.path.with_name(f"{target.path.name}.before-restore-{_stamp(now)}")
    replaced = bool(target.entries())
    if replaced:
        target.path.rename(kept)
    tree.rename(target.path)  # over an empty directory too
    sync_directory(target.path.parent)
    if not replaced:
        return ()
    new, old, undone = (shlex.quote(str(path)) for path in (target.path, kept, f"{kept}.undone"))
    return (
        f"What was there is kept as {kept}",
        f"To undo, with the application stopped: mv -T {new} {undone} && mv -T {old} {new}",
    )


def _fill(tree: Path, target: Target, now: datetime) -> tuple[str, ...]:
    stamp = _stamp(now)
    old_entries, status = target.entries(), tree.stat()
    tree = tree.rename(target.path / f"{_CLEARING}{stamp}")
    old = target.path / f"{_OLD}{stamp}"
    if old_entries:
        old.mkdir(mode=0o700)
        _move_all(old_entries, old)
    tree = tree.rename(target.path / f"{_FILLING}{stamp}")
    sync_directory(target.path)
    _move_all(sorted(tree.iterdir()), target.path)
    tree.rmdir()
    _like(target.path, status)
    sync_directory(target.path)
    return _how_to_empty(target.path, old) if old_entries else ()


def _like(path: Path, status: os.stat_result) -> None:
    """Give the target itself what the snapshot's root had; a mount point of somebody else's keeps its own."""
    with suppress(PermissionError):
        os.chown(path, status.st_uid, status.st_gid)
    with suppress(PermissionError):
        path.chmod(status.st_mode & 0o7777)
        os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _how_to_empty(target: Path, old: Path) -> tuple[str, ...]:
    undone = f"{OWN_PREFIX}-undone{old.name.removeprefix(_OLD.rstrip('-'))}"
    others = f"! -name '{OWN_PREFIX}*' ! -name {_LEFT_ALONE}"
    each = "find {} -mindepth 1 -maxdepth 1 {}-exec mv -t {} {{}} +"
    undo = (
        f"cd {shlex.quote(str(target))} && mkdir {undone} && {each.format('.', others + ' ', undone)} "
        f"&& {each.format(old.name, '', '.')}"
    )
    return f"What was there is kept in {old}", f"To undo, with the application stopped: {undo}"


def _move_all(paths: list[Path], into: Path) -> None:
    for path in paths:
        path.rename(into / path.name)


def _stamp(now: datetime) -> str:
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def remove_tree(path: Path) -> None:
    """Remove a tree of ours, also where its directories may not be written to."""
    if path.is_dir():
        shutil.rmtree(path, onerror=_open_up)


def _open_up(function: Callable[..., Any], path: str, _: object) -> None:
    with suppress(OSError):
        Path(path).parent.chmod(0o700)
        if function in (os.scandir, os.open):
            Path(path).chmod(0o700)
            shutil.rmtree(path, ignore_errors=True)
        else:
            function(path)


@contextmanager
def _source_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise SourceError(
            f"{what}: {exc.strerror}", hint="Check the target and its rights, then run it again."
        ) from exc
