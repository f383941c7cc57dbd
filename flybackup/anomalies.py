"""What a snapshot has lost since the one before it: a warning that a good one must not make way for a bad one.

Pure. A snapshot is compared with the one before it whether either is partial or not:

- before: what a partial one counts it holds, so what is missing now was lost since. A volume with one file that can
  never be read is partial every night, and would else never be looked at.
- now: what could not be read is missing from it all the same, and a restore would not bring it back. The mark keeps the
  last good one, which is what that needs.

What turns over by design (a queue that was worked off) is marked too. That costs a warning and one kept snapshot.
"""

from collections.abc import Iterator

from flybackup.model import Facts


def anomalies(before: Facts | None, now: Facts, *, size_bytes: int) -> tuple[str, ...]:
    """Return what speaks against a snapshot, a sentence each: the worst first, tables by name.

    *before* is None for a first snapshot and after one of another kind: then only emptiness can be seen. *size_bytes*
    is the size of all entries together.
    """
    lost = [] if before is None else [*_lost_tables(before, now), *_lost_rows(before, now), *_lost_files(before, now)]
    return (*_empty(now, size_bytes), *lost)


def _empty(now: Facts, size_bytes: int) -> Iterator[str]:
    if now.files == 0:
        yield "empty: no files"
    elif size_bytes == 0:
        yield "empty: not one byte of data"
    elif now.files is None and now.engine and not any(table.rows for table in now.tables.values()):
        # An engine's tables were counted: without the name of one, nobody looked.
        yield f"empty: no rows in any of its {len(now.tables):,} tables" if now.tables else "empty: no tables"


def _lost_tables(before: Facts, now: Facts) -> Iterator[str]:
    for name in sorted(before.tables.keys() - now.tables.keys()):
        yield f"{name}: the table is gone, {_count(before.tables[name].rows, 'row')} before"


def _lost_rows(before: Facts, now: Facts) -> Iterator[str]:
    for name in sorted(before.tables.keys() & now.tables.keys()):
        rows, rows_before = now.tables[name].rows, before.tables[name].rows
        if _more_than_half(rows_before, rows):
            yield f"{name}: {_count(rows, 'row')}, {rows_before:,} before"


def _lost_files(before: Facts, now: Facts) -> Iterator[str]:
    # A source that no longer counts files is another kind of source, which is not compared at all.
    if before.files is not None and now.files is not None and _more_than_half(before.files, now.files):
        yield f"files: {_count(now.files, 'file')}, {before.files:,} before"


def _more_than_half(before: int, now: int) -> bool:
    return 2 * now < before


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
