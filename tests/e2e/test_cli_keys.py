"""Who can open what: passphrases, the write key, the recovery key. No secret is printed unless it was asked for."""

import shutil
from pathlib import Path

from rigs.program import PASSPHRASE, Program

OTHER = "another passphrase altogether"


def test_a_wrong_passphrase(backed_up: Program) -> None:
    answer = backed_up.having(FLYBACKUP_PASSPHRASE="not the right one").json("snapshots", code=12)
    assert answer["error"]["exit_code"] == 12
    assert "recovery key" in answer["error"]["hint"]


def test_no_secret_at_all(backed_up: Program) -> None:
    done = backed_up.having(FLYBACKUP_PASSPHRASE=None).run("snapshots", code=2)
    assert "FLYBACKUP_PASSPHRASE" in done.stderr


def test_the_passphrase_may_lie_in_a_file(backed_up: Program) -> None:
    file = backed_up.cwd / "passphrase"
    file.write_text(f"{PASSPHRASE}\n")
    program = backed_up.having(FLYBACKUP_PASSPHRASE=None, FLYBACKUP_PASSPHRASE_FILE=str(file))
    assert len(program.json("snapshots")["snapshots"]) == 1


def test_the_write_key_writes_and_lists_but_does_not_read(backed_up: Program, database: Path) -> None:
    printed = backed_up.run("key", "write-key", reveals=True).stdout
    assert printed.count("\n") == 1
    backed_up.secrets.add(printed.strip())
    agent = backed_up.having(FLYBACKUP_PASSPHRASE=None, FLYBACKUP_WRITE_KEY=printed.strip())
    agent.run("backup", database)
    assert len(agent.json("snapshots")["snapshots"]) == 2
    agent.run("show", "tournament")
    agent.run("check", "--read-data")
    refused = agent.json("restore", "tournament", "--to", agent.cwd / "copy.duckdb", code=12)
    assert "FLYBACKUP_PASSPHRASE" in refused["error"]["hint"]
    agent.run("key", "recovery", code=12)


def test_the_recovery_key_needs_no_other(backed_up: Program) -> None:
    printed = backed_up.json("key", "recovery", reveals=True)["recovery_key"]
    assert printed in backed_up.secrets  # the one that init printed
    shutil.rmtree(backed_up.cwd / "repository" / "keys")
    backed_up.run("snapshots", code=12)
    survivor = backed_up.having(FLYBACKUP_PASSPHRASE=None, FLYBACKUP_RECOVERY_KEY=printed.lower())
    assert survivor.json("restore", "tournament", "--to", survivor.cwd / "copy.duckdb")["verified"]
    assert survivor.json("key", "list") == {"keys": []}


def test_passphrases_come_and_go(backed_up: Program) -> None:
    backed_up.secrets.add(OTHER)
    first = backed_up.json("key", "list")["keys"][0]["id"]
    backed_up.run("key", "remove", first[:8], code=24)
    added = backed_up.having(FLYBACKUP_NEW_PASSPHRASE=OTHER).json("key", "add", "--label", "second")["added"]
    assert {each["label"] for each in backed_up.json("key", "list")["keys"]} >= {"second"}
    backed_up.run("key", "remove", "ffffffffffff", code=2)
    assert backed_up.json("key", "remove", first[:8])["removed"] == first
    backed_up.run("snapshots", code=12)
    other = backed_up.having(FLYBACKUP_PASSPHRASE=OTHER)
    assert [each["id"] for each in other.json("key", "list")["keys"]] == [added]


def test_a_weak_passphrase_is_refused(flybackup: Program) -> None:
    for weak in ("", "short"):
        flybackup.having(FLYBACKUP_PASSPHRASE=weak).run("init", code=2)
    assert not (flybackup.cwd / "repository").exists()


def test_tracebacks_hold_no_secret(backed_up: Program, database: Path) -> None:
    url = "postgresql://someone:s3cret-of-somebody@127.0.0.1:1/nothing"
    backed_up.secrets.add("s3cret-of-somebody")
    environment = backed_up.having(THEIR_URL=url)
    (backed_up.cwd / "flybackup.toml").write_text('[sources.lost]\ntype = "postgres"\nurl = "${THEIR_URL}"\n')
    environment.run("-v", "backup", "lost", code=22)
    environment.run("config", "show")
    environment.run("config", "show", "--json")
    environment.run("doctor", code=1)
