"""A database file with only some tables of another one, their indexes, and their rows under the same rowids."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from flybackup.errors import RefusedError
from flybackup.sources.sqlite.connecting import quoted, scratch_connection, sqlite_errors
from flybackup.sources.sqlite.measuring import Table, key_of, tables_of


def extract_tables(whole: Path, target: Path, names: Iterable[str]) -> None:
    """Drop from *whole*, a copy of ours, all but the tables *names* mean and write what is left to the new *target*.

    What names other things goes: views and triggers. Raise `RefusedError` for a table that is not there, `SourceError`.
    """
    hint = "Restore all of the snapshot, and copy the tables from there."
    with (
        sqlite_errors("SQLite cannot take single tables out of the snapshot", hint=hint),
        scratch_connection(whole) as con,
    ):
        wal = con.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        con.execute("PRAGMA journal_mode = OFF")
        there = tables_of(con)
        wanted = _chosen(there, names)
        _drop_code(con)
        for table in there:
            if table not in wanted:
                _drop(con, table)
        con.execute("VACUUM INTO ?", [str(target)])
    if wal:
        with sqlite_errors("SQLite cannot set the journal mode of the new file"), scratch_connection(target) as con:
            con.execute("PRAGMA journal_mode = WAL")


def _chosen(there: list[Table], names: Iterable[str]) -> list[Table]:
    """Return the tables that *names* mean: `main.table`, or the bare name."""
    wanted = []
    for name in names:
        found = [table for table in there if name in (key_of(table), table.name)]
        if not found:
            known = ", ".join(map(key_of, there)) or "none"
            raise RefusedError(f"the snapshot has no table {name}", hint=f"It has: {known}")
        wanted += found
    return wanted


def _drop_code(con: sqlite3.Connection) -> None:
    found = con.execute("SELECT type, name FROM sqlite_schema WHERE type IN ('trigger', 'view')").fetchall()
    for kind, name in found:
        con.execute(f"DROP {kind} IF EXISTS {quoted(name)}")


def _drop(con: sqlite3.Connection, table: Table) -> None:
    """Drop *table*; of a virtual one whose module is not here only the entry, it has nothing else."""
    try:
        con.execute(f"DROP TABLE IF EXISTS {quoted(table.name)}")
    except sqlite3.OperationalError:
        if table.module is None:
            raise
        con.execute("PRAGMA writable_schema = ON")
        con.execute("DELETE FROM sqlite_schema WHERE type = 'table' AND rootpage = 0 AND name = ?", [table.name])
        con.execute("PRAGMA writable_schema = RESET")
