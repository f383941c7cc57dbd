"""`flybackup doctor`."""

from collections.abc import Iterator
from functools import partial

import click

from flybackup.cli.context import Context, with_context
from flybackup.cli.group import Command
from flybackup.cli.scratch import scratch_root
from flybackup.doctor import Finding, guarded
from flybackup.doctor.databases import database
from flybackup.doctor.machine import scratch, versions
from flybackup.doctor.storage import storage
from flybackup.errors import ConfigError
from flybackup.report.doctor import doctor_document, doctor_text, healthy


@click.command(cls=Command)
@with_context
def doctor(context: Context) -> int:
    """Look for everything that could make a backup or restore fail. Exit code 1 when there is an error.

    Writes and deletes small objects under probes/ in the store; changes nothing else.
    """
    findings = list(_findings(context))
    context.say(doctor_document(findings), doctor_text(findings))
    return 0 if healthy(findings) else 1


def _findings(context: Context) -> Iterator[Finding]:
    yield from versions()
    yield from guarded("scratch", lambda: _scratch(context))
    try:
        sources = context.config.sources
    except ConfigError as exc:
        yield from (Finding("error", "configuration", problem, exc.hint) for problem in str(exc).splitlines())
        return
    yield _configuration(list(sources))
    yield from guarded("store", lambda: storage(context.store(), context.clock))
    yield from guarded("repository", lambda: _repository(context))
    for name, source in sources.items():
        yield from guarded(name, partial(database, name, source, scratch_root(context.env)))


def _scratch(context: Context) -> Iterator[Finding]:
    with context.scratch() as directory:
        yield from scratch(directory)


def _configuration(sources: list[str]) -> Finding:
    if sources:
        return Finding("ok", "configuration", f"sources: {', '.join(sources)}")
    do = "Add [sources.NAME] to it, or name databases: flybackup backup FILE."
    return Finding("warning", "configuration", "no source is configured", do)


def _repository(context: Context) -> Iterator[Finding]:
    repository = context.repository()
    yield Finding("ok", "repository", f"opens (id {repository.id.hex()})")
    if repository.master is None:
        yield Finding("ok", "repository", "only the write key is here: backs up and lists, cannot restore")
    else:
        yield Finding("ok", "repository", "the restore key is here: backs up and restores")
