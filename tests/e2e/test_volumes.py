"""A volume as an application has it: a DuckDB file under a writer, files replaced while they are read; by the command
line."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest
from rigs.program import Program
from trees import pictured

WRITER = """
import duckdb, json, os, sys
root = sys.argv[1]
con = duckdb.connect(f"{root}/tournament.duckdb")
con.execute("CREATE TABLE IF NOT EXISTS matches (id BIGINT, score BIGINT)")
con.execute("CREATE TABLE IF NOT EXISTS players (id BIGINT, score BIGINT)")
number = con.execute("SELECT coalesce(max(id), 0) FROM matches").fetchone()[0]
while True:
    number += 1
    con.execute("BEGIN")
    con.execute("INSERT INTO matches SELECT ?, range FROM range(50)", [number])
    con.execute("INSERT INTO players SELECT ?, range FROM range(50)", [number])
    con.execute("COMMIT")
    if number % 40 == 0:
        con.execute("CHECKPOINT")
    state = {"number": number, "pad": "x" * (number * 997 % 60_000), "check": number * 7}
    with open(f"{root}/data.json.new", "w") as file:
        json.dump(state, file)
    os.replace(f"{root}/data.json.new", f"{root}/data.json")
    if number == 3:
        print("busy", flush=True)
"""


@contextmanager
def busy(root: Path) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "busy\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    root = tmp_path / "volume"
    (root / "saves").mkdir(parents=True)
    for number in range(30):
        (root / "saves" / f"game {number}.zip").write_bytes(os.urandom(50_000))
    return root


def test_snapshots_of_a_busy_volume_are_consistent_and_verify(ready: Program, volume: Path, tmp_path: Path) -> None:
    with busy(volume):
        for number in range(4):
            (snapshot,) = ready.json("backup", volume)["snapshots"]
            tables = snapshot["facts"]["tables"]
            rows = {name: facts["rows"] for name, facts in tables.items()}
            assert rows["tournament.duckdb:main.matches"] == rows["tournament.duckdb:main.players"] > 0
            target = tmp_path / f"restored {number}"
            report = ready.json("restore", snapshot["id"], "--to", target)
            assert report["verified"]
            assert report["files"]["expected"] == report["files"]["actual"] >= 32
            state = json.loads((target / "data.json").read_text())
            assert state["check"] == state["number"] * 7
            with duckdb.connect(str(target / "tournament.duckdb")) as con:
                query = "SELECT count(*), count(*) FILTER (n != 50) FROM (SELECT count(*) n FROM matches GROUP BY id)"
                assert con.execute(query).fetchone()[1] == 0  # type: ignore[index]
    (last,) = ready.json("backup", volume)["snapshots"]
    assert last["method"].startswith("walked, 3")  # the saves were not read again


def test_the_whole_way_back_in_place(ready: Program, volume: Path) -> None:
    with busy(volume):
        ready.run("backup", volume, "--name", "shop")
        refused = ready.run("restore", "shop", "--to", volume, "--replace", code=24)
        assert "in use by process" in refused.stderr
    before = pictured(volume)
    done = ready.run("restore", "shop", "--to", volume, "--replace")
    undo = next(line for line in done.stdout.splitlines() if line.startswith("To undo")).split(": ", 1)[1]
    assert ready.json("verify", "shop", volume)["verified"]
    (volume / "saves" / "game 3.zip").unlink()
    differing = ready.json("verify", "shop", volume, code=23)
    assert differing["files"] == {"expected": 32, "actual": 31, "ok": False}
    subprocess.run(["/bin/sh", "-c", undo], check=True)
    assert pictured(volume) == before


def test_a_part_of_it(ready: Program, volume: Path, tmp_path: Path) -> None:
    with busy(volume):
        pass
    ready.run("backup", volume)
    report = ready.json("restore", "volume", "--to", tmp_path / "db", "--only", "*.duckdb")
    assert report["verified"]
    assert report["files"]["expected"] == 1
    assert {table["name"] for table in report["tables"]} == {
        "tournament.duckdb:main.matches",
        "tournament.duckdb:main.players",
    }
    names = {path.name for path in (tmp_path / "db").iterdir()}
    assert names <= {"tournament.duckdb", "tournament.duckdb.wal"}
    report = ready.json("restore", "volume", "--to", tmp_path / "saves", "--only", "saves/game ?.zip")
    assert report["files"] == {"expected": 10, "actual": 10, "ok": True}
    report = ready.json("restore", "volume", "--to", tmp_path / "table", "--table", "players")
    assert [table["name"] for table in report["tables"]] == ["tournament.duckdb:main.players"]
    nothing = ready.run("restore", "volume", "--to", tmp_path / "no", "--only", "*.txt", code=2)
    assert "no file of the snapshot matches *.txt" in nothing.stderr
    assert not (tmp_path / "no").exists()


def test_a_killed_restore_can_be_run_again(ready: Program, volume: Path, tmp_path: Path) -> None:
    (volume / "large").write_bytes(os.urandom(60_000_000))
    ready.run("backup", volume)
    target = tmp_path / "target" / "volume"
    target.parent.mkdir()

    def begun() -> bool:
        return any(path.name == "large" for path in target.parent.rglob("*"))

    assert ready.stopped(signal.SIGKILL, begun, "restore", "volume", "--to", target).code == -signal.SIGKILL
    assert not target.exists()
    assert len(list(target.parent.iterdir())) == 1
    assert ready.json("restore", "volume", "--to", target)["verified"]
    assert list(target.parent.iterdir()) == [target]
    assert pictured(target) == pictured(volume)


def test_a_configured_volume_leaves_out_what_it_should(ready: Program, volume: Path, tmp_path: Path) -> None:
    (volume / "rubbish.tmp").write_text("x")
    (ready.cwd / "flybackup.toml").write_text(
        f'[sources.data]\ntype = "volume"\npath = "{volume}"\nexclude = ["*.tmp", "/saves/game 1*.zip"]\n'
    )
    (snapshot,) = ready.json("backup")["snapshots"]
    assert snapshot["facts"]["files"] == 19
    shown = ready.json("show", "data")["entries"]
    assert [entry["path"] for entry in shown[:2]] == [".", "saves"]
    assert shown[2]["kind"] == "file"
    assert len(shown[2]["digest"]) == 64


def test_names_that_are_no_text_are_shown_with_escapes(ready: Program, volume: Path, tmp_path: Path) -> None:
    strange = os.fsencode(volume) + b"/bad\xff\x1b[31m name"
    Path(os.fsdecode(strange)).write_text("x")
    ready.run("backup", volume)
    listing = ready.run("show", "volume").stdout
    assert "bad\\xff\\x1b[31m name" in listing
    assert "\x1b" not in listing
    assert ready.json("restore", "volume", "--to", tmp_path / "out")["verified"]
    assert pictured(tmp_path / "out") == pictured(volume)
