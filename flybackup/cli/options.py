"""The global options: they may stand before the command and after it, because people type them in both places."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click


@dataclass(slots=True)
class Options:
    """What was said on the command line, before the configuration is read."""

    config: Path | None = None
    repository: str | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False


class GlobalOption(click.Option):
    """An option that is noted in `Options`, wherever it stands, instead of being given to the command."""

    def __init__(self, *names: str, hidden: bool, **settings: Any) -> None:
        super().__init__(names, expose_value=False, callback=_note, hidden=hidden, **settings)


def global_options(*, hidden: bool) -> list[click.Option]:
    """Return the options anew (click binds them to their command). A later mention wins over an earlier one."""
    path = click.Path(path_type=Path, dir_okay=False)
    return [
        GlobalOption("-c", "--config", hidden=hidden, type=path, help="Configuration [flybackup.toml]."),
        GlobalOption("-r", "--repository", hidden=hidden, metavar="URL", help="Repository: s3://… or file:///…."),
        GlobalOption("--json", hidden=hidden, is_flag=True, help="One JSON document on stdout."),
        GlobalOption("-q", "--quiet", hidden=hidden, is_flag=True, help="No progress, no log; errors only."),
        GlobalOption("-v", "--verbose", hidden=hidden, is_flag=True, help="More log; tracebacks."),
    ]


def options_of(context: click.Context) -> Options:
    root = context.find_root()
    if root.obj is None:
        root.obj = Options()
    assert isinstance(root.obj, Options)
    return root.obj


def _note(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    # A flag that was not given says False, which must not undo one given before the command.
    if value and parameter.name:
        setattr(options_of(context), parameter.name, value)
