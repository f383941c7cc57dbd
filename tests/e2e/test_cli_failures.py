"""What the exit code says when things go wrong, and what is left behind: nothing."""

import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from rigs.program import PASSPHRASE, Program

from flybackup.model import SnapshotId, TableFacts
from flybackup.repository import open_with_passphrase
from flybackup.stores.local import LocalStore

MANY_GAMES = 8_000_000


@pytest.fixture
def large(database: Path) -> Path:
    """A database that takes long enough to back up for somebody to intervene."""
    path = database.with_name("large.duckdb")
    with duckdb.connect(str(path)) as con:
        con.execute(f"CREATE TABLE games AS SELECT hash(i) AS a, hash(i * 3) AS b FROM range({MANY_GAMES}) t(i)")
    return path


def error(answer: dict[str, dict[str, object]], code: int) -> str:
    assert answer["error"]["exit_code"] == code
    assert answer["error"]["message"]
    return f"{answer['error']['message']} {answer['error']['hint']}"


def test_usage(flybackup: Program) -> None:
    error(flybackup.json("frobnicate", code=2), 2)
    error(flybackup.json("restore", "tournament", code=2), 2)
    assert "hint: " in flybackup.run("snapshots", "--limit", "none", code=2).stderr
    assert flybackup.run(code=2).stdout == ""


def test_a_reader_that_went_away(backed_up: Program) -> None:
    shown = subprocess.Popen(
        backed_up.command("show", "tournament"),
        env=backed_up.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert shown.stdout is not None
    shown.stdout.close()
    assert shown.stderr is not None
    with shown.stderr:
        assert shown.stderr.read() == ""
    assert shown.wait(60) == 141


def test_nothing_to_back_up(ready: Program) -> None:
    assert "[sources." in error(ready.json("backup", code=2), 2)


def test_an_unknown_snapshot(backed_up: Program) -> None:
    assert "flybackup snapshots" in error(backed_up.json("show", "nothing-like-it", code=2), 2)


def test_a_wrong_configuration(ready: Program) -> None:
    (ready.cwd / "flybackup.toml").write_text('[repository]\nulr = "x"\n[sources.a]\ntype = "duckdb"\n')
    ready.run("backup", code=2)
    told = ready.json("config", "validate", code=2)
    assert not told["ok"]
    assert any("ulr" in problem for problem in told["problems"])


def test_no_repository(flybackup: Program, database: Path) -> None:
    assert "flybackup init" in error(flybackup.json("snapshots", code=10), 10)
    error(flybackup.json("backup", database, code=10), 10)


def test_some_sources_fail_and_the_others_are_kept(ready: Program, database: Path) -> None:
    configured = f'[sources.cup]\ntype = "duckdb"\npath = "{database}"\n'
    configured += '[sources.lost]\ntype = "duckdb"\npath = "/nowhere/lost.duckdb"\n'
    (ready.cwd / "flybackup.toml").write_text(configured)
    done = ready.json("backup", code=3)
    assert [each["source"] for each in done["snapshots"]] == ["cup"]
    assert [each["source"] for each in done["failed"]] == ["lost"]
    assert "/nowhere/lost.duckdb" in done["failed"][0]["error"]
    assert "FAILED lost" in ready.run("backup", code=3).stdout
    assert len(ready.json("snapshots")["snapshots"]) == 2


def test_every_source_fails(ready: Program) -> None:
    lost = '[sources.{0}]\ntype = "duckdb"\npath = "/nowhere/{0}.duckdb"\n'
    (ready.cwd / "flybackup.toml").write_text(lost.format("one") + lost.format("two"))
    assert len(ready.json("backup", code=22)["failed"]) == 2
    error(ready.json("backup", "one", code=22), 22)


def test_an_unreachable_store(ready: Program) -> None:
    closed = ready.having(
        FLYBACKUP_REPOSITORY="s3://bucket/prefix",
        AWS_ENDPOINT_URL_S3="http://127.0.0.1:1",
        AWS_ACCESS_KEY_ID="id",
        AWS_SECRET_ACCESS_KEY="never-to-be-printed",
        AWS_REGION="us-east-1",
    )
    closed.secrets.add("never-to-be-printed")
    error(closed.json("snapshots", code=20), 20)
    occupied = ready.cwd / "a-file"
    occupied.write_text("not a directory")
    error(ready.json("init", "-r", occupied.as_uri(), code=20), 20)


def test_damage(backed_up: Program) -> None:
    for pack in (backed_up.cwd / "repository" / "packs").rglob("*"):
        if pack.is_file():
            content = bytearray(pack.read_bytes())
            content[100] ^= 1
            pack.write_bytes(content)
    told = backed_up.json("check", "--read-data", code=21)
    assert not told["ok"]
    assert {"object", "problem", "snapshots"} <= set(told["errors"][0])
    # What needs a data pack is not known where the manifest is damaged as well.
    assert any(damage["snapshots"] for damage in told["errors"])
    assert "DAMAGE" in backed_up.run("check", "--read-data", code=21).stdout
    target = backed_up.cwd / "copy.duckdb"
    error(backed_up.json("restore", "tournament", "--to", target, code=21), 21)
    assert not target.exists()


def test_a_database_that_differs(backed_up: Program, database: Path) -> None:
    with duckdb.connect(str(database)) as con:
        con.execute("DELETE FROM games WHERE id < 10")
    told = backed_up.json("verify", "tournament", database, code=23)
    assert not told["verified"]
    assert {"name": "main.games", "expected": 5000, "actual": 4990, "ok": False} in told["tables"]
    text = backed_up.run("verify", "tournament", database, code=23).stdout
    assert "DIFFERS" in text
    assert "archive.old" not in text


def test_a_restore_that_does_not_verify_leaves_the_target_alone(backed_up: Program, database: Path) -> None:
    """Nothing that can be done from outside makes a snapshot lie, so this one is signed with the repository's keys."""
    repository = open_with_passphrase(LocalStore(backed_up.cwd / "repository"), PASSPHRASE)
    honest = next(repository.snapshots())
    tables = {**honest.facts.tables, "main.games": TableFacts(rows=5001)}
    facts = replace(honest.facts, tables=tables)
    repository.put_snapshot(replace(honest, id=SnapshotId("f" * 16), facts=facts))
    before = database.read_bytes()
    told = backed_up.json("restore", "ffff", "--to", database, "--replace", code=23)
    assert not told["verified"]
    assert {"name": "main.games", "expected": 5001, "actual": 5000, "ok": False} in told["tables"]
    assert database.read_bytes() == before
    text = backed_up.run("restore", "ffff", "--to", database, "--replace", code=23).stdout
    assert text.startswith("NOT RESTORED.")
    assert "5,001" in text


def test_refusals(backed_up: Program, database: Path) -> None:
    error(backed_up.json("init", code=24), 24)
    before = database.read_bytes()
    assert "--replace" in error(backed_up.json("restore", "tournament", "--to", database, code=24), 24)
    assert database.read_bytes() == before
    (backed_up.cwd / "demo").mkdir()
    (backed_up.cwd / "demo" / "precious").touch()
    backed_up.run("demo", "--keep", "demo", code=24)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_backup_that_is_stopped(ready: Program, large: Path, signum: signal.Signals, code: int) -> None:
    stopped = ready.stopped(signum, scratch_is_used(ready), "backup", large)
    assert stopped.code == code, stopped
    assert signum.name in stopped.stderr
    assert scratch(ready) == []
    assert ready.json("snapshots")["snapshots"] == []
    ready.run("backup", large)
    assert ready.json("restore", "large", "--to", ready.cwd / "copy.duckdb")["verified"]


def test_a_backup_that_is_killed(ready: Program, large: Path, database: Path) -> None:
    killed = ready.stopped(signal.SIGKILL, scratch_is_used(ready), "backup", large)
    assert killed.code == -signal.SIGKILL
    assert len(scratch(ready)) == 1
    (ready.cwd / "scratch" / "flybackup-precious").mkdir()  # somebody else's
    ready.run("backup", database)
    assert scratch(ready) == ["flybackup-precious"]


def scratch(program: Program) -> list[str]:
    return [path.name for path in (program.cwd / "scratch").iterdir()]


def scratch_is_used(program: Program) -> Callable[[], bool]:
    """Return a condition that holds once a backup has begun to work in its scratch directory."""
    return lambda: any((program.cwd / "scratch").glob("flybackup-scratch-*/*/*"))
