"""`forget` as a user runs it, on snapshots of many days."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from rigs.program import PASSPHRASE, Program
from rigs.terminal import COLUMNS, Terminal
from servers.s3 import S3Server

from flybackup.model import SnapshotId
from flybackup.repository import Repository, open_with_passphrase
from flybackup.stores.local import LocalStore

DAYS = 60
POLICY = "[sources.cup.retention]\nkeep_last = 3\nkeep_daily = 7\nkeep_weekly = 4\nkeep_tags = { pre-deploy = 2 }\n"


@pytest.fixture
def aged(ready: Program, database: Path) -> Program:
    """The program with one snapshot of `cup`, and the same of each of the days before; its policy is configured."""
    configure(ready, database, POLICY)
    ready.run("backup")
    age(open_with_passphrase(LocalStore(ready.cwd / "repository"), PASSPHRASE), DAYS)
    return ready


def configure(program: Program, database: Path, policy: str) -> None:
    text = f'[sources.cup]\ntype = "duckdb"\npath = "{database}"\n{policy}'
    (program.cwd / "flybackup.toml").write_text(text)


def age(repository: Repository, days: int) -> None:
    newest = next(repository.snapshots())
    for day in range(1, days):
        made = replace(newest, id=SnapshotId(f"{day:016x}"), time=newest.time - timedelta(days=day))
        repository.put_snapshot(replace(made, tags=("pre-deploy",)) if day % 20 == 0 else made)


def listed(program: Program) -> list[str]:
    return [each["id"] for each in program.json("snapshots")["snapshots"]]


def test_it_says_what_and_why_and_does_that(aged: Program, database: Path) -> None:
    before = listed(aged)
    would = aged.json("forget", "--dry-run")
    assert listed(aged) == before
    assert {each["id"] for each in would["keep"]} | set(would["remove"]) == set(before)
    assert would["keep"][0].keys() >= {"id", "source", "time", "reasons"}
    assert would["keep"][0]["reasons"][:3] == ["newest good", "last 1 of 3", "daily 1 of 7"]
    assert {"tag pre-deploy 2 of 2"} <= {reason for each in would["keep"] for reason in each["reasons"]}
    assert not would["removed"]
    (source,) = would["sources"]
    assert source == {
        "source": "cup",
        "configured": True,
        "policy": True,
        "snapshots": DAYS,
        "remove": len(would["remove"]),
        "refused": True,
    }

    refused = aged.json("forget", code=24)["error"]
    assert f"{len(would['remove'])} of the {DAYS} of cup" in refused["message"]
    assert "--yes" in refused["hint"]
    assert listed(aged) == before

    done = aged.json("forget", "--yes")
    assert done["remove"] == would["remove"]
    assert done["removed"]
    assert listed(aged) == [each["id"] for each in would["keep"]]
    assert aged.json("forget")["remove"] == []
    assert aged.json("check")["ok"]
    oldest = would["keep"][-1]["id"]
    assert aged.json("restore", oldest, "--to", aged.cwd / "oldest.duckdb")["verified"]


def test_a_person_reads_it(aged: Program) -> None:
    told = aged.run("forget", "--dry-run").stdout
    lines = told.splitlines()
    assert lines[0] == f"cup: {DAYS} snapshots"
    assert lines[1].split() == ["ID", "TIME", "VERDICT"]
    assert lines[2].endswith("keep: newest good, last 1 of 3, daily 1 of 7, weekly 1 of 4")
    assert "REMOVE: no rule keeps it" in told
    removed = told.count("REMOVE")
    assert lines[-2] == f"Would remove {removed} of the {DAYS} snapshots of cup."
    assert lines[-1] == "That is more than half of cup: it will be refused unless you say --yes."

    done = aged.run("forget", "--yes")
    assert f"Removed {removed} of the {DAYS} snapshots of cup. The space comes back with prune." in done.stdout
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [each["event"] for each in events] == ["snapshot.forgotten"] * removed
    assert events[0]["taken"] < events[-1]["taken"]
    assert aged.run("forget").stdout.splitlines()[-1] == "Nothing to remove."


def test_it_fits_a_terminal(aged: Program, terminals: list[Terminal]) -> None:
    shown = Terminal(aged, "forget", "--dry-run")
    terminals.append(shown)
    assert shown.ended() == 0, shown.shown
    assert max(len(line.rstrip()) for line in shown.lines()) <= COLUMNS


def test_without_a_policy_everything_stays(aged: Program, database: Path) -> None:
    configure(aged, database, "")
    assert (
        aged.run("forget").stdout
        == f"cup has no retention policy: all {DAYS} snapshots are kept.\n\nNothing to remove.\n"
    )
    (aged.cwd / "flybackup.toml").unlink()
    for arguments in ([], ["--source", "cup"]):
        told = aged.run("forget", *arguments).stdout
        assert told.startswith(f"cup is not in the configuration: all {DAYS} snapshots are kept.\n")
    assert aged.json("forget")["sources"][0]["configured"] is False
    assert len(listed(aged)) == DAYS
    assert "no source is called 'cap'" in aged.json("forget", "--source", "cap", code=2)["error"]["message"]


def test_a_policy_that_would_keep_nothing(aged: Program, database: Path) -> None:
    configure(aged, database, "retention = { keep_last = 0 }\n")
    aged.run("forget", "--yes", code=2)
    assert "sources.cup.retention: " in aged.json("config", "validate", code=2)["problems"][0]


def test_the_write_key_is_enough_and_what_is_held_stays(aged: Program, database: Path) -> None:
    held = aged.json("backup", "--tag", "hold")["snapshots"][0]["id"]
    aged.run("backup")
    configure(aged, database, "retention = { keep_last = 1 }\n")
    key = aged.json("key", "write-key", reveals=True)["write_key"]
    agent = aged.having(FLYBACKUP_PASSPHRASE=None, FLYBACKUP_WRITE_KEY=key)
    agent.secrets.add(key)
    kept = agent.json("forget", "--yes")["keep"]
    assert [each["reasons"] for each in kept] == [["newest good", "last 1 of 1"], ["held"]]
    assert kept[1]["id"] == held


def test_days_are_those_of_the_configured_zone(aged: Program, database: Path) -> None:
    repository = open_with_passphrase(LocalStore(aged.cwd / "repository"), PASSPHRASE)
    newest = max(repository.snapshots(), key=lambda each: each.time)
    evening = datetime.fromisoformat("2020-06-01T23:00:00-07:00")
    for hour in range(2):
        made = replace(
            newest, id=SnapshotId(f"{hour + 999:016x}"), source="two", time=evening + timedelta(hours=2 * hour)
        )
        repository.put_snapshot(made)
    policy = f'[sources.two]\ntype = "duckdb"\npath = "{database}"\nretention = {{ keep_daily = 9 }}\n'
    for zone, removed in (("America/Los_Angeles", 0), ("UTC", 1)):
        configure(aged, database, f'{policy}[agent]\ntimezone = "{zone}"\n')
        assert len(aged.json("forget", "--source", "two", "--dry-run")["remove"]) == removed


def test_a_head_that_does_not_open_and_one_of_the_future(aged: Program, database: Path) -> None:
    repository = open_with_passphrase(LocalStore(aged.cwd / "repository"), PASSPHRASE)
    oldest, *_, newest = sorted(repository.snapshots(), key=lambda each: each.time)
    key = repository.snapshot_key("cup", oldest.time, oldest.id)
    (aged.cwd / "repository" / key).write_bytes(b"not what was written")
    ahead = replace(newest, id=SnapshotId("f" * 16), time=newest.time + timedelta(days=300))
    repository.put_snapshot(ahead)
    told = aged.json("forget", "--yes")
    assert told["keep"][0]["reasons"] == ["dated in the future"]
    assert [text.split(":")[0] for text in told["warnings"]] == ["dated in the future, of cup", key]
    assert {oldest.id, ahead.id} <= {name.rpartition("-")[2] for name in repository.snapshot_keys()}
    assert aged.run("forget").stdout.count("WARNING: ") == 2


def test_s3_and_credentials_that_may_only_read(flybackup: Program, database: Path, s3_server: S3Server) -> None:
    program = flybackup.having(FLYBACKUP_REPOSITORY=s3_server.url(), **s3_server.env())
    program.secrets.update({s3_server.secret_key, s3_server.reader_secret_key})
    program.secrets.add(program.json("init", reveals=True)["recovery_key"])
    configure(program, database, "retention = { keep_last = 1 }\n")
    program.run("backup")
    program.run("backup")
    reader = program.having(
        AWS_ACCESS_KEY_ID=s3_server.reader_access_key, AWS_SECRET_ACCESS_KEY=s3_server.reader_secret_key
    )
    assert len(reader.json("forget", "--dry-run")["remove"]) == 1
    assert "s3:DeleteObject" in reader.json("forget", code=20)["error"]["hint"]
    assert len(listed(program)) == 2
    assert len(program.json("forget")["remove"]) == 1
    assert len(listed(program)) == 1
