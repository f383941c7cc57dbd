"""Fail, or be killed, at the n-th store call, before or after it took effect, for every n.

Afterwards the repository opens, older snapshots restore, check finds nothing, and the next backup succeeds.
"""

import itertools
import os
import signal
import subprocess
import sys
import threading
import traceback
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Literal, NoReturn

import pytest
from engine.faulty_store import Fault, FaultyStore
from engine.simple import CLOCK, NEW, OLD, PASSPHRASE, SCRATCH, back_up, checked, make_repository, restored

from flybackup import repository as repositories
from flybackup.errors import RefusedError, StoreError
from flybackup.model import Progress
from flybackup.operations.backup import BackupRequest, backup
from flybackup.packer import Pace
from flybackup.packing import pack_key
from flybackup.repository import Repository
from flybackup.stores import Buffer
from flybackup.stores.local import LocalStore
from flybackup.stores.memory import MemoryStore

Moment = Literal["before", "after"]
MOMENTS: tuple[Moment, ...] = ("before", "after")


def backup_calls() -> int:
    repository = make_repository()
    back_up(repository, OLD)
    counting = FaultyStore(repository.store)
    back_up(repository.with_store(counting), NEW)
    return counting.calls


CALLS = backup_calls()


def assert_sound(repository: Repository, old_id: str) -> None:
    """Whatever happened: nothing committed is lost, and the next backup works and is whole."""
    assert restored(repository, old_id) == OLD.content
    assert checked(repository).ok
    back_up(repository, NEW)
    assert restored(repository) == NEW.content
    assert checked(repository).ok


def test_the_sweep_has_something_to_sweep() -> None:
    assert CALLS > 10


@pytest.mark.parametrize(("call", "moment"), list(itertools.product(range(CALLS), MOMENTS)))
def test_a_backup_whose_store_fails_at_any_call(call: int, moment: Moment) -> None:
    repository = make_repository()
    old = back_up(repository, OLD)
    store = FaultyStore(repository.store, Fault(call, moment))

    with pytest.raises(StoreError, match="this fault was ordered"):
        back_up(repository.with_store(store), NEW)

    assert store.reached
    assert_sound(repository, old.id)


@pytest.mark.parametrize(("call", "moment"), list(itertools.product(range(CALLS), MOMENTS)))
def test_a_backup_killed_at_any_call(call: int, moment: Moment, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    repository = make_repository(LocalStore(tmp_path / "store"))
    old = back_up(repository, OLD)
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "engine.die", str(tmp_path / "store"), str(call), moment]

    child = subprocess.run(command, env=where, timeout=60, check=False)

    assert child.returncode == -signal.SIGKILL
    assert_sound(repository, old.id)


def init_calls() -> int:
    counting = FaultyStore(MemoryStore(CLOCK))
    make_repository(counting)
    return counting.calls


@pytest.mark.parametrize(("call", "moment"), list(itertools.product(range(init_calls()), MOMENTS)))
def test_an_init_that_fails_at_any_call_leaves_none_or_a_whole_one(call: int, moment: Moment) -> None:
    store = FaultyStore(MemoryStore(CLOCK), Fault(call, moment))

    with pytest.raises(StoreError):
        make_repository(store)

    assert store.reached
    try:
        repository = make_repository(store.inner)
    except RefusedError:
        repository = repositories.open_with_passphrase(store.inner, PASSPHRASE)
    back_up(repository, OLD)
    assert restored(repositories.open_with_passphrase(store.inner, PASSPHRASE)) == OLD.content


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupted_backup_resumes(moment: Moment) -> None:
    """What was put and indexed before the fault is not put again."""
    first = back_up(make_repository(), NEW).summary
    repository = make_repository()

    with pytest.raises(StoreError):
        back_up(repository.with_store(FaultyStore(repository.store, Fault(CALLS - 4, moment))), NEW)
    resumed = back_up(repository, NEW).summary

    assert resumed.chunks == first.chunks
    assert resumed.chunks_new < first.chunks_new
    assert restored(repository) == NEW.content


class StopHereError(Exception):
    """Stands for SIGTERM: raised in the calling thread, between two extents."""


def test_a_stopped_backup_indexes_what_it_put() -> None:
    repository = make_repository()
    never = Pace(pack_bytes=256 * 1024, batch_bytes=64 * 1024, index_every_bytes=1 << 40, index_every_seconds=1e9)

    def stop(progress: Progress) -> None:
        if progress.done_bytes > 2_500_000:
            raise StopHereError

    with pytest.raises(StopHereError):
        backup(repository, NEW, BackupRequest("app", (), SCRATCH, never), clock=CLOCK, on_progress=stop)
    resumed = back_up(repository, NEW).summary

    assert resumed.bytes_new < 1_700_000
    assert restored(repository) == NEW.content


class StoppingStore(MemoryStore):
    """Raises a signal in the calling thread as soon as that waits for the n-th pack to be put."""

    def __init__(self, packs: int) -> None:
        super().__init__(CLOCK)
        self._left = packs
        self._stopped = threading.Event()

    def put(self, key: str, data: Buffer) -> datetime:
        if key.startswith("packs/"):
            self._left -= 1
            if self._left == 0:
                self._stop_the_waiting()
            elif self._left < 0:
                self._stopped.wait(60)
        return super().put(key, data)

    def _stop_the_waiting(self) -> None:
        main = threading.main_thread().ident or 0
        for _ in range(30_000):
            # In `_sealed` a whole pack is handed on, and the calling thread waits for an earlier one to be put.
            if {"_sealed", "result", "wait"} <= calls_of(main):
                break
            self._stopped.wait(0.001)
        else:
            raise AssertionError("the calling thread never waited for a pack to be put")
        signal.pthread_kill(main, signal.SIGUSR1)
        self._stopped.wait(60)

    def stop(self, signum: int, frame: FrameType | None) -> NoReturn:
        self._stopped.set()
        raise StopHereError


def calls_of(thread: int) -> set[str]:
    return {frame.f_code.co_name for frame, _ in traceback.walk_stack(sys._current_frames()[thread])}


def test_a_pack_that_is_being_put_at_a_stop_is_indexed() -> None:
    store = StoppingStore(packs=3)
    repository = make_repository(store)
    never = Pace(pack_bytes=256 * 1024, batch_bytes=64 * 1024, index_every_bytes=1 << 40, index_every_seconds=1e9)
    before = signal.signal(signal.SIGUSR1, store.stop)

    try:
        with pytest.raises(StopHereError):
            back_up(repository, NEW, pace=never)
    finally:
        signal.signal(signal.SIGUSR1, before)

    put = {info.key for info in store.list("packs/")}
    assert len(put) >= 3
    assert {pack_key(pack) for pack in repository.load_index().packs} == put
