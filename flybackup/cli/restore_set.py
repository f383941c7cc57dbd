"""`flybackup restore --set`."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import click

from flybackup.cli.context import Context
from flybackup.cli.progress import progress
from flybackup.cli.targets import Place, places
from flybackup.model import OnProgress, Snapshot
from flybackup.operations.restore import RestoreRequest, SetOutcome, Wanted, restore_set
from flybackup.operations.select import FoundSet, select_set
from flybackup.report.documents import restore_set_document
from flybackup.report.restoration_of_sets import restore_set_text
from flybackup.repository import Repository
from flybackup.sources import RestoreOptions


class SetOptions(NamedTuple):
    """What was said on the command line, of each source alike."""

    each: RestoreOptions
    verify: bool
    dry_run: bool


def refuse_with_set(snapshot: str | None, tables: Sequence[str], only: Sequence[str]) -> None:
    """Raise a usage error for what only a snapshot alone can be asked."""
    if snapshot is not None:
        raise click.UsageError("SNAPSHOT and --set exclude each other: --set SNAPSHOT names the set of that snapshot.")
    if tables or only:
        raise click.UsageError("--table and --only are for one snapshot, not for a set.")


def restore_whole_set(context: Context, what: str, targets: Sequence[str], options: SetOptions) -> int:
    """Restore the set that *what* names and say what came of it. Return the exit code."""
    repository = context.repository()
    found = select_set(repository, what, timezone=context.zone)
    where = places(found.snapshots, targets, context.config.sources)
    outcome = _restored(context, repository, found, where, options)
    text = restore_set_text(outcome, found, zone=context.zone, now=context.clock.now(), dry_run=options.dry_run)
    context.say(restore_set_document(outcome, found), text)
    return outcome.exit_code


def _restored(
    context: Context, repository: Repository, found: FoundSet, where: Mapping[str, Place], options: SetOptions
) -> SetOutcome:
    with context.scratch() as scratch:
        wanted = [
            _wanted(each, where[each.source], _private(scratch, at), options) for at, each in enumerate(found.snapshots)
        ]

        def watch(name: str) -> AbstractContextManager[OnProgress]:
            return progress("restore", name, quiet=context.options.quiet)

        return restore_set(repository, wanted, clock=context.clock, watch=watch)


def _private(scratch: Path, number: int) -> Path:
    place = scratch / str(number)
    place.mkdir(mode=0o700)
    return place


def _wanted(snapshot: Snapshot, place: Place, scratch: Path, options: SetOptions) -> Wanted:
    request = RestoreRequest(place.shown, scratch, options.each, verify=options.verify, dry_run=options.dry_run)
    return Wanted(snapshot, place.source, request)
