"""A table as a value, so that what is shown is decided apart from how."""

from collections.abc import Sequence
from dataclasses import dataclass

Row = tuple[str, ...]
GAP = "  "


@dataclass(frozen=True, slots=True)
class Table:
    """A column whose heading begins with `>` holds numbers, aligned to the right; with `=`, what must stay on one line
    (an id, a time). Other columns may be folded. `marked` rows are those to look at."""

    columns: tuple[str, ...]
    rows: Sequence[Row]
    marked: frozenset[int] = frozenset()

    @property
    def headings(self) -> Row:
        return tuple(column.lstrip(">=") for column in self.columns)

    def is_number(self, column: int) -> bool:
        return self.columns[column].startswith(">")

    def is_whole(self, column: int) -> bool:
        return self.columns[column].startswith((">", "="))


Block = str | Table
"""What a report is made of: paragraphs and tables."""


def plain(table: Table) -> str:
    """Return the table as lines of aligned columns, of whatever width it needs: for files and pipes."""
    lines = [table.headings, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.columns))]
    return "\n".join(_line(table, line, widths) for line in lines)


def _line(table: Table, line: Row, widths: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if table.is_number(column) else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
    return GAP.join(cells).rstrip()
