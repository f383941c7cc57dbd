"""A database file with only some tables of another one: runs in the child.

The whole schema is copied, so that types, sequences, constraints and indexes come along, then what was not asked for
is dropped and the rows are inserted. Foreign keys decide the order, so each step goes round until nothing moves.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import duckdb

from flybackup.model import table_key
from flybackup.sources.duckdb.connecting import attach, literal, quoted, restricted

Table = tuple[str, str]

_STORAGE_VERSIONS = {64: "v1.0.0", 65: "v1.2.0", 66: "v1.3.0", 67: "v1.4.0", 68: "v1.5.0", 69: "v2.0.0"}


def tables_of(con: duckdb.DuckDBPyConnection, database: str) -> list[Table]:
    found = con.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = ? AND NOT internal ORDER BY 1, 2",
        [database],
    )
    return [(str(schema), str(table)) for schema, table in found.fetchall()]


def extract(job: dict[str, Any]) -> dict[str, Any]:
    """Copy the tables named in *job* from `path` to the new file `target`, in the same storage version if possible."""
    with duckdb.connect(":memory:") as con:
        restricted(con, job, [str(Path(job[key]).parent) + "/" for key in ("path", "target")])
        attach(con, job["path"], "snapshot", "READ_ONLY")
        there = tables_of(con, "snapshot")
        wanted, unknown = _chosen(there, job["tables"])
        if unknown:
            names = ", ".join(sorted(table_key(*table) for table in there))
            return {"refused": f"the snapshot has no table {', '.join(unknown)}", "hint": f"It has: {names}"}
        attach(con, job["target"], "extract", *_same_format(job["block_bytes"], job["storage_version"]))
        refusal = _fill(con, [table for table in there if table not in wanted], wanted)
        con.execute("DETACH extract")
        return refusal


def _fill(con: duckdb.DuckDBPyConnection, unwanted: list[Table], wanted: list[Table]) -> dict[str, Any]:
    con.execute("COPY FROM DATABASE snapshot TO extract (SCHEMA)")
    _drop_views(con)
    left = _until_done(unwanted, lambda table: _drop(con, table))
    if left:
        return _needed_refusal(left)
    left = _until_done(wanted, lambda table: _copy_rows(con, table))
    if left:
        return {"refused": f"could not fill {table_key(*left[0])}", "hint": "Restore all of the snapshot instead."}
    return {}


def _chosen(there: list[Table], names: Iterable[str]) -> tuple[list[Table], list[str]]:
    """Return the tables that *names* mean (`schema.table`, or a bare name in any schema), and the names without one."""
    wanted: list[Table] = []
    unknown: list[str] = []
    for name in names:
        found = [table for table in there if name in (table_key(*table), table[1])]
        wanted += [table for table in found if table not in wanted]
        unknown += [] if found else [name]
    return wanted, unknown


def _same_format(block_bytes: int, storage_version: int) -> list[str]:
    version = _STORAGE_VERSIONS.get(storage_version)
    return [f"BLOCK_SIZE {block_bytes}", *([f"STORAGE_VERSION {literal(version)}"] if version else [])]


def _drop_views(con: duckdb.DuckDBPyConnection) -> None:
    """A view over tables that are not there would only fail later."""
    found = con.execute(
        "SELECT schema_name, view_name FROM duckdb_views() WHERE database_name = 'extract' AND NOT internal"
    )
    for schema, view in found.fetchall():
        con.execute(f"DROP VIEW IF EXISTS extract.{quoted(schema)}.{quoted(view)}")


def _drop(con: duckdb.DuckDBPyConnection, table: Table) -> None:
    con.execute(f"DROP TABLE extract.{_dotted(table)}")


def _copy_rows(con: duckdb.DuckDBPyConnection, table: Table) -> None:
    name = _dotted(table)
    columns = ", ".join(_stored_columns(con, table))
    con.execute(f"INSERT INTO extract.{name} ({columns}) SELECT {columns} FROM snapshot.{name}")  # noqa: S608 - quoted


def _stored_columns(con: duckdb.DuckDBPyConnection, table: Table) -> list[str]:
    """Return the quoted columns that hold data: a generated one is computed again."""
    found = con.execute(
        "SELECT column_name FROM duckdb_columns() WHERE database_name = 'snapshot' AND schema_name = ? "
        "AND table_name = ? AND NOT is_generated ORDER BY column_index",
        list(table),
    )
    return [quoted(str(name)) for (name,) in found.fetchall()]


def _dotted(table: Table) -> str:
    return f"{quoted(table[0])}.{quoted(table[1])}"


def _until_done(tables: Iterable[Table], step: Callable[[Table], None]) -> list[Table]:
    """Apply *step* to each table, those that foreign keys hold back again later. Return what could not be done."""
    left = list(tables)
    while left:
        failed = [table for table in left if not _try(step, table)]
        if len(failed) == len(left):
            return failed
        left = failed
    return []


def _try(step: Callable[[Table], None], table: Table) -> bool:
    try:
        step(table)
    except (duckdb.ConstraintException, duckdb.CatalogException, duckdb.DependencyException):
        return False
    return True


def _needed_refusal(left: list[Table]) -> dict[str, Any]:
    names = ", ".join(table_key(*table) for table in left)
    return {
        "refused": f"the tables asked for have foreign keys to {names}",
        "hint": "Ask for those tables as well (--table), or restore all of the snapshot.",
    }
