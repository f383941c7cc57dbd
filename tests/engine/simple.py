"""The engine's operations with everything filled in, for tests that are about one thing."""

import random
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC
from pathlib import Path

from engine.bytes_source import BytesSource
from flybackup import keys, repository as repositories
from flybackup.chunking import Fixed
from flybackup.clock import SystemClock
from flybackup.model import Snapshot
from flybackup.operations.backup import BackupRequest, Outcome, Planned, backup, backup_set
from flybackup.operations.check import CheckReport, check
from flybackup.operations.restore import RestoreRequest, restore
from flybackup.operations.select import select
from flybackup.operations.verify import RestoreReport
from flybackup.packer import Pace
from flybackup.repository import Repository
from flybackup.sources import RestoreOptions
from flybackup.stores import Store
from flybackup.stores.memory import MemoryStore

CLOCK = SystemClock()
SCRATCH = Path("unused")
PASSPHRASE = "correct horse"
SMALL = Pace(pack_bytes=512 * 1024, batch_bytes=128 * 1024, index_every_bytes=1024 * 1024)
"""Packs small enough that a few megabytes make many of them."""
_BLOCKS = Fixed(64 * 1024, 64 * 1024)
OLD = BytesSource({"db": random.Random(1).randbytes(1_500_000)}, _BLOCKS)
NEW = BytesSource({"db": OLD.content["db"][:786_432] + random.Random(2).randbytes(2_500_000), "wal": b"end"}, _BLOCKS)
"""Fixed chunks, so that every run makes the same calls."""


def make_repository(store: Store | None = None) -> Repository:
    # Cheap key stretching: these tests are about what comes after it.
    cheap = keys.Argon2Cost(memory_kib=64, iterations=1, lanes=1)
    return repositories.create(store or MemoryStore(CLOCK), PASSPHRASE, label="test", now=CLOCK.now(), cost=cheap)


def back_up(
    repository: Repository, source: BytesSource, name: str = "app", tags: Sequence[str] = (), pace: Pace = SMALL
) -> Snapshot:
    request = BackupRequest(name, tags, SCRATCH, pace)
    return backup(repository, source, request, clock=CLOCK, on_progress=lambda _: None)


def back_up_set(repository: Repository, sources: Sequence[BytesSource], pace: Pace = SMALL) -> list[Outcome]:
    """Back up *sources*, by their names, as one set."""
    planned = [Planned(source, BackupRequest(source.name, (), SCRATCH, pace)) for source in sources]
    return backup_set(repository, planned, clock=CLOCK, watch=lambda _: nullcontext(lambda _: None))


def restored(repository: Repository, what: str = "app") -> dict[str, bytes]:
    """Restore into a new source, verified, and return what is in it."""
    target = BytesSource()
    report = restore_into(repository, what, target)
    assert report.verified, report
    return target.content


def restore_into(repository: Repository, what: str, target: BytesSource) -> RestoreReport:
    request = RestoreRequest("target", SCRATCH, RestoreOptions())
    snapshot = select(repository, what, timezone=UTC)
    return restore(repository, snapshot, target, request, clock=CLOCK, on_progress=lambda _: None)


def checked(repository: Repository, *, read_data: bool = True) -> CheckReport:
    return check(repository, read_data=read_data, on_progress=lambda _: None)
