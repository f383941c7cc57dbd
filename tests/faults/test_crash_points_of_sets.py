"""A set of two whose store fails, or which is killed, at the n-th store call, for every n.

Afterwards every committed snapshot restores, the other is simply absent, and the next run takes both.
"""

import itertools
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from engine.faulty_store import Fault, FaultyStore
from engine.simple import NEW, OLD, back_up_set, checked, make_repository, restored

from flybackup.model import Snapshot
from flybackup.repository import Repository
from flybackup.stores.local import LocalStore

Moment = Literal["before", "after"]
SET = (replace(NEW, name="first", fixes_view=True), replace(OLD, name="second"))


def set_calls() -> int:
    repository = make_repository()
    counting = FaultyStore(repository.store)
    back_up_set(repository.with_store(counting), SET)
    return counting.calls


FAULTS: list[tuple[int, Moment]] = list(itertools.product(range(set_calls()), ("before", "after")))


def committed(repository: Repository) -> set[str]:
    """Return what is there: it is whole, what is not there is in nobody's way, and the next set takes both."""
    there = {snapshot.source for snapshot in repository.snapshots()}
    assert all(restored(repository, each.name) == each.content for each in SET if each.name in there)
    assert checked(repository).ok
    assert all(isinstance(each, Snapshot) for each in back_up_set(repository, SET))
    assert all(restored(repository, each.name) == each.content for each in SET)
    return there


@pytest.mark.parametrize(("call", "moment"), FAULTS)
def test_a_set_whose_store_fails_at_any_call(call: int, moment: Moment) -> None:
    repository = make_repository()
    store = FaultyStore(repository.store, Fault(call, moment))

    outcomes = back_up_set(repository.with_store(store), SET)

    assert store.reached
    told = {each.source for each in outcomes if isinstance(each, Snapshot)}
    assert len(told) < len(SET)
    assert told <= committed(repository)  # of a head that was put, the answer may have been lost


@pytest.mark.parametrize(("call", "moment"), FAULTS[::3])
def test_a_set_that_is_killed(call: int, moment: Moment, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    repository = make_repository(LocalStore(tmp_path / "store"))
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "engine.die", str(tmp_path / "store"), str(call), moment, "set"]

    child = subprocess.run(command, env=where, timeout=60, check=False)

    assert child.returncode == -signal.SIGKILL
    committed(repository)


def test_the_sweep_falls_between_the_commits() -> None:
    """Or the tests above have not shown that one is kept without the other."""
    kept = set()
    for call, moment in FAULTS:
        repository = make_repository()
        back_up_set(repository.with_store(FaultyStore(repository.store, Fault(call, moment))), SET)
        kept.add(frozenset(snapshot.source for snapshot in repository.snapshots()))
    assert kept == {frozenset(), frozenset({"second"}), frozenset({"first", "second"})}
