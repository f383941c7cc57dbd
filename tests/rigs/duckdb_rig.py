"""DuckDB files made by the installed DuckDB, always in a process of its own: this one must never close such a file."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from flybackup.sources import Source
from flybackup.sources.duckdb.source import DuckdbSource

POPULATE = """
CREATE TABLE numbers AS SELECT i, hash(i) AS h FROM range(50000) r(i);
CREATE SCHEMA sales;
CREATE TYPE sales.colour AS ENUM ('red', 'green');
CREATE TABLE sales.orders (id INTEGER PRIMARY KEY, colour sales.colour NOT NULL, price DOUBLE CHECK (price >= 0));
INSERT INTO sales.orders SELECT i, (['red', 'green'])[i % 2 + 1], i / 4 FROM range(3000) r(i);
CREATE TABLE sales.empty (i INTEGER);
CREATE VIEW cheap AS SELECT * FROM sales.orders WHERE price < 10;
CHECKPOINT;
SET wal_autocheckpoint = '1GB';
INSERT INTO numbers VALUES (-1, 0);
"""

_RUN = """
import json, os, sys, duckdb
path, statements, then = sys.argv[1:]
con = duckdb.connect(path)
con.execute(statements)
if then == "hold":
    print("ready", flush=True)
    sys.stdin.read()
elif then == "close":
    con.close()
elif then != "crash":
    print(json.dumps(con.execute(then).fetchall()))
    con.close()
sys.stdout.flush()
os._exit(0)
"""


def run_duckdb(
    path: Path, statements: str, then: str = "close", *, wheel: Path | None = None
) -> list[tuple[object, ...]] | None:
    """Run *statements* on *path* in another process; then close, crash (the log stays), or return a query's rows."""
    environment = dict(os.environ) | ({"PYTHONPATH": str(wheel)} if wheel else {})
    line = [sys.executable, "-c", _RUN, str(path), statements, then]
    done = subprocess.run(line, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return [tuple(row) for row in json.loads(done.stdout)] if done.stdout else None


@contextmanager
def holding(path: Path, statements: str = "SELECT 1") -> Iterator[int]:
    """Keep *path* open for writing in another process, and yield its pid."""
    line = [sys.executable, "-c", _RUN, str(path), statements, "hold"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process.pid
        finally:
            process.kill()


_OBEY = """
import sys, duckdb
con = duckdb.connect(sys.argv[1])
print("ready", flush=True)
for statement in sys.stdin:
    con.execute(statement)
    print("done", flush=True)
"""


class Application:
    """A process that has *path* open for writing and executes what it is told, one statement at a time."""

    def __init__(self, path: Path) -> None:
        line = [sys.executable, "-c", _OBEY, str(path)]
        self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._expect("ready\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()

    def execute(self, statement: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(statement + "\n")
        self._process.stdin.flush()
        self._expect("done\n")

    def _expect(self, answer: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == answer


def duckdb_path(source: Source) -> Path:
    assert isinstance(source, DuckdbSource)
    return source.path


class DuckdbRig:
    one_table = "sales.orders"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0

    def _new_directory(self) -> Path:
        self._count += 1
        path = self._directory / f"place{self._count}"
        path.mkdir()
        return path

    def populated(self) -> Source:
        path = self._new_directory() / "app.duckdb"
        run_duckdb(path, POPULATE, "crash")
        return DuckdbSource(path)

    def change(self, source: Source) -> None:
        run_duckdb(duckdb_path(source), "INSERT INTO numbers SELECT i, i FROM range(77) r(i)", "crash")

    def fresh_target(self) -> Source:
        return DuckdbSource(self._new_directory() / "restored.duckdb")

    def unreadable(self) -> Source:
        return DuckdbSource(self._directory / "absent" / "app.duckdb")

    def assert_same(self, source: Source, target: Source) -> None:
        for suffix in ("", ".wal"):
            original = Path(f"{duckdb_path(source)}{suffix}")
            assert original.read_bytes() == Path(f"{duckdb_path(target)}{suffix}").read_bytes(), original.name

    @contextmanager
    def in_use(self, target: Source) -> Iterator[None]:
        with holding(duckdb_path(target)):
            yield

    def left_beside(self, target: Source) -> Sequence[str]:
        return sorted(path.name for path in duckdb_path(target).parent.iterdir())

    def undo(self, sentences: Sequence[str]) -> None:
        (command,) = (sentence.split(": ", 1)[1] for sentence in sentences if sentence.startswith("To undo"))
        subprocess.run(["/bin/sh", "-c", command], check=True)


@contextmanager
def rig(directory: Path) -> Iterator[DuckdbRig]:
    yield DuckdbRig(directory)
