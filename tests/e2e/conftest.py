from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from rigs.program import PASSPHRASE, Program
from rigs.terminal import Terminal

GAMES = 5000


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A DuckDB file with two tables, one of them empty, that nobody has open."""
    path = tmp_path / "data" / "tournament.duckdb"
    path.parent.mkdir()
    with duckdb.connect(str(path)) as con:
        con.execute(f"CREATE TABLE games AS SELECT i AS id, hash(i) AS seed FROM range({GAMES}) t(i)")
        con.execute("CREATE SCHEMA archive")
        con.execute("CREATE TABLE archive.old (id INTEGER)")
    return path


@pytest.fixture
def flybackup(tmp_path: Path) -> Program:
    """The program with a directory for its repository, which is not made yet, and a scratch directory of its own."""
    (tmp_path / "scratch").mkdir()
    env = {
        "FLYBACKUP_REPOSITORY": (tmp_path / "repository").as_uri(),
        "FLYBACKUP_PASSPHRASE": PASSPHRASE,
        "FLYBACKUP_SCRATCH_DIR": str(tmp_path / "scratch"),
        "FLYBACKUP_CACHE_DIR": str(tmp_path / "cache"),
        "TZ": "America/Los_Angeles",
    }
    return Program(tmp_path, env)


@pytest.fixture
def ready(flybackup: Program) -> Program:
    """The program with its repository made."""
    flybackup.secrets.add(flybackup.json("init", reveals=True)["recovery_key"])
    return flybackup


@pytest.fixture
def backed_up(ready: Program, database: Path) -> Program:
    """The program with one snapshot of the database."""
    ready.run("backup", database)
    return ready


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for each in opened:
        each.close()
