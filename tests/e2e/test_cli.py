"""The whole story by the command line: what is printed, what comes back."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
from rigs.program import Program
from servers.postgres import PostgresServer
from servers.s3 import S3Server

from flybackup.cli.group import COMMANDS
from flybackup.cli.main import run

GAMES = 5000
TABLES = [
    {"name": "archive.old", "expected": 0, "actual": 0, "ok": True},
    {"name": "main.games", "expected": GAMES, "actual": GAMES, "ok": True},
]
SNAPSHOT = {
    "id": str,
    "source": str,
    "kind": str,
    "time": str,
    "tags": list,
    "status": str,
    "method": str,
    "facts": dict,
    "summary": dict,
}
SUMMARY = {
    "entries": int,
    "bytes_read": int,
    "bytes_new": int,
    "bytes_stored": int,
    "chunks": int,
    "chunks_new": int,
    "requests": int,
    "seconds": float,
}
RESTORE = {
    "snapshot": str,
    "target": str,
    "verified": bool,
    "tables": list,
    "files": (dict, type(None)),
    "bytes": int,
    "seconds": float,
}


def assert_has(document: dict[str, Any], fields: dict[str, Any]) -> None:
    for name, kind in fields.items():
        assert isinstance(document[name], kind), (name, document[name])


def rows_of(path: Path) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(path), read_only=True) as con:
        return con.execute("SELECT id, seed FROM games ORDER BY id").fetchall()


def test_a_destroyed_database_comes_back(flybackup: Program, database: Path) -> None:
    before = rows_of(database)
    made = flybackup.json("init", reveals=True)
    assert made["recovery_key"].startswith("flybackup-recovery-1-")
    flybackup.secrets.add(made["recovery_key"])

    first = flybackup.json("backup", database, "--tag", "nightly")
    second = flybackup.json("backup", database)
    for done in (first, second):
        assert done["failed"] == []
        assert_has(done["snapshots"][0], SNAPSHOT)
        assert_has(done["snapshots"][0]["summary"], SUMMARY)
    assert first["snapshots"][0]["summary"]["bytes_new"] > 0
    assert second["snapshots"][0]["summary"]["bytes_new"] == 0
    assert second["snapshots"][0]["facts"]["tables"]["main.games"] == {"rows": GAMES, "checksum": None}

    listed = flybackup.json("snapshots")["snapshots"]
    assert listed == [second["snapshots"][0], first["snapshots"][0]]
    assert flybackup.json("snapshots", "--tag", "nightly")["snapshots"] == [first["snapshots"][0]]
    assert flybackup.json("snapshots", "--source", "tournament", "--limit", "1")["snapshots"] == listed[:1]

    shown = flybackup.json("show", first["snapshots"][0]["id"][:6])
    assert shown.pop("entries")[0]["size"] == database.stat().st_size
    assert shown == first["snapshots"][0]

    database.write_bytes(b"gone")
    database.unlink()
    restored = flybackup.json("restore", "tournament", "--to", database)
    assert_has(restored, RESTORE)
    assert restored["snapshot"] == listed[0]["id"]
    assert restored["verified"]
    assert restored["tables"] == TABLES
    assert rows_of(database) == before

    verified = flybackup.json("verify", "tournament", database)
    assert_has(verified, RESTORE)
    assert verified["verified"]
    assert verified["tables"] == TABLES

    checked = flybackup.json("check", "--read-data")
    assert checked["ok"]
    assert checked["errors"] == []
    assert checked["bytes_verified"] > 0
    assert "oldest_unverified" in checked


def test_a_person_reads_what_happened(flybackup: Program, database: Path) -> None:
    made = flybackup.run("init", reveals=True).stdout
    assert made.count("flybackup-recovery-1-") == 1
    assert "flybackup key write-key" in made
    assert "2 tables, 5,000 rows" in flybackup.run("backup", database).stdout
    listed = flybackup.run("snapshots").stdout
    assert listed.splitlines()[0].split() == ["ID", "TIME", "SOURCE", "STORED", "CONTENTS"]
    assert "tournament" in listed
    assert "main.games" in flybackup.run("show", "tournament").stdout
    told = flybackup.run("restore", "tournament", "--to", database, "--replace").stdout
    assert "Verified: 2 tables, 5,000 rows, all as in the snapshot." in told
    assert "tournament.duckdb.before-restore" in told
    assert "To undo" in told
    assert "holds what the snapshot holds" in flybackup.run("verify", "tournament", database).stdout
    assert "No damage found." in flybackup.run("check").stdout


def test_what_is_done_is_logged_as_json_lines(ready: Program, database: Path) -> None:
    lines = [json.loads(line) for line in ready.run("backup", database).stderr.splitlines()]
    assert [line["event"] for line in lines] == ["backup.started", "backup.finished"]
    assert {"time", "level", "subject", "seconds"} <= set(lines[1])
    assert ready.run("-q", "backup", database).stderr == ""


def test_options_stand_before_or_after_the_command(backed_up: Program) -> None:
    listed = backed_up.run("--json", "-q", "snapshots")
    assert backed_up.run("snapshots", "--json", "-q") == listed
    elsewhere = (backed_up.cwd / "elsewhere").as_uri()
    backed_up.run("snapshots", "-r", elsewhere, code=10)
    backed_up.run("-r", elsewhere, "key", "list", code=10)
    backed_up.run("key", "list", "-r", elsewhere, code=10)


def test_a_dry_run_stores_nothing(ready: Program, database: Path) -> None:
    before = sorted((ready.cwd / "repository").rglob("*"))
    would = ready.json("backup", database, "--dry-run")
    assert would["snapshots"][0]["summary"]["bytes_new"] > 0
    assert sorted((ready.cwd / "repository").rglob("*")) == before
    assert ready.json("snapshots") == {"snapshots": []}


def test_a_restore_can_be_rehearsed(backed_up: Program) -> None:
    target = backed_up.cwd / "rehearsal.duckdb"
    report = backed_up.json("restore", "tournament", "--to", target, "--dry-run")
    assert report["bytes"] > 0
    assert not report["verified"]
    assert not target.exists()


def test_a_single_table_and_an_unverified_restore(backed_up: Program) -> None:
    target = backed_up.cwd / "games.duckdb"
    report = backed_up.json("restore", "tournament", "--to", target, "--table", "games", "--jobs", "2")
    assert [table["name"] for table in report["tables"]] == ["main.games"]
    assert len(rows_of(target)) == GAMES
    hasty = backed_up.json("restore", "tournament", "--to", backed_up.cwd / "hasty.duckdb", "--no-verify")
    assert not hasty["verified"]


def test_an_ad_hoc_name_and_a_time(backed_up: Program, database: Path) -> None:
    named = backed_up.json("backup", database, "--name", "before-deploy")["snapshots"][0]
    assert named["source"] == "before-deploy"
    assert backed_up.json("show", "before-deploy@2100-01-01")["id"] == named["id"]
    backed_up.run("show", "before-deploy@2000-01-01", code=2)


def test_s3_and_the_environment_alone(flybackup: Program, database: Path, s3_server: S3Server) -> None:
    program = flybackup.having(FLYBACKUP_REPOSITORY=s3_server.url(), **s3_server.env())
    program.secrets.add(s3_server.secret_key)
    program.secrets.add(program.json("init", reveals=True)["recovery_key"])
    program.run("backup", database)
    assert program.json("doctor", reveals=False)["ok"]
    target = program.cwd / "from-s3.duckdb"
    assert program.json("restore", "tournament", "--to", target)["verified"]
    assert rows_of(target) == rows_of(database)


def test_two_repositories(ready: Program, database: Path) -> None:
    second = (ready.cwd / "second").as_uri()
    ready.secrets.add(ready.json("init", "-r", second, reveals=True)["recovery_key"])
    ready.run("backup", database, "-r", second)
    assert ready.json("snapshots")["snapshots"] == []
    assert len(ready.json("snapshots", "-r", second)["snapshots"]) == 1


def test_postgres(ready: Program, postgres15: PostgresServer) -> None:
    name = postgres15.new_database("league", "CREATE TABLE teams AS SELECT i AS id FROM generate_series(1, 300) i")
    url, target = postgres15.url(name), postgres15.url(postgres15.new_name("restored"))
    ready.having(DATABASE_URL=url).run("backup", url)
    listed = ready.json("snapshots")["snapshots"][0]
    assert (listed["source"], listed["kind"]) == (name, "postgres")
    report = ready.json("restore", name, "--to", target)
    assert report["verified"]
    assert report["tables"] == [{"name": "public.teams", "expected": 300, "actual": 300, "ok": True}]
    assert "s3cret" not in report["target"]
    assert ready.json("verify", name, target)["verified"]


def test_configured_sources(ready: Program, database: Path) -> None:
    configuration = ready.cwd / "flybackup.toml"
    configuration.write_text(f'[sources.cup]\ntype = "duckdb"\npath = "{database}"\n')
    assert ready.json("config", "validate")["ok"]
    assert ready.json("backup")["snapshots"][0]["source"] == "cup"
    assert ready.json("backup", "cup")["snapshots"][0]["source"] == "cup"
    shown = ready.run("config", "show").stdout
    assert str(database) in shown


def test_doctor_tells_what_is_well(backed_up: Program, database: Path) -> None:
    (backed_up.cwd / "flybackup.toml").write_text(f'[sources.cup]\ntype = "duckdb"\npath = "{database}"\n')
    report = backed_up.json("doctor")
    assert report["ok"], report
    assert {"level", "subject", "what", "do"} == set(report["findings"][0])
    subjects = {each["subject"] for each in report["findings"]}
    assert {"configuration", "store", "repository", "clock", "scratch", "cup", "versions"} <= subjects
    assert "ERROR" not in backed_up.run("doctor").stdout


def test_doctor_tells_what_is_wrong(backed_up: Program, database: Path) -> None:
    (backed_up.cwd / "flybackup.toml").write_text('[sources.cup]\ntype = "duckdb"\npath = "/nowhere/cup.duckdb"\n')
    report = backed_up.having(FLYBACKUP_PASSPHRASE="not this one").json("doctor", code=1)
    assert {each["subject"] for each in report["findings"] if each["level"] == "error"} == {"repository", "cup"}


def test_the_demo(flybackup: Program) -> None:
    report = flybackup.json("demo", "--rows", "50000")
    assert report["ok"]
    assert [table["ok"] for table in report["tables"]] == [True, True, True]
    assert [step["name"] for step in report["steps"]][-2:] == ["restore", "verify"]


def test_help_is_there_for_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    listed = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n  {command} " in listed
        assert run([command, "--help"]) == 0
        assert f"Usage: flybackup {command}" in capsys.readouterr().out
    for command in ("list", "add", "remove", "write-key", "recovery"):
        assert run(["key", command, "--help"]) == 0
        assert f"Usage: flybackup key {command}" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    script = "import sys; from flybackup.cli.main import run; run(['--help']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "boto3", "duckdb", "rich", "msgspec", "psycopg", "cryptography"} & set(loaded)
