"""How things look on a terminal. The only place that knows rich, which is imported when a terminal is there."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flybackup.escapes import harmless
from flybackup.model import OnProgress, Progress
from flybackup.report.table import Block, Table, plain
from flybackup.report.units import human_bytes

if TYPE_CHECKING:
    from rich.table import Table as RichTable

_REFRESHES_PER_SECOND = 5


def print_blocks(blocks: Iterable[Block]) -> None:
    """Write paragraphs and tables to stdout: tables fitted to the terminal, plain columns where there is none."""
    fitted = sys.stdout.isatty() and _print_fitted
    for block in blocks:
        if isinstance(block, str):
            sys.stdout.write(f"{harmless(block)}\n")
        elif fitted:
            fitted(block)
        else:
            sys.stdout.write(f"{harmless(plain(block))}\n")


def _print_fitted(table: Table) -> None:
    from rich.console import Console  # noqa: PLC0415  costs 50 ms, and only terminals need it

    Console(highlight=False).print(_rich(table))


def _rich(table: Table) -> "RichTable":
    from rich.table import Table as RichTable  # noqa: PLC0415  likewise
    from rich.text import Text  # noqa: PLC0415  likewise

    fitted = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column, heading in enumerate(table.headings):
        number = table.is_number(column)
        fitted.add_column(
            heading, justify="right" if number else "left", no_wrap=table.is_whole(column), overflow="fold"
        )
    for at, row in enumerate(table.rows):
        # A Text, not a str: names in square brackets are no markup.
        fitted.add_row(*(Text(harmless(cell)) for cell in row), style="bold red" if at in table.marked else "")
    return fitted


@contextmanager
def progress_line(title: str) -> Iterator[OnProgress]:
    """Show one line on stderr while the block runs: bytes, rate, time left where the total is known. Then remove it."""
    from rich import progress as rich  # noqa: PLC0415  likewise
    from rich.console import Console  # noqa: PLC0415  likewise

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(bar_width=20),
        rich.TextColumn("{task.fields[amount]}"),
        rich.TimeRemainingColumn(compact=True),
    )
    console = Console(stderr=True)
    with rich.Progress(*columns, console=console, transient=True, refresh_per_second=_REFRESHES_PER_SECOND) as shown:
        task = shown.add_task(title, total=None, amount="")

        def update(progress: Progress) -> None:
            rate = shown.tasks[0].speed
            amount = human_bytes(progress.done_bytes) + (f", {human_bytes(rate)}/s" if rate else "")
            shown.update(task, completed=progress.done_bytes, total=progress.total_bytes, amount=amount)

        yield update
