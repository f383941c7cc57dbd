"""An application of a DuckDB file and a PostgreSQL database: backed up together while it writes, and brought back."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import duckdb
import pytest
from rigs.duckdb_rig import Application, holding, run_duckdb
from rigs.program import PASSPHRASE, Program
from servers.postgres import PASSWORD, PostgresServer

from flybackup.model import TableFacts
from flybackup.repository import open_with_passphrase
from flybackup.stores.local import LocalStore

MATCHES, USERS = 4711, 300
CONFIGURATION = """
[sources.cup]
type = "duckdb"
path = "{path}"

[sources.accounts]
type = "postgres"
url = "{url}"
"""


@dataclass(frozen=True)
class App:
    """The places of both of its databases, and the program that is configured for them."""

    flybackup: Program
    path: Path
    database: str
    server: PostgresServer

    def configure(self, more: str = "") -> None:
        text = CONFIGURATION.format(path=self.path, url=self.server.url(self.database))
        (self.flybackup.cwd / "flybackup.toml").write_text(text + more)

    def matches(self, path: Path | None = None) -> int:
        rows = run_duckdb(path or self.path, "SELECT 1", "SELECT count(*) FROM matches")
        assert rows is not None
        (count,) = rows[0]
        assert isinstance(count, int)
        return count

    def users(self, database: str | None = None) -> int:
        return int(self.server.rows(database or self.database, "SELECT count(*) FROM users")[0][0])

    def wreck(self) -> None:
        run_duckdb(self.path, "DELETE FROM matches WHERE i > 5")
        self.server.run(self.database, "DELETE FROM users WHERE i > 7")

    def beside(self) -> list[str]:
        mine = {name for name in self.server.databases() if name.startswith(self.database[:20])}
        return sorted([*(path.name for path in self.path.parent.iterdir()), *mine])


@pytest.fixture
def app(ready: Program, postgres15: PostgresServer, tmp_path: Path) -> App:
    path = tmp_path / "data" / "cup.duckdb"
    path.parent.mkdir(exist_ok=True)
    run_duckdb(path, f"CREATE TABLE matches AS SELECT i FROM range({MATCHES}) r(i)")
    database = postgres15.new_database("accounts", f"CREATE TABLE users AS SELECT i FROM generate_series(1, {USERS}) i")
    ready.secrets.add(PASSWORD)
    app = App(ready, path, database, postgres15)
    app.configure()
    return app


@contextmanager
def written_to(app: App) -> Iterator[None]:
    """Change both databases, in pairs and in this order, until the block ends: user n, then match n."""
    done = Event()

    def write() -> None:
        with Application(app.path) as writer, app.server.connect(app.database) as postgres:
            number = 10_000
            while not done.is_set():
                postgres.execute("INSERT INTO users VALUES (%s)", (number,))
                writer.execute(f"INSERT INTO matches VALUES ({number})")
                number += 1
                started.set()

    started = Event()
    thread = Thread(target=write)
    thread.start()
    try:
        assert started.wait(60)
        yield
    finally:
        done.set()
        thread.join()


def backed_up(app: App) -> Any:
    done = app.flybackup.json("backup")
    assert done["failed"] == []
    return done


def test_both_come_back_as_they_were_together(app: App) -> None:
    with written_to(app):
        done = backed_up(app)
    cup, accounts = done["snapshots"]
    assert cup["set"] == accounts["set"] == done["set"]["id"]
    assert done["set"]["sources"] == ["cup", "accounts"]
    assert 0 < done["set"]["within_seconds"] < 60
    rows = {each["source"]: next(iter(each["facts"]["tables"].values()))["rows"] for each in done["snapshots"]}

    copy, database = app.path.with_name("copy.duckdb"), app.server.new_name("copy")
    to = ("--to", f"cup={copy}", "--to", f"accounts={app.server.url(database)}")
    app.flybackup.secrets.discard(PASSWORD)  # it is among the arguments
    report = app.flybackup.json("restore", "--set", done["set"]["id"][:8], *to)

    assert report["set"] == done["set"]["id"]
    assert report["missing"] == []
    assert report["error"] is None
    assert [each["source"] for each in report["restores"]] == ["cup", "accounts"]
    assert all(each["verified"] and each["published"] for each in report["restores"])
    assert report["restores"][0]["target"] == str(copy)
    assert PASSWORD not in json.dumps(report)
    assert (app.matches(copy), app.users(database)) == (rows["cup"], rows["accounts"])
    # PostgreSQL's view was fixed first: every user in it was there before the match of the same number was written.
    users = app.server.rows(database, "SELECT max(i) FROM users")[0][0]
    matches = run_duckdb(copy, "SELECT 1", "SELECT max(i) FROM matches")
    assert matches is not None
    assert int(str(matches[0][0])) >= users - 1


def test_both_go_back_into_their_own_places_and_out_again(app: App) -> None:
    done = backed_up(app)
    app.wreck()

    told = app.flybackup.run("restore", "--set", "cup", "--replace").stdout

    assert (app.matches(), app.users()) == (MATCHES, USERS)
    assert told.startswith("Restored 2 sources, put in place in this order: cup, accounts\n")
    assert f"Set {done['set']['id']}, taken within " in told
    assert told.count("Verified: 1 table") == 2
    undo_file = next(line for line in told.splitlines() if line.startswith("To undo, with the application stopped: "))
    undo_database = next(line for line in told.splitlines() if line.startswith("to undo, connect"))
    subprocess.run(["/bin/sh", "-c", undo_file.split(": ", 1)[1]], check=True)
    app.server.run("postgres", *(part for part in undo_database.split("run: ", 1)[1].split(";") if part.strip()))
    assert (app.matches(), app.users()) == (6, 7)


def test_without_replace_nothing_is_touched(app: App) -> None:
    backed_up(app)
    before = app.beside()
    answer = app.flybackup.json("restore", "--set", "cup", code=24)["error"]
    assert str(app.path) in answer["message"]
    assert app.database in answer["message"]
    assert "--replace" in answer["hint"]
    assert app.beside() == before


def test_a_target_in_use_keeps_all_from_being_published(app: App) -> None:
    backed_up(app)
    app.wreck()
    before = app.beside()
    with holding(app.path):
        answer = app.flybackup.json("restore", "--set", "accounts", "--replace", code=24)["error"]
        assert "in use" in answer["message"]
    assert app.beside() == before
    assert (app.matches(), app.users()) == (6, 7)


@pytest.mark.parametrize("liar", ["cup", "accounts"])
def test_one_that_does_not_verify_publishes_none(app: App, liar: str) -> None:
    """Signed with the repository's keys, as nothing from outside makes a snapshot lie."""
    backed_up(app)
    repository = open_with_passphrase(LocalStore(app.flybackup.cwd / "repository"), PASSPHRASE)
    honest = next(repository.snapshots(liar))
    tables = {name: TableFacts(rows=table.rows + 1) for name, table in honest.facts.tables.items()}
    repository.put_snapshot(replace(honest, facts=replace(honest.facts, tables=tables)))
    app.wreck()

    report = app.flybackup.json("restore", "--set", liar, "--replace", code=23)

    assert {each["source"]: each["verified"] for each in report["restores"]}[liar] is False
    assert not any(each["published"] for each in report["restores"])
    assert (app.matches(), app.users()) == (6, 7)
    told = app.flybackup.run("restore", "--set", liar, "--replace", code=23).stdout
    assert told.startswith("NOT RESTORED. None of 2 targets was changed.")
    assert "kept" in told
    assert ("removed again" in told) == (liar == "accounts")
    assert ("Not tried." in told) == (liar == "cup")


def test_one_that_failed_is_missing_and_named(app: App) -> None:
    app.configure('\n[sources.lost]\ntype = "duckdb"\npath = "/nowhere/lost.duckdb"\n')
    done = app.flybackup.json("backup", code=3)
    assert [each["source"] for each in done["failed"]] == ["lost"]
    assert done["set"]["sources"] == ["cup", "accounts", "lost"]
    assert "2 of 3 sources" in app.flybackup.run("backup", code=3).stdout
    app.wreck()

    told = app.flybackup.run("restore", "--set", done["set"]["id"], "--replace").stdout

    assert "MISSING from this set: lost." in told
    assert (app.matches(), app.users()) == (MATCHES, USERS)
    app.path.unlink()
    report = app.flybackup.json("restore", "--set", done["set"]["id"], "--replace")
    assert report["missing"] == ["lost"]


def test_a_stop_in_the_middle_keeps_what_is_committed_and_lets_go_of_the_rest(app: App) -> None:
    large = app.path.with_name("large.duckdb")
    with duckdb.connect(str(large)) as con:
        con.execute("CREATE TABLE games AS SELECT hash(i) AS a, hash(i * 3) AS b FROM range(8000000) r(i)")
    app.configure(f'\n[sources.large]\ntype = "duckdb"\npath = "{large}"\n')
    scratch = app.flybackup.cwd / "scratch"

    stopped = app.flybackup.stopped(signal.SIGTERM, lambda: any(scratch.glob("flybackup-scratch-*/2/*")), "backup")

    assert stopped.code == 143, stopped
    assert [each["source"] for each in app.flybackup.json("snapshots")["snapshots"]] == ["cup"]
    assert list(scratch.iterdir()) == []
    sessions = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{app.database}'"
    assert app.server.rows("postgres", sessions) == [(0,)]
    copy = app.path.with_name("copy.duckdb")
    assert app.flybackup.json("restore", "cup", "--to", copy)["verified"]
    report = app.flybackup.json("restore", "--set", "cup", "--replace")
    assert report["missing"] == ["accounts", "large"]


def test_a_volume_that_is_partial_is_said_and_comes_back_with_its_database(app: App) -> None:
    """Files and PostgreSQL, as one application has them; what looks like a database and is none makes it partial."""
    tree = app.path.with_name("uploads")
    (tree / "2026").mkdir(parents=True)
    (tree / "2026" / "cat.jpg").write_bytes(b"cat")
    (tree / "broken.duckdb").write_bytes(bytes(8) + b"DUCK" + bytes(20_000))
    configured = f'[sources.uploads]\ntype = "volume"\npath = "{tree}"\n'
    configured += f'[sources.accounts]\ntype = "postgres"\nurl = "{app.server.url(app.database)}"\n'
    (app.flybackup.cwd / "flybackup.toml").write_text(configured)

    done = app.flybackup.json("backup", code=3)
    assert done["failed"] == []
    assert [each["status"] for each in done["snapshots"]] == ["partial", "complete"]
    assert "broken.duckdb" in done["snapshots"][0]["problems"][0]
    told = app.flybackup.run("backup", code=3).stdout.splitlines()
    at = told.index("  PARTIAL: not everything could be captured. What is missing:")
    assert "broken.duckdb" in told[at + 1]
    assert "broken.duckdb" in app.flybackup.run("show", "uploads").stdout

    shutil.rmtree(tree / "2026")
    app.server.run(app.database, "DELETE FROM users")
    report = app.flybackup.json("restore", "--set", done["set"]["id"], "--replace")
    assert all(each["verified"] and each["published"] for each in report["restores"])
    assert (tree / "2026" / "cat.jpg").read_bytes() == b"cat"
    assert app.users() == USERS


def test_the_list_shows_sets(app: App) -> None:
    first = backed_up(app)
    app.flybackup.run("backup", "cup")
    second = backed_up(app)
    listed = app.flybackup.run("snapshots").stdout.splitlines()
    assert listed[0].split() == ["ID", "TIME", "SOURCE", "STORED", "CONTENTS", "SET"]
    assert sum(line.endswith(first["set"]["id"][:8]) for line in listed) == 2
    assert len(app.flybackup.json("snapshots", "--set", second["set"]["id"][:6])["snapshots"]) == 2
    assert f"{second['set']['id']} (cup, accounts)" in app.flybackup.run("show", "accounts").stdout


def test_a_rehearsal_writes_nothing(app: App) -> None:
    backed_up(app)
    before = app.beside()
    assert "2 snapshots can be read." in app.flybackup.run("restore", "--set", "cup", "--dry-run").stdout
    assert app.beside() == before


def test_what_is_said_wrongly(app: App) -> None:
    app.flybackup.run("backup", app.path, "--name", "alone")
    backed_up(app)
    for arguments, told in (
        (("cup", "--set", "cup"), "exclude each other"),
        (("--set", "cup", "--table", "matches"), "--table and --only are for one snapshot"),
        (("--set", "nothing-like-it"), "no set or snapshot is called"),
        (("--set", "alone"), "without --set"),
        (("--set", "cup", "--to", "/somewhere"), "NAME=TARGET"),
        (("--set", "cup", "--to", "else=/somewhere"), "The set has: accounts, cup"),
        (("--set", "cup", "--to", "cup=/a", "--to", "cup=/b"), "two targets"),
        (("cup", "--to", "/a", "--to", "/b"), "one --to"),
        ((), "SNAPSHOT"),
    ):
        answer = app.flybackup.json("restore", *arguments, code=2)["error"]
        assert told in f"{answer['message']} {answer['hint']}"
    answer = app.flybackup.json("backup", "cup", app.path, code=2)["error"]
    assert "two sources are called cup" in answer["message"]


def test_a_source_that_is_not_configured_any_more_needs_a_target(app: App) -> None:
    backed_up(app)
    (app.flybackup.cwd / "flybackup.toml").write_text(f'[sources.cup]\ntype = "duckdb"\npath = "{app.path}"\n')
    answer = app.flybackup.json("restore", "--set", "cup", "--replace", code=2)["error"]
    assert "no source that is called accounts" in answer["message"]
    assert "--to accounts=TARGET" in answer["hint"]
    (app.flybackup.cwd / "flybackup.toml").write_text(
        f'[sources.cup]\ntype = "duckdb"\npath = "{app.path}"\n[sources.accounts]\ntype = "duckdb"\npath = "/x"\n'
    )
    answer = app.flybackup.json("restore", "--set", "cup", "--replace", code=2)["error"]
    assert "accounts is configured as duckdb, and this snapshot of it is of postgres" in answer["message"]


# What was lost


def test_a_database_that_lost_rows_is_marked_everywhere(app: App) -> None:
    backed_up(app)
    app.wreck()

    done = app.flybackup.run("backup")  # exit code 0: the snapshot is kept

    lines = done.stdout.splitlines()
    assert lines[0].startswith("Backed up cup as ")
    assert lines[2:4] == [
        "  ANOMALY: is this as it should be? The snapshot is kept, and marked.",
        "    main.matches: 6 rows, 4,711 before",
    ]
    logged = [json.loads(line) for line in done.stderr.splitlines()]
    warned = [line for line in logged if line["event"] == "backup.anomaly"]
    assert [(line["level"], line["subject"]) for line in warned] == [("warning", "cup"), ("warning", "accounts")]
    assert warned[1]["what"] == ["public.users: 7 rows, 300 before"]
    listed = app.flybackup.run("snapshots").stdout
    assert listed.count("ANOMALY") == 2
    assert "main.matches: 6 rows, 4,711 before" in app.flybackup.run("show", "cup").stdout
    shown = app.flybackup.json("show", "accounts")
    assert shown["anomalies"] == ["public.users: 7 rows, 300 before"]
    assert shown["status"] == "complete"
    assert app.flybackup.json("backup", "cup")["snapshots"][0]["anomalies"] == []


def test_an_empty_database_is_marked_the_first_time(app: App) -> None:
    empty = app.path.with_name("empty.duckdb")
    run_duckdb(empty, "CREATE SCHEMA s")
    assert app.flybackup.json("backup", empty)["snapshots"][0]["anomalies"] == ["empty: no tables"]
