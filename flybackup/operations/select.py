"""Find the snapshots a user means."""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import NamedTuple

from flybackup.errors import ConfigError
from flybackup.model import Snapshot
from flybackup.repository import Repository, parse_snapshot_key


class _Key(NamedTuple):
    time: datetime
    id: str
    key: str


def select(repository: Repository, what: str, *, timezone: tzinfo) -> Snapshot:
    """Return the snapshot that *what* names: an id or a unique prefix of one, `SOURCE`, or `SOURCE@TIME`.

    A time without an offset is in *timezone*. Raise `ConfigError` when nothing, or more than one, fits.
    """
    source, _, when = what.partition("@")
    keys = _keys(repository, f"snapshots/{repository.write_key.source_key(source)}/")
    if keys:
        return repository.read_snapshot(_newest(keys, what, _parse_time(when, timezone) if when else None))
    # Every id begins with nothing: an unset variable in a script must not pick the only snapshot.
    found = [key for key in _keys(repository, "snapshots/") if what and key.id.startswith(what.lower())]
    if len(found) != 1:
        told = "no snapshot is called" if not found else f"{len(found)} snapshots begin with"
        raise ConfigError(f"{told} {what!r}", hint="'flybackup snapshots' lists ids and sources.")
    return repository.read_snapshot(found[0].key)


def newest_first(
    repository: Repository, *, source: str | None = None, tags: Sequence[str] = (), limit: int | None = None
) -> Iterator[Snapshot]:
    """Yield snapshots, newest first, that carry all *tags*; reads no more heads than it has to."""
    prefix = "snapshots/" if source is None else f"snapshots/{repository.write_key.source_key(source)}/"
    given = 0
    for key in sorted(_keys(repository, prefix), reverse=True):
        snapshot = repository.read_snapshot(key.key)
        if set(tags) <= set(snapshot.tags):
            given += 1
            yield snapshot
        if given == limit:
            return


def _keys(repository: Repository, prefix: str) -> list[_Key]:
    return [_Key(*parse_snapshot_key(info.key), info.key) for info in repository.store.list(prefix)]


def _newest(keys: list[_Key], what: str, before: datetime | None) -> str:
    fitting = [key for key in keys if before is None or key.time <= before]
    if not fitting:
        raise ConfigError(f"no snapshot matches {what!r}", hint=f"The oldest is of {min(keys).time.isoformat()}.")
    return max(fitting).key


def _parse_time(text: str, timezone: tzinfo) -> datetime:
    """Return the last moment of the unit that *text* names: 03:00 includes 03:00:59, a date its whole day.

    So a time that `snapshots` printed, without its fraction of a second, finds the snapshot it was printed for.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError as exc:
        raise ConfigError(f"{text!r} is not a time", hint="Write it like 2026-11-20T03:00 or 2026-11-20.") from exc
    last = (time if time.tzinfo else time.replace(tzinfo=timezone)) + _unit(text)
    return last - timedelta(microseconds=1)


def _unit(text: str) -> timedelta:
    _, _, clock = text.replace(" ", "T").partition("T")
    if not clock:
        return timedelta(days=1)
    if "." in clock:
        return timedelta(microseconds=1)
    colons = re.split(r"[+\-Z]", clock)[0].count(":")
    return (timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1))[min(colons, 2)]
