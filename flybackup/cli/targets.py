"""Where restores go: what was said, and what is configured."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from flybackup.app import source_at, source_for
from flybackup.config import PostgresSourceConfig, SourceConfig, redact_url
from flybackup.errors import ConfigError
from flybackup.model import Snapshot
from flybackup.sources import Source


class Place(NamedTuple):
    """A location to restore into, and how to call it where everybody can read it."""

    source: Source
    shown: str


def absolute(target: str) -> str:
    """Return *target* as it can be found from anywhere: reports and undo commands are read later, elsewhere."""
    return target if "://" in target else str(Path(target).absolute())


def places(
    snapshots: Sequence[Snapshot],
    said: Iterable[str],
    configured: Mapping[str, SourceConfig],
    env: Mapping[str, str],
) -> dict[str, Place]:
    """Return where each source's snapshot goes, by its name: what was *said* as NAME=TARGET, else where its source is
    *configured*. Raise `ConfigError` when one has no place, or two have the same."""
    named = _named(said, {snapshot.source for snapshot in snapshots})
    lacking = [each.source for each in snapshots if each.source not in named and each.source not in configured]
    if lacking:
        what = " and ".join(lacking)
        hint = f"Say where to: {' '.join(f'--to {name}=TARGET' for name in lacking)}"
        raise ConfigError(f"the configuration has no source that is called {what}", hint=hint)
    found = {
        each.source: _said(each, named[each.source])
        if each.source in named
        else _configured(each, configured[each.source], env)
        for each in snapshots
    }
    _refuse_same(found)
    return found


def _named(said: Iterable[str], names: set[str]) -> dict[str, str]:
    targets: dict[str, str] = {}
    for each in said:
        name, equals, target = each.partition("=")
        if not (equals and target and name in names):  # and what it is may be a URL with a password
            hint = f"Write --to NAME=TARGET. The set has: {', '.join(sorted(names))}."
            raise ConfigError("a --to names no source of the set", hint=hint)
        if name in targets:
            raise ConfigError(f"{name} has two targets", hint="Say --to once for each source.")
        targets[name] = target
    return targets


def _said(snapshot: Snapshot, target: str) -> Place:
    target = absolute(target)
    return Place(source_at(snapshot.kind, target), redact_url(target))


def _configured(snapshot: Snapshot, config: SourceConfig, env: Mapping[str, str]) -> Place:
    if config.kind != snapshot.kind:
        told = f"{snapshot.source} is configured as {config.kind}, and this snapshot of it is of {snapshot.kind}"
        raise ConfigError(told, hint=f"Say where to: --to {snapshot.source}=TARGET")
    return Place(source_for(config, env), _location(snapshot.source, config))


def _location(name: str, config: SourceConfig) -> str:
    """Return the URL or path of a configured source; of what has neither, its name."""
    if isinstance(config, PostgresSourceConfig):
        return redact_url(config.url)
    path = getattr(config, "path", None)
    return name if path is None else str(Path(path).absolute())


def _refuse_same(found: Mapping[str, Place]) -> None:
    taken: dict[str, str] = {}
    for name, place in found.items():
        other = taken.setdefault(place.shown, name)
        if other != name:
            raise ConfigError(f"{other} and {name} have the same target: {place.shown}", hint="Say --to NAME=TARGET.")
