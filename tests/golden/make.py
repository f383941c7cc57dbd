"""Made the frozen repository, once: `PYTHONPATH=tests python tests/golden/make.py DIRECTORY`.

If this has to run again for format 1, every repository in the world would have to be made again too.
"""

import hashlib
import json
import random
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from flybackup import repository as repositories
from flybackup.chunking import Extent, Fixed
from flybackup.clock import SystemClock
from flybackup.manifest import Kept
from flybackup.model import Entry, Facts, TableFacts
from flybackup.operations.backup import BackupRequest, backup
from flybackup.packer import Pace
from flybackup.sources import Captured, Restoration, RestoreOptions, Source, Stream
from flybackup.sources.duckdb.source import DuckdbSource
from flybackup.stores.local import LocalStore

PASSPHRASE = "golden passphrase of format 1"
CLOCK = SystemClock()
SMALL = Pace(pack_bytes=64 * 1024, batch_bytes=16 * 1024)


@dataclass
class Everything:
    """Streams that use every feature of the format: raw and compressed chunks, holes, replaced blocks, no bytes."""

    kind: str = "golden"
    fixes_view: bool = False

    @contextmanager
    def capture(self, scratch: Path, previous: Iterable[Kept] = ()) -> Iterator["Everything"]:
        yield self

    def streams(self) -> Iterator[Stream]:
        noise = random.Random(1).randbytes(40_000)
        text = b"".join(b"%d,row of a table\n" % number for number in range(9000))
        yield Stream(Entry(path="noise", kind="file", mode=0o600, mtime_ns=1), iter([Extent(0, noise)]))
        yield Stream(Entry(path="text", kind="dump"), iter([Extent(0, text)]))
        yield Stream(Entry(path="empty", kind="file"), iter([]))
        blocks = [Extent(0, b"h" * 100), Extent(100, b"a" * 64), Extent(228, b"c" * 64), Extent(100, b"b" * 64)]
        sparse = iter([*blocks, Extent(1_000_000, b"")])
        yield Stream(Entry(path="sparse \U0001f986", kind="file"), sparse, Fixed(100, 64))

    def finish(self) -> Captured:
        facts = Facts(tables={"main.text": TableFacts(rows=9000, checksum="abc")}, sequences={"main.s": 7}, files=4)
        return Captured(facts, "by hand", ("a warning",))

    def restore(
        self, streams: Iterator[Stream], options: RestoreOptions, scratch: Path
    ) -> AbstractContextManager[Restoration]:
        raise NotImplementedError

    def probe(self, *, checksums: bool, scratch: Path) -> Facts:
        raise NotImplementedError


def main(directory: Path) -> None:
    directory.mkdir()
    store = LocalStore(directory / "repository")
    (directory / "repository").mkdir()
    repository = repositories.create(store, PASSPHRASE, label="golden", now=CLOCK.now())
    with tempfile.TemporaryDirectory() as scratch:
        first = back_up(repository, Everything(), "everything", Path(scratch))
        database = Path(scratch) / "app.duckdb"
        make_database(database)
        second = back_up(repository, DuckdbSource(database), "app", Path(scratch) / "s")
        digest = hashlib.sha256(database.read_bytes()).hexdigest()
    for rest in (directory / "repository").rglob(".tmp"):
        rest.rmdir()
    master = repository.require_master("this")
    (directory / "keys.json").write_text(
        json.dumps(
            {
                "passphrase": PASSPHRASE,
                "recovery_key": master.recovery_text(),
                "write_key": repository.write_key.text(),
                "everything": first,
                "app": second,
                "app_sha256": digest,
            },
            indent=2,
        )
        + "\n"
    )


def back_up(repository: repositories.Repository, source: Source, name: str, scratch: Path) -> str:
    scratch.mkdir(exist_ok=True)
    request = BackupRequest(name, ("golden", "format-1"), scratch, SMALL)
    return backup(repository, source, request, clock=CLOCK, on_progress=lambda _: None).id


def make_database(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE matches AS SELECT i AS id, 'match ' || i AS name FROM range(345) t(i)")
        connection.execute("CREATE TABLE players (id INTEGER PRIMARY KEY, name VARCHAR)")
        connection.execute("INSERT INTO players SELECT i, 'player ' || i FROM range(12) t(i)")
        connection.execute("CHECKPOINT")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
