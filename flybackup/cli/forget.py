"""`flybackup forget`."""

import click

from flybackup.cli.context import Context, with_context
from flybackup.cli.group import Command
from flybackup.operations.forget import forget as carry_out, plan_forgetting
from flybackup.report.documents import forget_document
from flybackup.report.forgetting import forget_text
from flybackup.stores.discarding import DiscardingStore


@click.command(cls=Command)
@click.option("--source", metavar="NAME", help="Only of this source.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed and why; remove nothing.")
@click.option("--yes", is_flag=True, help="Also when more than half of a source's snapshots would go.")
@with_context
def forget(context: Context, *, source: str | None, dry_run: bool, yes: bool) -> None:
    """Remove the snapshots that the retention policy of their source does not keep, and say why the others stay.

    Policies are [sources.NAME.retention] in the configuration; without one everything of a source stays. Exit code 24,
    and nothing is removed, when more than half of a source's snapshots would go: look with --dry-run, then say --yes.
    """
    repository = context.repository()
    if dry_run:
        repository = repository.with_store(DiscardingStore(repository.store, context.clock))
    policies = {name: each.retention for name, each in context.config.sources.items()}
    plan = plan_forgetting(repository, policies, source=source, zone=context.zone)
    if not dry_run:
        carry_out(repository, plan, even_most=yes)
    context.say(
        forget_document(plan, dry_run=dry_run, even_most=yes),
        forget_text(plan, zone=context.zone, dry_run=dry_run, even_most=yes),
    )
