"""Putting a restored database in the place of another one, so that no crash between two steps mixes the two.

DuckDB replays a log it finds beside a database, and files of 0.10 to 1.5 do not say which log is theirs: an old log
beside a new database, or the reverse, is silently wrong. So the target's name never stands beside a foreign log, nor
without its own:

    step                                          a crash after it leaves
    1  link the old files under the kept name     the old database, whole, twice
    2  unlink the old database                    no database; the old one whole under the kept name
    3  unlink the old logs                        the same
    4  rename the new logs to the target's        no database; old and new both whole under other names
    5  rename the new database to the target's    the new database, whole

The directory is synced between the steps. Between 2 and 5, some microseconds, there is no database: an application
that starts then fails or begins an empty one, which is seen, and nothing of the old or the new is touched.
"""

import os
import secrets
import shlex
from datetime import datetime
from pathlib import Path

from flybackup.errors import RefusedError, SourceError
from flybackup.sources.duckdb.staging import family, sync_directory


def publish(staged: Path, target: Path, now: datetime, *, replace: bool) -> tuple[str, ...]:
    """Move *staged* and its logs to *target*. Return where the old content lies and the commands that undo it."""
    try:
        kept = _keep_old(target, _free_name(target, "before-restore", now)) if family(target) else None
        if kept is not None and target in kept and not replace:
            raise RefusedError(f"{target} has come to exist meanwhile", hint="Restore elsewhere, or say --replace.")
        _unlink_old(target)
        _move(staged, target)
    except OSError as exc:
        hint = f"Nothing was lost: look for {target.name}.before-restore-… and {staged.name} in {target.parent}."
        raise SourceError(f"cannot move the restored database to {target}: {exc.strerror}", hint=hint) from exc
    return _sentences(target, kept) if kept else ()


def leave_aside(staged: Path, target: Path, now: datetime) -> Path:
    """Move *staged* to a name beside *target* that says it is not verified, and return that."""
    aside = _free_name(target, "unverified", now)
    _move(staged, aside)
    return aside


def _free_name(target: Path, why: str, now: datetime) -> Path:
    name = target.with_name(f"{target.name}.{why}-{now:%Y%m%dT%H%M%SZ}")
    return name.with_name(f"{name.name}-{secrets.token_hex(3)}") if family(name) else name


def _keep_old(target: Path, kept: Path) -> dict[Path, Path]:
    """Step 1. Return old path → kept path."""
    moved = {path: kept.with_name(kept.name + path.name.removeprefix(target.name)) for path in family(target)}
    for path, aside in moved.items():
        os.link(path, aside, follow_symlinks=False)
    sync_directory(target.parent)
    return moved


def _unlink_old(target: Path) -> None:
    """Steps 2 and 3: the database first."""
    for path in reversed(family(target)):
        path.unlink()
        sync_directory(target.parent)


def _move(staged: Path, target: Path) -> None:
    """Steps 4 and 5: the logs first."""
    for path in family(staged):
        path.rename(target.with_name(target.name + path.name.removeprefix(staged.name)))
        sync_directory(target.parent)


def _sentences(target: Path, kept: dict[Path, Path]) -> tuple[str, ...]:
    undone = target.with_name(f"{target.name}.undone")
    away = [f"mv {_shell(path)} {_shell(undone, path, target)}" for path in reversed(family(target))]
    back = [f"mv {_shell(aside)} {_shell(path)}" for path, aside in kept.items()]
    where = kept.get(target, next(iter(kept.values())))
    return (
        f"What was at {target} is kept as {where}.",
        f"To undo, with the application stopped: {' && '.join([*away, *back])}",
    )


def _shell(path: Path, like: Path | None = None, base: Path | None = None) -> str:
    if like is not None and base is not None:
        path = path.with_name(path.name + like.name.removeprefix(base.name))
    return shlex.quote(str(path))
