"""Putting a restored database in the place of another one, so that no crash between two steps mixes the two.

DuckDB replays a log it finds beside a database, and files of 0.10 to 1.5 do not say which log is theirs; SQLite rolls
back a journal: an old one beside a new database, or the reverse, is silently wrong. So the target's name never stands
beside a foreign log, nor without its own:

    step                                          a crash after it leaves
    1  link the old logs under the kept name      the old database, whole
    2  rename the old database to the kept name   no database; the old one whole under the kept name
    3  unlink the old logs                        the same
    4  rename the new logs to the target's        no database; old and new both whole under other names
    5  rename the new database to the target's    the new database, whole

The directory is synced between the steps. Between 2 and 5, some microseconds, there is no database: an application
that starts then fails or begins an empty one, which is seen, and nothing of the old or the new is touched.
"""

import errno
import os
import secrets
import shlex
import shutil
from datetime import datetime
from pathlib import Path

from flybackup.errors import RefusedError, SourceError
from flybackup.sources.files.family import Family
from flybackup.sources.files.staging import sync_directory


def publish(staged: Family, target: Path, now: datetime, *, replace: bool) -> tuple[str, ...]:
    """Move *staged* and its logs to *target*. Return where the old content lies and the commands that undo it."""
    if os.path.lexists(target) and not replace:
        raise RefusedError(f"{target} has come to exist meanwhile", hint="Restore elsewhere, or say --replace.")
    try:
        moved = _set_aside(staged.at(target), _free_name(staged.at(target), "before-restore", now))
        _move(staged, target)
    except OSError as exc:
        hint = f"Nothing was lost: look for {target.name}.before-restore-… and {staged.path.name} in {target.parent}."
        raise SourceError(f"cannot move the restored database to {target}: {exc.strerror}", hint=hint) from exc
    return _sentences(staged.at(target), moved)


def leave_aside(staged: Family, target: Path, now: datetime) -> Path:
    """Move *staged* to a name beside *target* that says it is not verified, and return that."""
    aside = _free_name(staged.at(target), "unverified", now)
    _move(staged, aside)
    return aside


def _free_name(target: Family, why: str, now: datetime) -> Path:
    name = target.path.with_name(f"{target.path.name}.{why}-{now:%Y%m%dT%H%M%SZ}")
    return name.with_name(f"{name.name}-{secrets.token_hex(3)}") if target.at(name).members() else name


def _set_aside(target: Family, kept: Path) -> dict[Path, Path]:
    """Steps 1 to 3. Return old path → kept path."""
    name, directory = target.path.name, target.path.parent
    moved = {path: kept.with_name(kept.name + path.name.removeprefix(name)) for path in target.members()}
    logs = target.companions()
    for path in logs:
        _link_or_copy(path, moved[path])
    sync_directory(directory)
    if target.path in moved:
        target.path.rename(moved[target.path])
        sync_directory(directory)
    for path in logs:
        path.unlink()
    sync_directory(directory)
    return moved


def _link_or_copy(path: Path, kept: Path) -> None:
    """Some file systems know no hard links (FAT, SMB)."""
    try:
        os.link(path, kept, follow_symlinks=False)
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        shutil.copy2(path, kept)
        with kept.open("rb") as file:
            os.fsync(file.fileno())


def _move(staged: Family, target: Path) -> None:
    """Steps 4 and 5: the logs first."""
    for path in staged.members():
        path.rename(target.with_name(target.name + path.name.removeprefix(staged.path.name)))
        sync_directory(target.parent)


def _sentences(target: Family, moved: dict[Path, Path]) -> tuple[str, ...]:
    """Say where the old content is, and the command that brings it back whatever logs there are by then.

    The application may have run on the restored file since, and left a log or removed one.
    """
    if not moved:
        return ()
    old_path, kept = next(reversed(moved.items()))
    kept = kept.with_name(kept.name.removesuffix(old_path.name.removeprefix(target.path.name)))
    new, old, aside = (shlex.quote(str(path)) for path in (target.path, kept, kept.with_name(kept.name + ".undone")))
    each = f'if [ -e {new}"$s" ]; then mv {new}"$s" {aside}/; fi; if [ -e {old}"$s" ]; then mv {old}"$s" {new}"$s"; fi'
    undo = f"mkdir {aside} && for s in '' {' '.join(target.suffixes)}; do {each}; done"
    return (f"What was there is kept as {kept}", f"To undo, with the application stopped: {undo}")
