"""SQLite files made by the standard library's SQLite, always in a process of its own: this one must never close one."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

from flybackup.sources import Source
from flybackup.sources.sqlite.source import SqliteSource

POPULATE = """
PRAGMA user_version = 41;
PRAGMA application_id = -77;
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 500)
INSERT INTO customers SELECT i, 'customer ' || i FROM r;
CREATE TABLE orders (customer REFERENCES customers, price REAL, note);
WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 20000)
INSERT INTO orders SELECT i % 500 + 1, i / 4.0, hex(randomblob(20)) FROM r;
CREATE INDEX by_customer ON orders (customer);
CREATE TABLE empty (i INTEGER);
CREATE VIEW cheap AS SELECT * FROM orders WHERE price < 10;
CREATE TRIGGER watched AFTER DELETE ON orders BEGIN INSERT INTO empty VALUES (old.customer); END;
"""

_OBEY = """
import json, os, sqlite3, sys
con = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=float(sys.argv[2]))
print("ready", flush=True)
for line in sys.stdin:
    statements = json.loads(line)
    if statements == "close":
        con.close()
        print("[]", flush=True)
    elif statements == "crash":
        os._exit(0)
    else:
        answer = []
        for statement in statements:
            answer = con.execute(statement).fetchall()
        print(json.dumps(answer), flush=True)
"""


class Application:
    """A process that has *path* open and executes what it is told."""

    def __init__(self, path: Path, *statements: str, timeout: float = 30) -> None:
        line = [sys.executable, "-c", _OBEY, str(path), str(timeout)]
        self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._answer() == "ready\n"
        self.execute(*statements)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    def execute(self, *statements: str) -> list[list[Any]]:
        return list(json.loads(self.tell(list(statements))))

    def close(self) -> None:
        """Close the connection; the process goes on."""
        self.tell("close")

    def crash(self) -> None:
        """End the process without closing anything."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps("crash") + "\n")
        self._process.stdin.flush()
        self._process.wait()

    def send(self, *statements: str) -> None:
        """Have the statements executed without waiting; `answer` does."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(list(statements)) + "\n")
        self._process.stdin.flush()

    def answer(self) -> list[list[Any]]:
        return list(json.loads(self._answer()))

    def tell(self, what: object) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


_RUN = """
import json, sqlite3, sys
con = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
con.executescript(sys.stdin.read())
print(json.dumps(con.execute(sys.argv[2]).fetchall() if sys.argv[2] else []))
con.close()
"""


def run_sqlite(path: Path, script: str, query: str = "") -> list[list[Any]]:
    """Run *script* on *path* in another process, close, and return what *query* says."""
    line = [sys.executable, "-c", _RUN, str(path), query]
    done = subprocess.run(line, input=script, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def dump(path: Path) -> list[object]:
    """Return all that a database that nobody uses holds: its schema, then the rows of its tables with their rowids."""
    with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as con:
        schema = con.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 1, 2").fetchall()
        found: list[object] = list(schema)
        for _, name, _, sql in (each for each in schema if each[0] == "table"):
            columns = "*" if "WITHOUT ROWID" in sql else "rowid, *"
            quoted = name.replace('"', '""')
            found += [name, *con.execute(f'SELECT {columns} FROM "{quoted}" ORDER BY 1, 2')]
        return found


def sqlite_path(source: Source) -> Path:
    assert isinstance(source, SqliteSource)
    return source.path


class SqliteRig:
    one_table = "main.orders"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0

    def _new_directory(self) -> Path:
        self._count += 1
        path = self._directory / f"place{self._count}"
        path.mkdir()
        return path

    def populated(self) -> Source:
        path = self._new_directory() / "app.db"
        run_sqlite(path, POPULATE)
        return SqliteSource(path)

    def change(self, source: Source) -> None:
        run_sqlite(sqlite_path(source), "INSERT INTO empty VALUES (1), (2)")

    def fresh_target(self) -> Source:
        return SqliteSource(self._new_directory() / "restored.db")

    def unreadable(self) -> Source:
        return SqliteSource(self._directory / "absent" / "app.db")

    def assert_same(self, source: Source, target: Source) -> None:
        original, restored = sqlite_path(source), sqlite_path(target)
        assert dump(original) == dump(restored)
        assert original.stat().st_size == restored.stat().st_size
        # Every page but the first, which counts changes.
        assert original.read_bytes()[4096:] == restored.read_bytes()[4096:]

    @contextmanager
    def in_use(self, target: Source) -> Iterator[None]:
        with Application(sqlite_path(target), "SELECT count(*) FROM orders"):
            yield

    def left_beside(self, target: Source) -> Sequence[str]:
        return sorted(path.name for path in sqlite_path(target).parent.iterdir())

    def undo(self, sentences: Sequence[str]) -> None:
        (command,) = (sentence.split(": ", 1)[1] for sentence in sentences if sentence.startswith("To undo"))
        subprocess.run(["/bin/sh", "-c", command], check=True)


@contextmanager
def rig(directory: Path) -> Iterator[SqliteRig]:
    yield SqliteRig(directory)
