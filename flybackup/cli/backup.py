"""`flybackup backup`."""

from collections.abc import Sequence
from typing import NamedTuple

import click

from flybackup.cli.context import Context, with_context
from flybackup.cli.group import Command
from flybackup.cli.progress import progress
from flybackup.errors import ConfigError, FlybackupError
from flybackup.model import Snapshot
from flybackup.operations.backup import BackupRequest, backup as back_up
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

    A SOURCE is a name from the configuration, the path of a DuckDB or SQLite file, or a postgresql:// URL. Exit code 3
    when some sources failed: the snapshots of the others are kept.
    """
    chosen = _choose(context, sources, name)
    repository = context.repository()
    if dry_run:
        repository = repository.with_store(DiscardingStore(repository.store, context.clock))
    done: list[Snapshot] = []
    failed: list[tuple[Failed, FlybackupError]] = []
    for named in chosen:
        try:
            done.append(_back_up(context, repository, named, tags))
        except FlybackupError as exc:
            failed.append((Failed(named.name, str(exc), exc.hint), exc))
    if failed and len(chosen) == 1:
        raise failed[0][1]
    failures = [each for each, _ in failed]
    context.say(backup_document(done, failures), backup_text(done, failures, dry_run=dry_run))
    if failed:
        return PARTIAL if done else failed[0][1].exit_code
    return 0


def _choose(context: Context, sources: Sequence[str], name: str | None) -> list[Named]:
    """Return the sources meant. Raise `ConfigError` before anything is stored when one of them cannot be."""
    if name and len(sources) != 1:
        raise ConfigError("--name is for one ad hoc source", hint="Name one path or URL with it.")
    if not sources and not context.config.sources:
        hint = "Name a database ('flybackup backup /data/app.duckdb'), or add [sources.NAME] to the configuration."
        raise ConfigError("there is nothing to back up: no source is configured and none was named", hint=hint)
    return [_named(context, each, name) for each in sources or context.config.sources]


def _named(context: Context, what: str, name: str | None) -> Named:
    if what in context.config.sources:
        if name:
            raise ConfigError(f"{what} is configured and has its name", hint="--name is for an ad hoc path or URL.")
        return Named(what, context.configured_source(what))
    found, source = context.ad_hoc_source(what)
    return Named(name or found, source)


def _back_up(context: Context, repository: Repository, named: Named, tags: Sequence[str]) -> Snapshot:
    with (
        context.scratch() as scratch,
        progress("backup", named.name, quiet=context.options.quiet) as on_progress,
    ):
        request = BackupRequest(named.name, tuple(tags), scratch)
        return back_up(repository, named.source, request, clock=context.clock, on_progress=on_progress)
