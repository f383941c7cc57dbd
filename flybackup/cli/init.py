"""`flybackup init`."""

import socket

import click

from flybackup.cli.context import Context, with_context
from flybackup.cli.group import Command
from flybackup.report.keys import init_document, init_text
from flybackup.repository import create
from flybackup.stores.conditional import prove_conditional_create


@click.command(cls=Command)
@with_context
def init(context: Context) -> None:
    """Make a repository and print its recovery key, once.

    The passphrase comes from FLYBACKUP_PASSPHRASE, from the file that FLYBACKUP_PASSPHRASE_FILE names, or is asked for.
    Refuses (24) where a repository exists.
    """
    store = context.store()
    passphrase = context.new_passphrase()
    prove_conditional_create(store)
    repository = create(store, passphrase, label=socket.gethostname(), now=context.clock.now())
    master = repository.require_master("printing the recovery key")
    recovery_key = master.recovery_text()
    context.say(init_document(repository, recovery_key), init_text(repository, recovery_key))
