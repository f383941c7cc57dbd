"""`flybackup key …`: who can open the repository."""

import socket

import click

from flybackup.cli.context import Context, with_context
from flybackup.cli.group import Group
from flybackup.report.keys import keys_document, keys_text, slot_id


@click.group(cls=Group)
def key() -> None:
    """Manage passphrases, the write key, the recovery key."""


@key.command("list", short_help="List the passphrases that open this repository.")
@with_context
def list_(context: Context) -> None:
    """List the passphrases that open this repository (not the passphrases themselves)."""
    slots = list(context.repository().slots())
    context.say(keys_document(slots), keys_text(slots, zone=context.zone))


@key.command(short_help="Add a passphrase.")
@click.option("--label", metavar="NAME", help="What to call it [this machine's name].")
@with_context
def add(context: Context, *, label: str | None) -> None:
    """Add a passphrase: from FLYBACKUP_NEW_PASSPHRASE, its _FILE twin, or asked for twice."""
    repository = context.repository()
    passphrase = context.new_passphrase("FLYBACKUP_NEW_PASSPHRASE")
    label = label or socket.gethostname()
    added = slot_id(repository.add_passphrase(passphrase, label=label, now=context.clock.now()))
    context.say({"added": added, "label": label}, [f"Added {added[:8]} ({label})."])


@key.command(short_help="Remove a passphrase.")
@click.argument("id_prefix", metavar="ID")
@with_context
def remove(context: Context, *, id_prefix: str) -> None:
    """Remove the passphrase with this ID (see key list); the last one stays.

    Whoever knew it may have kept the keys it opened: for a passphrase that leaked, make a new repository.
    """
    removed = slot_id(context.repository().remove_slot(id_prefix))
    context.say({"removed": removed}, [f"Removed {removed[:8]}."])


@key.command("write-key", short_help="Print the write key, for agents that only back up.")
@with_context
def write_key(context: Context) -> None:
    """Print the write key: it lets an agent back up, list and see facts, but not read data.

    Only the key goes to stdout: fly secrets set FLYBACKUP_WRITE_KEY="$(flybackup key write-key)"
    """
    text = context.repository().write_key.text()
    context.say({"write_key": text}, [text])


@key.command(short_help="Print the recovery key again.")
@with_context
def recovery(context: Context) -> None:
    """Print the recovery key again; needs the passphrase. Only the key goes to stdout."""
    text = context.repository().require_master("printing the recovery key").recovery_text()
    context.say({"recovery_key": text}, [text])
