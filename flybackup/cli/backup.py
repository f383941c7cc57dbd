"""`flybackup backup`."""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import click

from flybackup.cli.context import Context, with_context
from flybackup.cli.group import Command
from flybackup.cli.progress import progress
from flybackup.errors import ConfigError
from flybackup.model import OnProgress, Snapshot
from flybackup.operations.backup import BackupRequest, Failure, Outcome, Planned, backup_set
from flybackup.report.documents import Failed, backup_document
from flybackup.report.texts import backup_text
from flybackup.repository import Repository
from flybackup.sources import Source
from flybackup.stores.discarding import DiscardingStore

PARTIAL = 3


class Named(NamedTuple):
    """A source and what its snapshots are called."""

    name: str
    source: Source


@click.command(cls=Command)
@click.argument("sources", nargs=-1, metavar="[SOURCE]…")
@click.option("--name", metavar="NAME", help="What to call an ad hoc source.")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="Tag the snapshots; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Read and chunk everything, store nothing.")
@with_context
def backup(context: Context, *, sources: Sequence[str], name: str | None, tags: Sequence[str], dry_run: bool) -> int:
    """Take a snapshot of each SOURCE, or of every configured source.

    A SOURCE is a name from the configuration, the path of a DuckDB or SQLite file or of a directory, or a postgresql://
    URL. Several are a set, taken as close together as can be. Exit code 3 when some sources failed, or something of one
    could not be read: what was taken is kept.
    """
    chosen = _choose(context, sources, name)
    repository = context.repository()
    if dry_run:
        repository = repository.with_store(DiscardingStore(repository.store, context.clock))
    outcomes = _back_up(context, repository, chosen, tags)
    done = [each for each in outcomes if isinstance(each, Snapshot)]
    failures = [each for each in outcomes if isinstance(each, Failure)]
    if failures and len(chosen) == 1:
        raise failures[0].error
    failed = [Failed(each.source, str(each.error), each.error.hint) for each in failures]
    context.say(backup_document(done, failed), backup_text(done, failed, dry_run=dry_run))
    return exit_code(done, failures)


def exit_code(done: Sequence[Snapshot], failures: Sequence[Failure]) -> int:
    """Return 0 also for a marked snapshot: it was taken, and whether it is right is for a person to say."""
    if failures and not done:
        return failures[0].error.exit_code
    return PARTIAL if failures or any(snapshot.problems for snapshot in done) else 0


def _choose(context: Context, sources: Sequence[str], name: str | None) -> list[Named]:
    """Return the sources meant. Raise `ConfigError` before anything is stored when one of them cannot be."""
    if name and len(sources) != 1:
        raise ConfigError("--name is for one ad hoc source", hint="Name one path or URL with it.")
    if not sources and not context.config.sources:
        hint = "Name a database ('flybackup backup /data/app.duckdb'), or add [sources.NAME] to the configuration."
        raise ConfigError("there is nothing to back up: no source is configured and none was named", hint=hint)
    chosen = [_named(context, each, name) for each in sources or context.config.sources]
    twice = [each for each, times in Counter(named.name for named in chosen).items() if times > 1]
    if twice:
        hint = "Back up one after the other, an ad hoc one under another --name."
        raise ConfigError(f"two sources are called {twice[0]}", hint=hint)
    return chosen


def _named(context: Context, what: str, name: str | None) -> Named:
    if what in context.config.sources:
        if name:
            raise ConfigError(f"{what} is configured and has its name", hint="--name is for an ad hoc path or URL.")
        return Named(what, context.configured_source(what))
    found, source = context.ad_hoc_source(what)
    return Named(name or found, source)


def _back_up(context: Context, repository: Repository, chosen: Sequence[Named], tags: Sequence[str]) -> list[Outcome]:
    """Back up as one set. Each source has a scratch directory of its own, which goes when it is done with."""
    with context.scratch() as scratch:
        places = {named.name: scratch / str(number) for number, named in enumerate(chosen)}
        for place in places.values():
            place.mkdir(mode=0o700)

        @contextmanager
        def watch(name: str) -> Iterator[OnProgress]:
            with progress("backup", name, quiet=context.options.quiet) as on_progress:
                try:
                    yield on_progress
                finally:
                    shutil.rmtree(places[name], ignore_errors=True)

        requests = [Planned(source, BackupRequest(name, tuple(tags), places[name])) for name, source in chosen]
        return backup_set(repository, requests, clock=context.clock, watch=watch)
