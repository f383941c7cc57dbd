"""`flybackup restore` and `flybackup verify`."""

from collections.abc import Sequence

import click

from flybackup.app import source_at
from flybackup.cli.context import Context, with_context
from flybackup.cli.group import Command
from flybackup.cli.progress import progress
from flybackup.cli.restore_set import SetOptions, refuse_with_set, restore_whole_set
from flybackup.cli.targets import absolute
from flybackup.config import redact_url
from flybackup.errors import VerificationError
from flybackup.operations.restore import RestoreRequest, restore as restore_snapshot
from flybackup.operations.select import select
from flybackup.operations.verify import verify as verify_target
from flybackup.report.documents import restore_document
from flybackup.report.restoration import restore_text, verify_text
from flybackup.sources import RestoreOptions


@click.command(cls=Command)
@click.argument("snapshot", required=False)
@click.option("--to", "targets", metavar="TARGET", multiple=True, help="A file, a directory for a volume, or a URL.")
@click.option("--set", "set_", metavar="SET", help="All snapshots of a set, each to where it is configured to be.")
@click.option("--replace", is_flag=True, help="Replace what is there; it is kept aside.")
@click.option(
    "--table", "tables", metavar="NAME", multiple=True, help="Only this table (schema.table); may be repeated."
)
@click.option(
    "--only",
    metavar="PATTERN",
    multiple=True,
    help="Only this of a volume, as in a .gitignore; may be repeated.",
)
@click.option(
    "--jobs", metavar="N", type=click.IntRange(1, 64), default=1, help="Connections or threads the target gets [1]."
)
@click.option("--dry-run", is_flag=True, help="Read the snapshot, write nothing.")
@click.option("--no-verify", "verify", is_flag=True, flag_value=False, default=True, help="Move into place unverified.")
@with_context
def restore(
    context: Context,
    *,
    snapshot: str | None,
    targets: Sequence[str],
    set_: str | None,
    replace: bool,
    tables: Sequence[str],
    only: Sequence[str],
    jobs: int,
    dry_run: bool,
    verify: bool,
) -> int:
    """Restore SNAPSHOT beside the target, verify it, then move it into place.

    A SNAPSHOT is an id or a unique prefix of one, SOURCE (its newest), or SOURCE@2026-11-20T03:00 (the newest at or
    before that time). An existing target is refused without --replace. Exit code 23: what was read did not verify,
    and the target was not touched.

    With --set in place of SNAPSHOT all of a set come back, or none: SET is its id, or one of its snapshots. Each goes
    where its source is configured to be, or to what --to NAME=TARGET says, which may be repeated.
    """
    options = RestoreOptions(replace=replace, tables=tables, only=only, jobs=jobs)
    if set_ is not None:
        refuse_with_set(snapshot, tables, only)
        return restore_whole_set(context, set_, targets, SetOptions(options, verify=verify, dry_run=dry_run))
    snapshot, target = one_snapshot_and_target(snapshot, targets)
    repository = context.repository()
    found = select(repository, snapshot, timezone=context.zone)
    target = absolute(target)
    place = source_at(found.kind, target)
    with (
        context.scratch() as scratch,
        progress("restore", found.source, quiet=context.options.quiet) as on_progress,
    ):
        shown = redact_url(target)
        request = RestoreRequest(shown, scratch, options, verify=verify, dry_run=dry_run)
        report = restore_snapshot(repository, found, place, request, clock=context.clock, on_progress=on_progress)
    text = restore_text(report, found, zone=context.zone, now=context.clock.now(), dry_run=dry_run)
    context.say(restore_document(report), text)
    return VerificationError.exit_code if report.differs else 0


@click.command(cls=Command)
@click.argument("snapshot")
@click.argument("target")
@with_context
def verify(context: Context, *, snapshot: str, target: str) -> int:
    """Measure TARGET and compare it with what was measured when SNAPSHOT was taken. Changes neither.

    Exit code 23 when they differ.
    """
    found = select(context.repository(), snapshot, timezone=context.zone)
    target = absolute(target)
    place = source_at(found.kind, target)
    with context.scratch() as scratch, progress("verify", found.source, quiet=context.options.quiet):
        shown = redact_url(target)
        report = verify_target(found, place, target=shown, scratch=scratch, clock=context.clock)
    context.say(restore_document(report), verify_text(report, found, zone=context.zone))
    return 0 if report.verified else VerificationError.exit_code


def one_snapshot_and_target(snapshot: str | None, targets: Sequence[str]) -> tuple[str, str]:
    """Return what is restored alone, and where to. Raise a usage error."""
    if snapshot is None:
        raise click.UsageError("Missing argument 'SNAPSHOT', or --set SET.")
    if len(targets) != 1:
        raise click.UsageError("Missing option '--to'." if not targets else "A snapshot alone goes to one --to TARGET.")
    return snapshot, targets[0]
