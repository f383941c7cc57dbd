"""`flybackup snapshots` and `flybackup show`: what is in the repository."""

from collections.abc import Sequence

import click

from flybackup.cli.context import Context, with_context
from flybackup.cli.group import Command
from flybackup.operations.select import newest_first, select
from flybackup.reading import Reader
from flybackup.report.documents import show_document, snapshots_document
from flybackup.report.texts import show_text, snapshots_text


@click.command(cls=Command)
@click.option("--source", metavar="NAME", help="Only of this source.")
@click.option(
    "--tag", "tags", metavar="TAG", multiple=True, help="Only with this tag; may be repeated: with all of them."
)
@click.option("--set", "set_id", metavar="SET", default="", help="Only of this set: its id, or how that begins.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="At most so many.")
@with_context
def snapshots(context: Context, *, source: str | None, tags: Sequence[str], set_id: str, limit: int | None) -> None:
    """List snapshots, newest first."""
    found = list(newest_first(context.repository(), source=source, tags=tags, set_id=set_id.lower(), limit=limit))
    chosen = bool(source or tags or set_id)
    context.say(snapshots_document(found), snapshots_text(found, zone=context.zone, chosen=chosen))


@click.command(cls=Command)
@click.argument("snapshot")
@with_context
def show(context: Context, *, snapshot: str) -> None:
    """Show one snapshot: its entries, tables with row counts, sizes, how it was captured.

    A SNAPSHOT is an id or a unique prefix of one, SOURCE (its newest), or SOURCE@2026-11-20T03:00 (the newest at or
    before that time).
    """
    repository = context.repository()
    found = select(repository, snapshot, timezone=context.zone)
    with Reader(repository, repository.load_index()) as reader:
        entries = [each.entry for each in reader.entries(found)]
    context.say(show_document(found, entries), show_text(found, entries, zone=context.zone, now=context.clock.now()))
