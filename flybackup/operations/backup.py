"""Back up sources together. One source is the case of a set of one.

    1  open every source that fixes its view when it is opened
    2  of each of the others: open, store, close, commit
    3  of each that was opened in 1: store, close, commit

So all views lie between the first opening and the end of step 2; and the files that a database refers to, as it was
when it was opened, are read after that.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from traceback import clear_frames
from typing import NamedTuple

from flybackup.clock import Clock
from flybackup.errors import FlybackupError, StoreError
from flybackup.model import OnProgress, Snapshot, apart_seconds
from flybackup.operations.turn import BackupRequest, Run, Turn
from flybackup.repository import Repository
from flybackup.sources import Source

__all__ = ["BackupRequest", "Failure", "Outcome", "Planned", "Watch", "backup", "backup_set"]

_log = logging.getLogger(__name__)


class Planned(NamedTuple):
    """A source of a set, and what is wanted of it."""

    source: Source
    request: BackupRequest


class Failure(NamedTuple):
    """A source that has no snapshot, and why."""

    source: str
    error: FlybackupError


Outcome = Snapshot | Failure
Watch = Callable[[str], AbstractContextManager[OnProgress]]
"""Given a source's name, lasts while that source is worked on."""


def backup(
    repository: Repository, source: Source, request: BackupRequest, *, clock: Clock, on_progress: OnProgress
) -> Snapshot:
    """Capture *source* and return the committed snapshot.

    Raise `SourceError` when no consistent view was to be had, `StoreError` when the store failed: then no snapshot
    exists, and what was stored serves the next try. Memory: see `Session`, whatever the size of the source.
    """
    planned = [Planned(source, request)]
    (outcome,) = backup_set(repository, planned, clock=clock, watch=lambda _: nullcontext(on_progress))
    if isinstance(outcome, Failure):
        raise outcome.error
    return outcome


def backup_set(repository: Repository, planned: Sequence[Planned], *, clock: Clock, watch: Watch) -> list[Outcome]:
    """Capture sources as close together as can be, and return of each, in the order given, what came of it.

    Several share a set id. Each is committed as soon as it was read: a failure, or a stop, loses no other. Once the
    store has failed the rest is not tried. Memory: one `Session`, and what each opened view holds. A scratch directory
    is not needed any more when its source's *watch* ends.
    """
    run = Run(repository, clock, tuple(each.request.name for each in planned))
    with ExitStack() as stack:
        turns = [Turn(run, *each, stack.enter_context(ExitStack())) for each in planned]
        for turn in turns:
            if turn.source.fixes_view:
                turn.open_early()
        outcomes = _taken(sorted(turns, key=lambda turn: turn.source.fixes_view), watch)
    ordered = [outcomes[turn] for turn in turns]
    _log_set(run, [each for each in ordered if isinstance(each, Snapshot)])
    return ordered


def _taken(turns: Sequence[Turn], watch: Watch) -> dict[Turn, Outcome]:
    outcomes: dict[Turn, Outcome] = {}
    lost: StoreError | None = None
    for turn in turns:
        try:
            if lost is not None:
                raise StoreError(f"not tried, because the store had failed: {lost}", hint=lost.hint)
            with watch(turn.name) as on_progress:
                outcomes[turn] = turn.take(on_progress)
        except FlybackupError as exc:
            clear_frames(exc.__traceback__)  # or it holds a session, with its index, as long as the run lasts
            outcomes[turn] = Failure(turn.name, exc)
            lost = lost or (exc if isinstance(exc, StoreError) else None)
    return outcomes


def _log_set(run: Run, done: Sequence[Snapshot]) -> None:
    if run.set_id is not None and done:
        failed = sorted(set(run.set_sources) - {snapshot.source for snapshot in done})
        said = {"sources": list(run.set_sources), "failed": failed, "within_seconds": apart_seconds(done)}
        _log.info("backup.set", extra={"subject": run.set_id, **said})
