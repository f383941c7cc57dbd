"""The application of the demo: it makes a DuckDB database, keeps writing to it, and counts its rows.

    python -m flybackup.demo.application make PATH ROWS
    python -m flybackup.demo.application work PATH          says "working" after its first commit, goes on until killed
    python -m flybackup.demo.application count PATH         prints {"main.scores": rows, …}

It is no part of flybackup, which never opens the live file with DuckDB: that is why it imports duckdb itself.
"""

import json
import sys
import time
from pathlib import Path

import duckdb

_MATCHES_PER_PLAYER = 24
_SCORES_PER_MATCH = 5
_PAUSE_SECONDS = 0.02
_ROUNDS_PER_CHECKPOINT = 10


def make(path: Path, rows: int) -> None:
    """Make three tables with about *rows* rows in all."""
    matches = max(1, rows * _MATCHES_PER_PLAYER // (1 + _MATCHES_PER_PLAYER * (1 + _SCORES_PER_MATCH)))
    players = max(1, matches // _MATCHES_PER_PLAYER)
    scores = max(1, rows - matches - players)
    with duckdb.connect(str(path)) as con:
        con.execute(
            "CREATE TABLE players AS SELECT i AS id, 'player ' || hash(i) AS name FROM range(?) t(i)", [players]
        )
        con.execute(
            "CREATE TABLE matches AS SELECT i AS id, i % ? AS player, "
            "TIMESTAMP '2026-01-01' + i * INTERVAL 1 MINUTE AS played, (hash(i) % 3)::TINYINT AS result "
            "FROM range(?) t(i)",
            [players, matches],
        )
        con.execute(
            "CREATE TABLE scores AS SELECT i AS id, i % ? AS match, hash(i) % 1000 AS points, "
            "hash(i * 7) / 1e15 AS seconds FROM range(?) t(i)",
            [matches, scores],
        )


def work(path: Path) -> None:
    """Insert, update and checkpoint for ever, as fast as a busy application and no faster."""
    with duckdb.connect(str(path)) as con:
        done = 0
        while True:
            con.execute(
                "INSERT INTO scores SELECT i + ?, i, hash(i) % 1000, 1.5 FROM range(200) t(i)", [10**9 + done * 200]
            )
            con.execute("UPDATE matches SET result = (result + 1) % 3 WHERE id % 5000 = ?", [done % 5000])
            if done == 0:
                sys.stdout.write("working\n")
                sys.stdout.flush()
            done += 1
            if done % _ROUNDS_PER_CHECKPOINT == 0:
                con.execute("CHECKPOINT")
            time.sleep(_PAUSE_SECONDS)


def count(path: Path) -> dict[str, int]:
    with duckdb.connect(str(path), read_only=True) as con:
        names = [str(name) for (name,) in con.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()]
        return {f"main.{name}": _rows(con, name) for name in names}


def _rows(con: duckdb.DuckDBPyConnection, table: str) -> int:
    row = con.execute(f'SELECT count(*) FROM "{table}"').fetchone()  # noqa: S608  the demo's own names
    assert row is not None
    return int(row[0])


def main(task: str, path: str, *rows: str) -> None:
    if task == "make":
        make(Path(path), int(rows[0]))
    elif task == "work":
        work(Path(path))
    else:
        sys.stdout.write(json.dumps(count(Path(path))))


if __name__ == "__main__":
    main(*sys.argv[1:])
