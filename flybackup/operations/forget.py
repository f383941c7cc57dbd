"""Forget the snapshots that their source's policy does not keep: a plan as a value, then carrying it out.

Forgetting deletes heads and nothing else; what only they needed is reclaimed by prune. Oldest first: a kill leaves what
was there, less some of the oldest that were to go, and the next run goes on. Two runs at once are harmless: what the
other has removed already is no error, and neither removes what a verdict of the other rests on (see `retention`).
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import NamedTuple

from flybackup.errors import ConfigError, IntegrityError, ObjectNotFoundError, RefusedError, StoreError
from flybackup.model import Snapshot, SnapshotId
from flybackup.repository import Repository
from flybackup.retention import RetentionPolicy, Verdict, judge
from flybackup.stores import Store

_log = logging.getLogger(__name__)

_PROBE = "probes/clock"
_MAY_DELETE = (
    "Forgetting needs credentials that may delete: give them to the machine that forgets, not to those that back up. "
    "The next run removes what is left."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePlan:
    """What becomes of one source's snapshots; `verdicts` are newest first. `configured`: it stands in the
    configuration. Without a policy everything stays."""

    source: str
    configured: bool
    policy: RetentionPolicy | None
    verdicts: tuple[Verdict, ...]

    @property
    def remove(self) -> tuple[Snapshot, ...]:
        """Newest first."""
        return tuple(each.snapshot for each in self.verdicts if not each.keep)

    @property
    def removes_most(self) -> bool:
        """Tell whether more than half would go: then something is rather wrong with the policy than with them."""
        return 2 * len(self.remove) > len(self.verdicts)


class DamagedHead(NamedTuple):
    """A head that does not open: it stays, and counts for nothing."""

    key: str
    problem: str


@dataclass(frozen=True, slots=True)
class ForgetPlan:
    sources: tuple[SourcePlan, ...]
    damaged: tuple[DamagedHead, ...]


def plan_forgetting(
    repository: Repository,
    policies: Mapping[str, RetentionPolicy | None],
    *,
    source: str | None,
    zone: tzinfo,
    verified: Collection[SnapshotId] = (),
) -> ForgetPlan:
    """Return what *policies* (of the configured sources, by name) keep and remove, of one *source* or of all.

    Puts one small object to learn the store's time, which says what is dated in the future; give a `DiscardingStore`
    where nothing may be written. Memory: the heads of these snapshots. Raise `ConfigError` for a source nobody knows.
    """
    keys = repository.snapshot_keys(source)
    if source is not None and not keys and source not in policies:
        hint = "'flybackup snapshots' lists sources, 'flybackup config show' the configured ones."
        raise ConfigError(f"no source is called {source!r}: it is not configured and has no snapshots", hint=hint)
    found, damaged = _heads(repository, keys)
    now = _store_time(repository.store)
    plans = (
        SourcePlan(
            source=name,
            configured=name in policies,
            policy=policies.get(name),
            verdicts=judge(snapshots, policies.get(name), zone=zone, now=now, verified=verified),
        )
        for name, snapshots in sorted(found.items())
    )
    return ForgetPlan(tuple(plans), tuple(damaged))


def forget(repository: Repository, plan: ForgetPlan, *, even_most: bool) -> None:
    """Remove what *plan* says.

    Raise `RefusedError`, and remove nothing at all, when of any source more than half would go, unless *even_most*.
    Raise `StoreError` when the store refuses: what is left stays until the next run.
    """
    if not even_most:
        _refuse_most(plan.sources)
    doomed = [snapshot for each in plan.sources for snapshot in reversed(each.remove)]
    for done, snapshot in enumerate(doomed):
        _remove(repository, snapshot, f"{done} of {len(doomed)} snapshots were removed")


def _heads(repository: Repository, keys: Iterable[str]) -> tuple[dict[str, list[Snapshot]], list[DamagedHead]]:
    """Return the snapshots by their source, and the heads that do not open."""
    found: dict[str, list[Snapshot]] = defaultdict(list)
    damaged: list[DamagedHead] = []
    for key in keys:
        try:
            snapshot = repository.read_snapshot(key)
        except ObjectNotFoundError:
            continue  # forgotten meanwhile, by another run
        except IntegrityError as exc:
            damaged.append(DamagedHead(key, exc.problem))
            continue
        found[snapshot.source].append(snapshot)
    return found, damaged


def _store_time(store: Store) -> datetime:
    # Always the same object, so that credentials that may not delete leave one behind and not one for each run.
    time = store.put(_PROBE, b"")
    try:
        store.delete(_PROBE)
    except StoreError as exc:
        _log.debug("forget.probe_left", extra={"object": _PROBE, "error": str(exc)})
    return time


def _refuse_most(plans: Iterable[SourcePlan]) -> None:
    most = [f"{len(each.remove)} of the {len(each.verdicts)} of {each.source}" for each in plans if each.removes_most]
    if most:
        raise RefusedError(
            f"more than half of the snapshots would be removed: {', '.join(most)}; nothing was",
            hint="Look at what 'flybackup forget --dry-run' says. If it is right, say --yes.",
        )


def _remove(repository: Repository, snapshot: Snapshot, so_far: str) -> None:
    try:
        repository.store.delete(repository.snapshot_key(snapshot.source, snapshot.time, snapshot.id))
    except StoreError as exc:
        message = f"{so_far}, then {snapshot.id} of {snapshot.source} could not be: {exc}"
        raise StoreError(message, hint=f"{exc.hint} {_MAY_DELETE}".lstrip(), retryable=exc.retryable) from exc
    _log.info(
        "snapshot.forgotten",
        extra={"subject": snapshot.source, "snapshot": snapshot.id, "taken": snapshot.time.isoformat()},
    )
