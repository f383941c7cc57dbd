"""A frozen repository of format 1 opens for ever, by every key, and restores bit for bit."""

import hashlib
import json
import random
from datetime import UTC
from pathlib import Path

import pytest
from engine.simple import CLOCK

from flybackup import repository as repositories
from flybackup.model import Entry, Facts, TableFacts
from flybackup.operations.check import check
from flybackup.operations.restore import RestoreRequest, restore
from flybackup.operations.select import select
from flybackup.reading import Reader
from flybackup.repository import Repository
from flybackup.sources import RestoreOptions
from flybackup.sources.duckdb.source import DuckdbSource
from flybackup.stores.local import LocalStore

HERE = Path(__file__).parent / "v1"
KEYS = json.loads((HERE / "keys.json").read_text())
STORE = LocalStore(HERE / "repository")

TEXT = b"".join(b"%d,row of a table\n" % number for number in range(9000))
SPARSE = (b"h" * 100 + b"b" * 64 + bytes(64) + b"c" * 64).ljust(1_000_000, b"\0")
EVERYTHING = {
    Entry(path="noise", kind="file", size=40_000, mode=0o600, mtime_ns=1): random.Random(1).randbytes(40_000),
    Entry(path="text", kind="dump", size=len(TEXT)): TEXT,
    Entry(path="empty", kind="file"): b"",
    Entry(path="sparse \U0001f986", kind="file", size=1_000_000): SPARSE,
}


def opened() -> list[Repository]:
    return [
        repositories.open_with_passphrase(STORE, KEYS["passphrase"]),
        repositories.open_with_recovery_key(STORE, KEYS["recovery_key"]),
    ]


@pytest.mark.parametrize("repository", opened(), ids=["passphrase", "recovery key"])
def test_every_feature_of_the_format_reads_back(repository: Repository) -> None:
    snapshot = select(repository, KEYS["everything"], timezone=UTC)
    read = {}
    with Reader(repository, repository.load_index()) as reader:
        for entry, chunks in reader.entries(snapshot):
            data = bytearray(entry.size)
            for offset, piece in reader.extents(chunks):
                data[offset : offset + len(piece)] = piece
            read[entry] = bytes(data)

    assert read == EVERYTHING
    assert snapshot.facts == Facts(
        tables={"main.text": TableFacts(rows=9000, checksum="abc")}, sequences={"main.s": 7}, files=4
    )
    assert (snapshot.source, snapshot.kind, snapshot.method) == ("everything", "golden", "by hand")
    assert (snapshot.tags, snapshot.warnings) == (("golden", "format-1"), ("a warning",))


def test_the_write_key_lists_and_checks() -> None:
    agent = repositories.open_with_write_key(STORE, KEYS["write_key"])

    assert {snapshot.source for snapshot in agent.snapshots()} == {"everything", "app"}
    assert check(agent, read_data=True, on_progress=lambda _: None).ok


def test_a_database_restores_with_its_counts(tmp_path: Path) -> None:
    (repository, _) = opened()
    target = tmp_path / "app.duckdb"
    (tmp_path / "scratch").mkdir()

    report = restore(
        repository,
        select(repository, "app", timezone=UTC),
        DuckdbSource(target),
        RestoreRequest(str(target), tmp_path / "scratch", RestoreOptions()),
        clock=CLOCK,
        on_progress=lambda _: None,
    )

    assert report.verified
    assert {(t.name, t.actual) for t in report.tables} == {("main.matches", 345), ("main.players", 12)}
    assert hashlib.sha256(target.read_bytes()).hexdigest() == KEYS["app_sha256"]
