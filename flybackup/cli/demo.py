"""`flybackup demo`."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from flybackup.cli.context import Context, with_context
from flybackup.cli.group import Command
from flybackup.demo.story import Story
from flybackup.errors import RefusedError
from flybackup.report.demo import demo_document, demo_text


@click.command(cls=Command)
@click.option(
    "--rows",
    metavar="N",
    type=click.IntRange(min=1000),
    default=3_000_000,
    show_default=True,
    help="About so many rows.",
)
@click.option(
    "--keep", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Leave everything in DIR."
)
@with_context
def demo(context: Context, *, rows: int, keep: Path | None) -> int:
    """Tell the whole story on this machine, without any service.

    Makes a DuckDB database that a process keeps writing to, backs it up twice, destroys it, restores and verifies it:
    with the commands that you would use.
    """
    # With --json stdout is for the document alone; narration and the commands' own words go to stderr then.
    narration = sys.stderr if context.options.json else sys.stdout

    def say(sentence: str) -> None:
        narration.write(f"{sentence}\n")
        narration.flush()

    with _directory(keep) as directory:
        story = Story(directory, say, narration.fileno())
        outcome = story.tell(rows)
        context.say(demo_document(outcome), demo_text(outcome, keep and directory, story.settings, _program()))
    return 0 if outcome.ok else 1


@contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="flybackup-demo-") as directory:
            yield Path(directory)
        return
    if keep.exists() and any(keep.iterdir()):
        raise RefusedError(f"{keep} is not empty", hint="Name a directory that does not exist yet, or remove it.")
    keep.mkdir(parents=True, exist_ok=True, mode=0o700)
    yield keep.absolute()


def _program() -> str:
    """Return how to call this program: by its name where the shell finds it, else as it was called."""
    called = Path(sys.argv[0])
    on_path = shutil.which("flybackup")
    return "flybackup" if on_path or called.name != "flybackup" else str(called)
