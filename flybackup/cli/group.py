"""The commands there are. Each is imported when it is used; what it is for is known before."""

import importlib
from typing import Any, NamedTuple, Self

import click

from flybackup import __version__
from flybackup.cli.options import global_options

_EPILOG = "The global options may stand before or after the command. 'flybackup COMMAND --help' tells more."


class Place(NamedTuple):
    """Where a command is defined: `module` under `flybackup.cli`, and its name there."""

    module: str
    name: str
    purpose: str


COMMANDS = {
    "init": Place("init", "init", "Make a repository and print its recovery key, once."),
    "backup": Place("backup", "backup", "Take a snapshot of sources."),
    "snapshots": Place("snapshots", "snapshots", "List snapshots, newest first."),
    "show": Place("snapshots", "show", "Show one snapshot: entries, tables, sizes."),
    "restore": Place("restore", "restore", "Restore a snapshot; it is verified before it takes its place."),
    "verify": Place("restore", "verify", "Compare a database with a snapshot."),
    "forget": Place("forget", "forget", "Remove snapshots by the retention policy; says why the others stay."),
    "check": Place("check", "check", "Check what is stored; with --read-data every byte."),
    "key": Place("key", "key", "Manage passphrases, the write key, the recovery key."),
    "config": Place("config", "config", "Validate or show the configuration."),
    "doctor": Place("doctor", "doctor", "Look for everything that could make a backup or restore fail."),
    "demo": Place("demo", "demo", "The whole story on this machine, without any service."),
}


class Command(click.Command):
    """A command that also takes the global options."""

    _EPILOG = "The global options -c, -r, --json, -q, -v may stand here too: see flybackup --help."

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"epilog": self._EPILOG, **kwargs})
        self.params += global_options(hidden=True)


class Group(click.Group):
    """A group of commands that takes the global options, and so do its commands."""

    command_class: type[click.Command] | None = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += global_options(hidden=True)


class LazyGroup(click.Group):
    """The program itself: knows its commands by name and purpose, and imports the one that is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  likewise
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        command = getattr(importlib.import_module(f"flybackup.cli.{place.module}"), place.name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  likewise
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.purpose) for name, place in COMMANDS.items()])

    @classmethod
    def program(cls) -> Self:
        return cls(
            "flybackup",
            params=[*global_options(hidden=False), _version_option()],
            help="Back up databases and volumes, and prove that what comes back is what was there.",
            epilog=_EPILOG,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        )


def _version_option() -> click.Option:
    return click.Option(
        ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
    )


def _version(context: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: ARG001  likewise
    if value and not context.resilient_parsing:
        click.echo(f"flybackup {__version__}")
        context.exit()
