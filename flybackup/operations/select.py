"""Find the snapshots a user means."""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import NamedTuple

from flybackup.errors import ConfigError, IntegrityError, ObjectNotFoundError
from flybackup.model import Snapshot
from flybackup.repository import Repository, parse_snapshot_key

_log = logging.getLogger(__name__)


class FoundSet(NamedTuple):
    """The snapshots of one set, in the order in which its sources were named; `missing` are those it has none of."""

    id: str
    snapshots: tuple[Snapshot, ...]
    missing: tuple[str, ...]


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


def select_set(repository: Repository, what: str, *, timezone: tzinfo) -> FoundSet:
    """Return the set that *what* names: its id or a unique prefix of it, or one of its snapshots as `select` takes it.

    Reads every head; one that is damaged is passed over, with a warning. Raise `ConfigError` when nothing, more than
    one, or a snapshot that was taken alone fits.
    """
    heads = list(_readable(repository))
    source = what.partition("@")[0]
    if any(head.source == source for head in heads):
        found = {select(repository, what, timezone=timezone).set_id}
    else:
        found = {head.set_id for head in heads if what and _begins(head, what.lower())}
    if len(found) != 1:
        told = "no set or snapshot is called" if not found else f"{len(found)} sets or snapshots begin with"
        raise ConfigError(f"{told} {what!r}", hint="'flybackup snapshots' lists sets and snapshots.")
    (name,) = found
    if name is None:
        raise ConfigError(f"{what!r} was taken alone, not as part of a set", hint="Restore it without --set.")
    return _set(name, [head for head in heads if head.set_id == name])


def _begins(head: Snapshot, with_: str) -> bool:
    return head.id.startswith(with_) or (head.set_id or "").startswith(with_)


def _set(name: str, heads: Iterable[Snapshot]) -> FoundSet:
    by_source = {head.source: head for head in heads}
    named = next(iter(by_source.values())).set_sources
    order = [*(each for each in named if each in by_source), *sorted(by_source.keys() - set(named))]
    return FoundSet(
        name, tuple(by_source[each] for each in order), tuple(each for each in named if each not in by_source)
    )


def _readable(repository: Repository) -> Iterator[Snapshot]:
    for key in repository.snapshot_keys():
        try:
            yield repository.read_snapshot(key)
        except (IntegrityError, ObjectNotFoundError) as exc:
            _log.warning("snapshot.damaged", extra={"subject": key, "problem": str(exc)})


def newest_first(
    repository: Repository,
    *,
    source: str | None = None,
    tags: Sequence[str] = (),
    set_id: str = "",
    limit: int | None = None,
) -> Iterator[Snapshot]:
    """Yield snapshots, newest first, that carry all *tags* and whose set begins with *set_id*; reads no more heads than
    it has to."""
    prefix = "snapshots/" if source is None else f"snapshots/{repository.write_key.source_key(source)}/"
    given = 0
    for key in sorted(_keys(repository, prefix), reverse=True):
        try:
            snapshot = repository.read_snapshot(key.key)
        except ObjectNotFoundError:  # forgotten since it was listed
            continue
        if set(tags) <= set(snapshot.tags) and (snapshot.set_id or "").startswith(set_id):
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
