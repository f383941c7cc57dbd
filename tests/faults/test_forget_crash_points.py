"""Fail, or be killed, at the n-th store call of `forget`, before or after it took effect, for every n.

Afterwards everything that was to stay is there and restores, and the next run finishes.
"""

import itertools
from collections.abc import Callable
from datetime import UTC
from typing import Literal, NoReturn

import pytest
from engine.faulty_store import Fault, FaultyStore, fail
from engine.simple import NEW, OLD, back_up, checked, make_repository, restored

from flybackup.errors import StoreError
from flybackup.operations.forget import forget, plan_forgetting
from flybackup.repository import Repository
from flybackup.retention import RetentionPolicy

Moment = Literal["before", "after"]
POLICIES = {"app": RetentionPolicy(keep_last=2)}
SNAPSHOTS = 5


class KilledError(BaseException):
    """Stands for a kill: nothing in flybackup catches it, and the store does nothing any more."""


def die() -> NoReturn:
    raise KilledError


def run(repository: Repository) -> None:
    forget(repository, plan_forgetting(repository, POLICIES, source=None, zone=UTC), even_most=True)


def filled() -> tuple[Repository, list[str]]:
    """Return a repository and the ids of its snapshots, oldest first."""
    repository = make_repository()
    # Growing only: what lost something would be marked, and kept with the one before it.
    ids = [back_up(repository, NEW if number else OLD).id for number in range(SNAPSHOTS - 1)]
    held = back_up(repository, OLD, "held", tags=["hold"]).id
    return repository, [*ids, held]


def calls() -> int:
    repository, _ = filled()
    counting = FaultyStore(repository.store)
    run(repository.with_store(counting))
    return counting.calls


CALLS = calls()


def test_the_sweep_has_something_to_sweep() -> None:
    assert CALLS == 1 + SNAPSHOTS + 2 + 2  # the list, the heads, the clock, and what goes


@pytest.mark.parametrize("act", [fail, die])
@pytest.mark.parametrize(("call", "moment"), list(itertools.product(range(CALLS), ("before", "after"))))
def test_a_forget_that_ends_at_any_call(call: int, moment: Moment, act: Callable[[], NoReturn]) -> None:
    repository, ids = filled()
    store = FaultyStore(repository.store, Fault(call, moment, act))

    with pytest.raises((StoreError, KilledError)):
        run(repository.with_store(store))

    assert store.reached
    left = {snapshot.id for snapshot in repository.snapshots()}
    assert set(ids[2:]) <= left
    assert left in ({*ids}, {*ids[1:]}, {*ids[2:]})
    assert restored(repository) == NEW.content
    assert checked(repository).ok
    run(repository)
    assert {snapshot.id for snapshot in repository.snapshots()} == set(ids[2:])
    assert restored(repository) == NEW.content
