"""A user's own programs, by the command line: dumped, destroyed, restored, counted; and how it ends when they fail."""

import json
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rigs.program import PASSPHRASE, Program
from servers.postgres import BINARIES, PASSWORD, PostgresServer, until

DUMP = """
import sqlite3, sys
for line in sqlite3.connect(sys.argv[1]).iterdump(): print(line)
"""
RESTORE = """
import os, sqlite3, sys
script = sys.stdin.read()
if os.path.exists(sys.argv[1]): os.unlink(sys.argv[1])
sqlite3.connect(sys.argv[1]).executescript(script)
"""
COUNT = """
import json, sqlite3, sys
con = sqlite3.connect(sys.argv[1])
names = [name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
print(json.dumps({f"main.{name}": con.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}))
"""
TABLES = [
    {"name": "main.cats", "expected": 300, "actual": 300, "ok": True},
    {"name": "main.empty", "expected": 0, "actual": 0, "ok": True},
]
ENGINE = Path(sys.executable).name


def configure(program: Program, **commands: Any) -> None:
    lines = [f"{name} = {json.dumps(value)}" for name, value in commands.items()]
    (program.cwd / "flybackup.toml").write_text("\n".join(['[sources.app]\ntype = "command"', *lines]) + "\n")


def python(code: str, *arguments: str) -> Sequence[str]:
    return [sys.executable, "-c", code, *arguments]


def gone(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


@pytest.fixture
def database(ready: Program) -> Path:
    """A SQLite database, and a source `app` that dumps, loads and counts it by programs."""
    path = ready.cwd / "app.db"
    with closing(sqlite3.connect(path)) as con:
        con.execute("CREATE TABLE cats (id INTEGER PRIMARY KEY, name TEXT)")
        con.execute("CREATE TABLE empty (i)")
        con.executemany("INSERT INTO cats (name) VALUES (?)", [(f"Müller's {n}\n",) for n in range(300)])
        con.commit()
    configure(ready, dump=python(DUMP, str(path)), restore=python(RESTORE, str(path)), count=python(COUNT, str(path)))
    return path


def rows(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as con:
        return con.execute("SELECT * FROM cats ORDER BY id").fetchall()


def test_what_a_program_dumped_comes_back(ready: Program, database: Path) -> None:
    before = rows(database)
    (snapshot,) = ready.json("backup")["snapshots"]
    assert (snapshot["source"], snapshot["kind"], snapshot["status"]) == ("app", "command", "complete")
    assert (snapshot["method"], snapshot["facts"]["engine"]) == (f"output of {ENGINE}", ENGINE)
    assert snapshot["facts"]["tables"]["main.cats"] == {"rows": 300, "checksum": None}
    (entry,) = ready.json("show", "app")["entries"]
    assert (entry["path"], entry["kind"]) == ("dump", "dump")
    assert ready.json("backup")["snapshots"][0]["summary"]["bytes_new"] == 0
    assert ready.json("doctor")["ok"]

    database.unlink()
    told = ready.json("restore", "app", "--to", "app", code=24)["error"]
    assert "writes where it likes" in told["message"]
    assert "--replace" in told["hint"]
    assert not database.exists()
    report = ready.json("restore", "app", "--to", "app", "--replace")
    assert (report["target"], report["verified"], report["target_changed"]) == ("app", True, True)
    assert report["tables"] == TABLES
    assert rows(database) == before
    assert ready.json("verify", "app", "app")["tables"] == TABLES
    assert "no undo" in ready.run("restore", "app", "--to", "app", "--replace").stdout

    with closing(sqlite3.connect(database)) as con:
        con.execute("DELETE FROM cats WHERE id = 7")
        con.commit()
    differs = ready.json("verify", "app", "app", code=23)
    assert [table["actual"] for table in differs["tables"]] == [299, 0]


def test_a_dump_is_restored_to_a_file_without_the_configuration(ready: Program, database: Path) -> None:
    dumped = subprocess.run(python(DUMP, str(database)), capture_output=True, check=True).stdout
    ready.run("backup", "app")
    (ready.cwd / "flybackup.toml").unlink()
    report = ready.json("restore", "app", "--to", "app.sql")
    file = ready.cwd / "app.sql"
    assert (report["target"], report["verified"], report["tables"]) == (str(file), True, [])
    assert file.read_bytes() == dumped
    assert file.stat().st_mode & 0o777 == 0o600
    assert ready.json("verify", "app", file)["verified"]
    assert "no tables or files were counted" in ready.run("restore", "app", "--to", "b.sql").stdout

    file.write_bytes(dumped[:-1] + b"?")
    ready.run("restore", "app", "--to", file, code=24)
    assert ready.json("verify", "app", file, code=23)["problems"] == [
        "the bytes of the dump differ from the snapshot's"
    ]
    replaced = ready.json("restore", "app", "--to", file, "--replace")
    assert file.read_bytes() == dumped
    (undo,) = (note.split(": ", 1)[1] for note in replaced["notes"] if note.startswith("To undo"))
    subprocess.run(["/bin/sh", "-c", undo], check=True)
    assert file.read_bytes() == dumped[:-1] + b"?"
    assert ready.json("restore", "app", "--to", "mysql://u:hunter2@host/db", code=2)["error"]["hint"]
    ready.run("restore", "app", "--to", "/dev/null", "--replace", code=24)


def test_a_name_is_the_source_and_a_path_the_file(ready: Program, database: Path) -> None:
    ready.run("backup")
    ready.run("restore", "app", "--to", "./app")
    assert (ready.cwd / "app").read_text().startswith("BEGIN TRANSACTION")
    ready.run("restore", "app", "--to", "app", code=24)
    (ready.cwd / "flybackup.toml").write_text('[sources.app]\ntype = "duckdb"\npath = "app.duckdb"\n')
    error = ready.json("restore", "app", "--to", "app", code=2)["error"]
    assert error["message"] == "app is configured as duckdb, the snapshot is of command"
    assert "./app" in error["hint"]


def test_single_tables_are_refused(ready: Program, database: Path) -> None:
    ready.run("backup")
    for target in ("app", "./app.sql"):
        error = ready.json("restore", "app", "--to", target, "--replace", "--table", "cats", code=24)["error"]
        assert "only the program that wrote a command's dump" in error["message"]
    assert not (ready.cwd / "app.sql").exists()


def test_a_restore_that_brings_something_else_does_not_verify(ready: Program, database: Path) -> None:
    ready.run("backup")
    forgets = RESTORE + "con = sqlite3.connect(sys.argv[1]); con.execute('DELETE FROM cats WHERE id = 3'); con.commit()"
    configure(ready, dump=["x"], restore=python(forgets, str(database)), count=python(COUNT, str(database)))
    report = ready.json("restore", "app", "--to", "app", "--replace", code=23)
    assert not report["verified"]
    assert report["target_changed"]
    told = ready.run("restore", "app", "--to", "app", "--replace", code=23).stdout
    assert "RESTORED, BUT NOT WHAT IT SHOULD BE. app was written to." in told
    assert "was not changed" not in told
    assert "not touched" not in told


def test_without_count_nothing_is_verified_and_that_is_said(ready: Program, database: Path) -> None:
    configure(ready, dump=python(DUMP, str(database)), restore=python(RESTORE, str(database)))
    assert ready.json("backup")["snapshots"][0]["facts"]["tables"] == {}
    report = ready.json("restore", "app", "--to", "app", "--replace")
    assert (report["verified"], report["tables"]) == (False, [])
    assert "NOT VERIFIED" in ready.run("restore", "app", "--to", "app", "--replace").stdout
    assert "`count`" in ready.json("verify", "app", "app", code=2)["error"]["message"]
    configure(ready, dump=["x"], count=python(COUNT, str(database)))
    assert "nothing was counted" in ready.json("verify", "app", "app", code=2)["error"]["message"]


def test_a_snapshot_with_counts_and_a_source_without_count(ready: Program, database: Path) -> None:
    ready.run("backup")
    configure(ready, dump=["x"], restore=python(RESTORE, str(database)))
    error = ready.json("restore", "app", "--to", "app", "--replace", code=22)["error"]
    assert "cannot be counted" in error["message"]
    assert ready.json("restore", "app", "--to", "app", "--replace", "--no-verify")["target_changed"]


def test_a_failed_dump_makes_no_snapshot(ready: Program) -> None:
    secret = "sys.exit(open(f'/proc/{os.getppid()}/environ').read().replace(chr(0), ' '))"
    configure(ready, dump=python(f"import os, sys; print('half'); {secret}"))
    error = ready.json("backup", code=22)["error"]["message"]
    assert "failed with exit code 1" in error
    assert "FLYBACKUP_PASSPHRASE=***" in error
    assert PASSPHRASE not in error
    assert ready.json("snapshots")["snapshots"] == []


def test_an_empty_dump_is_kept(ready: Program) -> None:
    configure(ready, dump=["true"])
    assert ready.json("backup")["snapshots"][0]["summary"]["bytes_read"] == 0
    ready.run("restore", "app", "--to", "empty.sql")
    assert (ready.cwd / "empty.sql").read_bytes() == b""
    assert ready.json("check", "--read-data")["ok"]


def test_a_stop_ends_the_command_and_what_it_started(ready: Program) -> None:
    pids = ready.cwd / "pids"
    code = f"""
import os, signal, subprocess, sys
other = subprocess.Popen(["sleep", "1000"])
open("pids.new", "w").write(f"{{os.getpid()}} {{other.pid}}")
os.replace("pids.new", {str(pids)!r})
signal.pause()
"""
    configure(ready, dump=python(code))
    assert ready.stopped(signal.SIGTERM, pids.exists, "backup").code == 128 + signal.SIGTERM
    until(lambda: all(map(gone, map(int, pids.read_text().split()))))


def test_a_shell_where_it_is_asked_for_and_variables_from_the_configuration(ready: Program) -> None:
    (ready.cwd / "flybackup.toml").write_text("""
        [sources.app]
        type = "command"
        shell = true
        dump = "printf '%s|%s' \\"$MYSQL_PWD\\" \\"$AWS_PROFILE\\" | cat"
        env = { MYSQL_PWD = "${DB_PASSWORD}" }
    """)
    (ready.cwd / "password").write_text("hunter2\n")
    program = ready.having(DB_PASSWORD_FILE=str(ready.cwd / "password"), AWS_PROFILE="backup")
    program.secrets.add("hunter2")
    shown = program.json("config", "show")["sources"]["app"]
    assert (shown["dump"], shown["env"]) == ("/bin/sh and 2 arguments", ["MYSQL_PWD"])
    program.run("backup")
    program.run("restore", "app", "--to", "out")
    assert (ready.cwd / "out").read_text() == "hunter2|"
    findings = [each for each in program.json("doctor")["findings"] if each["subject"] == "app"]
    assert any("pipeline" in each["what"] for each in findings)
    assert {each["level"] for each in findings} == {"ok", "warning"}


def test_doctor_tells_of_programs_that_are_not_there(ready: Program) -> None:
    configure(ready, dump=["absent-program", "-phunter2"], restore=["cat"], count=["./absent-script"])
    ready.secrets.add("hunter2")
    findings = [each for each in ready.json("doctor", code=1)["findings"] if each["subject"] == "app"]
    assert [(each["level"], each["what"].partition(":")[0]) for each in findings] == [
        ("error", "dump"),
        ("ok", "restore"),
        ("error", "count"),
    ]


def test_counts_of_the_very_dump(ready: Program, database: Path) -> None:
    """The example of docs/sources.md: SQLite copies itself, the copy is dumped and counted."""
    documented = (Path(__file__).parents[2] / "docs" / "sources.md").read_text()
    script = ready.cwd / "app-backup"
    script.write_text(textwrap.dedent(documented.split("```sh\n", 1)[1].split("```", 1)[0]))
    script.chmod(0o755)
    before = rows(database)
    configure(ready, **{name: ["./app-backup", name] for name in ("dump", "restore", "count")})
    ready.run("backup")
    database.unlink()
    report = ready.json("restore", "app", "--to", "app", "--replace")
    assert report["tables"] == [{"name": "cats", "expected": 300, "actual": 300, "ok": True}]
    assert rows(database) == before


def test_a_plain_dump_of_postgresql_as_a_user_would_write_it(ready: Program, postgres18: PostgresServer) -> None:
    database = postgres18.new_database("shop", "CREATE TABLE orders AS SELECT i FROM generate_series(1, 5000) i")
    target = postgres18.new_database("empty")
    programs = {name: str(BINARIES[18] / name) for name in ("pg_dump", "psql")}
    count = "SELECT json_build_object('public.orders', (SELECT count(*) FROM orders))"
    psql = [programs["psql"], "-X", "--quiet", "--set=ON_ERROR_STOP=1"]
    common = {
        "dump": [programs["pg_dump"], "--restrict-key=flybackup"],
        "restore": [*psql, "--single-transaction", "--output=/dev/null"],
        "count": [*psql, "--tuples-only", "--no-align", f"--command={count}"],
    }
    configure(ready, **common)
    server = {"PGHOST": "127.0.0.1", "PGPORT": str(postgres18.port), "PGUSER": "postgres", "PGPASSWORD": PASSWORD}
    program = ready.having(**server, PGDATABASE=database)
    program.secrets.add(PASSWORD)
    assert program.json("backup")["snapshots"][0]["facts"]["tables"] == {
        "public.orders": {"rows": 5000, "checksum": None}
    }
    assert program.json("backup")["snapshots"][0]["summary"]["bytes_new"] == 0
    report = ready.having(**server, PGDATABASE=target).json("restore", "app", "--to", "app", "--replace")
    assert report["verified"]
    assert postgres18.rows(target, "SELECT sum(i) FROM orders") == [(12502500,)]
    error = program.json("restore", "app", "--to", "app", "--replace", code=22)["error"]["message"]
    assert 'relation "orders" already exists' in error
