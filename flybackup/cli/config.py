"""`flybackup config validate` and `flybackup config show`."""

import json

import click

from flybackup.cli.context import Context, with_context
from flybackup.cli.group import Group
from flybackup.config import redacted
from flybackup.errors import ConfigError


@click.group(cls=Group)
def config() -> None:
    """Validate or show the configuration: the file, completed by the environment."""


@config.command()
@with_context
def validate(context: Context) -> int:
    """Print everything that is wrong with the configuration. Exit code 2 when something is."""
    problems = _problems(context)
    if problems:
        context.say({"ok": False, "problems": problems}, [f"- {problem}" for problem in problems])
        return ConfigError.exit_code
    context.say(
        {"ok": True, "problems": []}, ["The configuration is right. 'flybackup doctor' tries whether it works."]
    )
    return 0


def _problems(context: Context) -> list[str]:
    try:
        _ = context.config
    except ConfigError as exc:
        return str(exc).splitlines()
    return []


@config.command()
@with_context
def show(context: Context) -> None:
    """Print what is in effect, secrets redacted."""
    document = redacted(context.config)
    context.say(document, [json.dumps(document, indent=2, ensure_ascii=False)])
