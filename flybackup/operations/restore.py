"""Restore snapshots: read, write beside the targets, verify, and when all are right move into place, one by one.

One snapshot is the case of a set of one. Publishing several is not one step, as their targets have nothing in common:
what can be found wrong is found before the first of them.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace

from flybackup.clock import Clock
from flybackup.errors import FlybackupError, IntegrityError, VerificationError
from flybackup.model import OnProgress, Snapshot
from flybackup.operations.beside import Beside, RestoreRequest, Wanted
from flybackup.operations.verify import RestoreReport
from flybackup.reading import Reader
from flybackup.repository import Repository
from flybackup.sources import Refusing, Source

__all__ = ["RestoreRequest", "SetOutcome", "Wanted", "Watch", "restore", "restore_set"]

_log = logging.getLogger(__name__)

Watch = Callable[[str], AbstractContextManager[OnProgress]]
"""Given the name of a source, lasts while its snapshot is read and verified."""


@dataclass(frozen=True, slots=True)
class SetOutcome:
    """`error` is why not all are in place; None also when one did not verify, which its report says."""

    reports: tuple[RestoreReport, ...]
    error: FlybackupError | None

    @property
    def exit_code(self) -> int:
        if self.error is not None:
            return self.error.exit_code
        return VerificationError.exit_code if any(report.differs for report in self.reports) else 0


def restore(
    repository: Repository,
    snapshot: Snapshot,
    source: Source,
    request: RestoreRequest,
    *,
    clock: Clock,
    on_progress: OnProgress,
) -> RestoreReport:
    """Restore *snapshot* into the location *source* and return what was compared.

    When verification fails the target is left as it was, and the report says where the restored data was kept; unless
    nothing could be restored beside it (`InTarget`).
    Raise `WrongKeyError` with only the write key, `IntegrityError` for damaged objects, `RefusedError` for a target
    that is taken or in use.
    """
    wanted = [Wanted(snapshot, source, request)]
    outcome = restore_set(repository, wanted, clock=clock, watch=lambda _: nullcontext(on_progress))
    if outcome.error is not None:
        raise outcome.error
    return outcome.reports[0]


def restore_set(repository: Repository, wanted: Sequence[Wanted], *, clock: Clock, watch: Watch) -> SetOutcome:
    """Restore all beside their targets; when every one has verified, publish them in the order given.

    At the first that fails or differs no target was touched: it stops there, and those that were ready are removed
    again. When publishing fails half-way, the reports say which are in place, and the rest is kept. Raise what speaks
    against a target before anything is read, `WrongKeyError`, and what keeps the index from being read.
    """
    repository.require_master("restoring")
    every = [Beside(each) for each in wanted]
    if len(wanted) > 1:
        _refuse_early(wanted)
    damaged: list[IntegrityError] = []  # one rotten index file must not stand before data that needs it not
    stopwatch = _Stopwatch(clock)
    with ExitStack() as held:
        with Reader(repository, repository.load_index_for_reading(damaged)) as reader:
            error = _staged(every, held, reader, watch, stopwatch)
        if all(each.ready for each in every):
            error = _published(every, stopwatch)
    _explain(every)
    every[0].notes += [f"Not needed for this, but damaged: {damage}. Run: flybackup check" for damage in damaged]
    return SetOutcome(tuple(each.report() for each in every), error)


def _refuse_early(wanted: Sequence[Wanted]) -> None:
    """Raise what speaks against any target that can say so beforehand: better than after hours, and half of them."""
    refusals: list[FlybackupError] = []
    for snapshot, source, request in wanted:
        if isinstance(source, Refusing) and not request.dry_run:
            try:
                source.refuse(replace(request.options, facts=snapshot.facts))
            except FlybackupError as exc:
                refusals.append(exc)
    if refusals:
        told = "; ".join(str(refusal) for refusal in refusals)
        hint = " ".join(dict.fromkeys(refusal.hint for refusal in refusals if refusal.hint))
        raise type(refusals[0])(f"nothing was restored: {told}", hint=hint)


def _staged(
    every: Sequence[Beside], held: ExitStack, reader: Reader, watch: Watch, stopwatch: "_Stopwatch"
) -> FlybackupError | None:
    # A restore command writes into its target at once: only when everything else is right.
    for each in sorted(every, key=lambda each: each.snapshot.kind == "command"):
        try:
            with watch(each.name) as on_progress:
                each.stage(held, reader, on_progress)
        except FlybackupError as exc:
            each.error = exc
            return exc
        finally:
            each.seconds += stopwatch.lap()
        if each.report().differs:
            break
    return None


def _published(every: Sequence[Beside], stopwatch: "_Stopwatch") -> FlybackupError | None:
    for at, each in enumerate(every):
        try:
            each.publish()
        except FlybackupError as exc:
            each.error = exc
            for rest in every[at:] if at else ():
                rest.keep()
            return exc
        except BaseException:
            _log_half(every)
            raise
        finally:
            each.seconds += stopwatch.lap()
    return None


def _log_half(every: Sequence[Beside]) -> None:
    """Whoever stopped it here gets no report, but has to know."""
    in_place = {each.target: each.notes for each in every if each.published}
    if in_place:
        rest = [each.target for each in every if not each.published]
        _log.warning("restore.half_done", extra={"in_place": in_place, "not_in_place": rest})


def _explain(every: Sequence[Beside]) -> None:
    """Say of those that nothing is wrong with why they are not in place."""
    for each in every:
        if each.ready and not each.published and each.error is None and not each.notes:
            each.notes.append("Restored beside its target, then removed again: none is put in place unless all can be.")


class _Stopwatch:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = clock.monotonic()

    def lap(self) -> float:
        """Return the seconds since the last time this was asked."""
        last, self._last = self._last, self._clock.monotonic()
        return self._last - last
