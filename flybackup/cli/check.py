"""`flybackup check`."""

import click

from flybackup.cli.context import Context, with_context
from flybackup.cli.group import Command
from flybackup.cli.progress import progress
from flybackup.errors import IntegrityError
from flybackup.operations.check import check as check_repository
from flybackup.report.documents import check_document
from flybackup.report.texts import check_text


@click.command(cls=Command)
@click.option("--read-data", is_flag=True, help="Read and verify every stored byte.")
@with_context
def check(context: Context, *, read_data: bool) -> int:
    """Check that every snapshot can be restored: the structure, and with --read-data every byte.

    Changes nothing. Exit code 21 when something is damaged; the report names the snapshots that need it.
    """
    repository = context.repository()
    with progress("check", "repository", quiet=context.options.quiet) as on_progress:
        report = check_repository(repository, read_data=read_data, on_progress=on_progress)
    context.say(check_document(report), check_text(report, read_data=read_data))
    return 0 if report.ok else IntegrityError.exit_code
