"""Targets that a restored database may not take the place of."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from flybackup.errors import RefusedError, SourceError
from flybackup.sources import RestoreOptions
from flybackup.sources.files import holders
from flybackup.sources.files.family import Family


@contextlib.contextmanager
def source_errors(what: str) -> Iterator[None]:
    """Turn what the operating system refuses into a `SourceError` that begins with *what* could not be done."""
    try:
        yield
    except OSError as exc:
        raise SourceError(f"{what}: {exc.strerror}", hint="Check the directory and its rights.") from exc


def refuse_taken(target: Family, options: RestoreOptions) -> None:
    """Raise `RefusedError` when *target* is in use or may not be replaced, `SourceError` without a directory."""
    with source_errors(f"cannot look at {target.path}"):
        _refuse_taken(target.path, options)
        refuse_in_use(target)


def _refuse_taken(target: Path, options: RestoreOptions) -> None:
    if not target.parent.is_dir():
        raise SourceError(f"{target.parent} is not a directory", hint="Make it first; is the volume mounted?")
    if target.is_dir():
        raise RefusedError(f"{target} is a directory", hint="This kind of database is restored to a file path.")
    if target.is_symlink():
        hint = f"Name the file it leads to: {target.resolve()}"
        raise RefusedError(f"{target} is a symbolic link, so the logs of a database there may lie elsewhere", hint=hint)
    if os.path.lexists(target) and not target.is_file():
        raise RefusedError(f"{target} is no regular file", hint="Restore to another path.")
    if os.path.lexists(target) and not options.replace:
        hint = "Restore to another path, or say --replace: the old database is then kept aside."
        raise RefusedError(f"{target} exists", hint=hint)
    if os.path.lexists(target) and options.tables:
        hint = "Name a new file: it will hold those tables only. Copy them over with SQL, then."
        raise RefusedError(f"--table would replace all of {target} by a part of it", hint=hint)


def refuse_in_use(target: Family) -> None:
    """Raise `RefusedError` when a process has *target* or one of its companions open or locked."""
    present = target.members()
    holder = next(holders.openers(present), None) or next(filter(None, map(_locker, present)), None)
    if holder is not None or any(map(holders.locked_by_this_process, present)):
        who = holder or "this process"
        raise RefusedError(f"{target.path} is in use by {who}", hint="Stop the application, then restore again.")


def _locker(path: Path) -> holders.Holder | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return holders.user_of(fd)
    finally:
        os.close(fd)
