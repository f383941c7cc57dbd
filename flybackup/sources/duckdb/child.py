"""The process in which DuckDB runs: `python -m flybackup.sources.duckdb.child`, jobs in and results out as JSON lines.

A bad database can crash DuckDB (SIGSEGV was seen), so it never runs inside flybackup itself. The child opens files
READ_ONLY, may load no extension and touch no other file, and has a memory limit. It imports little, so that it is
ready when the blocks are.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import duckdb

from flybackup.model import table_key
from flybackup.sources.duckdb import extraction
from flybackup.sources.duckdb.connecting import attach, quoted, restricted
from flybackup.sources.duckdb.snapshotfs import (
    DATABASE,
    PROTOCOL,
    LayeredFile,
    Layers,
    LogFile,
    SnapshotFile,
    SnapshotFileSystem,
)

Job = dict[str, Any]
Result = dict[str, Any]


def main() -> None:
    """Answer jobs from stdin until it ends. What libraries print goes to stderr: stdout is for results only."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()
    os._exit(0)  # DuckDB's own clean-up has nothing to save here


def _answer(job: Job) -> Result:
    try:
        return {"measure_layers": _measure_layers, "measure_file": _measure_file, "extract": extraction.extract}[
            job["job"]
        ](job)
    except duckdb.Error as exc:
        return {"error": f"{type(exc).__name__}: {exc}"}
    except OSError as exc:
        return {"error": f"{exc.strerror}: {exc.filename}"}


def _measure_layers(job: Job) -> Result:
    """Measure the snapshot made of kept blocks, the live file and copied logs."""
    layers = Layers(
        live_fd=job["live_fd"],
        kept_fd=os.open(job["kept"], os.O_RDONLY | os.O_CLOEXEC),
        kept_map=Path(job["kept_map"]).read_bytes(),
        block_bytes=job["block_bytes"],
        size=job["size"],
    )
    database = LayeredFile(layers)
    files: dict[str, SnapshotFile] = {DATABASE + suffix: LogFile(Path(path)) for suffix, path in job["logs"].items()}
    files[DATABASE] = database
    with duckdb.connect(":memory:") as con:
        con.register_filesystem(SnapshotFileSystem(files))
        restricted(con, job, [f"{PROTOCOL}://"])
        attach(con, f"{PROTOCOL}://{DATABASE}", "snapshot", "READ_ONLY")
        tables = _measure(con, checksums=job["checksums"])
    return {"tables": tables, "live_blocks": _ranges(database.live_blocks)}


def _measure_file(job: Job) -> Result:
    """Measure the database file at a path that nobody else uses."""
    with duckdb.connect(":memory:") as con:
        restricted(con, job, [str(Path(job["path"]).parent) + "/"])
        attach(con, job["path"], "snapshot", "READ_ONLY")
        return {"tables": _measure(con, checksums=job["checksums"]), "live_blocks": []}


def _measure(con: duckdb.DuckDBPyConnection, *, checksums: bool) -> dict[str, tuple[int, str | None]]:
    """Count the rows of every table, and digest its content when asked."""
    return {
        table_key(schema, table): _measure_table(con, schema, table, checksums=checksums)
        for schema, table in extraction.tables_of(con, "snapshot")
    }


def _measure_table(
    con: duckdb.DuckDBPyConnection, schema: str, table: str, *, checksums: bool
) -> tuple[int, str | None]:
    name = f"snapshot.{quoted(schema)}.{quoted(table)}"
    if not checksums:
        return int(_row(con, f"SELECT count(*) FROM {name}")[0]), None  # noqa: S608 - quoted identifiers
    columns = ", ".join(quoted(column) for column in _columns(con, schema, table))
    # Sum and exclusive or of row hashes: neither depends on the order of rows, together they miss no swapped pair.
    rows, total, parity = _row(
        con,
        f"SELECT count(*), coalesce(sum(h), 0), coalesce(bit_xor(h), 0) FROM (SELECT hash({columns}) AS h FROM {name})",  # noqa: S608
    )
    return int(rows), f"{int(total):x}.{int(parity):x}"


def _columns(con: duckdb.DuckDBPyConnection, schema: str, table: str) -> list[str]:
    """Return the columns that hold data: a generated one may give another value at every reading."""
    found = con.execute(
        "SELECT column_name FROM duckdb_columns() WHERE database_name = 'snapshot' AND schema_name = ? "
        "AND table_name = ? AND NOT is_generated ORDER BY column_index",
        [schema, table],
    )
    return [str(name) for (name,) in found.fetchall()]


def _row(con: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    row = con.execute(sql).fetchone()
    assert row is not None
    return row


def _ranges(mask: bytearray) -> list[tuple[int, int]]:
    """Return the runs of ones as [first, last) pairs."""
    found, at = [], mask.find(1)
    while at >= 0:
        end = mask.find(0, at)
        end = len(mask) if end < 0 else end
        found.append((at, end))
        at = mask.find(1, end)
    return found


if __name__ == "__main__":
    main()
