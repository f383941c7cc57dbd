"""Forgetting: what is planned for a repository, and what is there afterwards."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import pytest
from engine.dated import head
from engine.simple import make_repository

from flybackup.clock import SystemClock
from flybackup.errors import ConfigError, RefusedError, StoreError
from flybackup.model import Snapshot, SnapshotId
from flybackup.operations.forget import ForgetPlan, forget, plan_forgetting
from flybackup.repository import Repository
from flybackup.retention import FUTURE, RetentionPolicy
from flybackup.stores.discarding import DiscardingStore
from flybackup.stores.memory import MemoryStore

FIRST = datetime(2026, 5, 1, 3, tzinfo=UTC)
Policies: TypeAlias = Mapping[str, RetentionPolicy | None]

LAST_TWO: Policies = {"app": RetentionPolicy(keep_last=2)}


class StoppedClock(SystemClock):
    """The store's: it stands a day after the tenth snapshot."""

    def now(self) -> datetime:
        return FIRST + timedelta(days=10)


def holding(*snapshots: Snapshot) -> Repository:
    repository = make_repository(MemoryStore(StoppedClock()))
    for each in snapshots:
        repository.put_snapshot(each)
    return repository


def days(count: int, *, source: str = "app", number: int = 0) -> list[Snapshot]:
    return [head(number + day, FIRST + timedelta(days=day), source=source) for day in range(count)]


def planned(repository: Repository, policies: Policies, source: str | None = None) -> ForgetPlan:
    return plan_forgetting(repository, policies, source=source, zone=UTC)


def ids(snapshots: Sequence[Snapshot]) -> list[str]:
    return [each.id for each in snapshots]


def there(repository: Repository) -> list[str]:
    return [key.rpartition("-")[2] for key in repository.snapshot_keys()]


def objects(repository: Repository) -> list[str]:
    return [info.key for info in repository.store.list("")]


def test_what_the_policy_does_not_keep_is_removed_and_nothing_else() -> None:
    repository = holding(*days(4), *days(3, source="other", number=100))
    before = objects(repository)
    plan = planned(repository, {**LAST_TWO, "other": None})
    assert [(each.source, ids(each.remove)) for each in plan.sources] == [("app", ids(days(2))[::-1]), ("other", [])]
    assert objects(repository) == before

    forget(repository, plan, even_most=False)

    gone = {repository.snapshot_key(each.source, each.time, each.id) for each in days(2)}
    assert objects(repository) == [key for key in before if key not in gone]
    assert planned(repository, LAST_TWO).sources[0].remove == ()


def test_a_plan_for_a_dry_run_writes_nothing() -> None:
    repository = holding(*days(4))
    discarding = repository.with_store(DiscardingStore(repository.store, StoppedClock()))
    before = objects(repository)
    plan = planned(discarding, LAST_TWO)
    forget(discarding, plan, even_most=False)
    assert len(plan.sources[0].remove) == 2
    assert objects(repository) == before


def test_of_one_source_only_that() -> None:
    repository = holding(*days(4), *days(4, source="other", number=100))
    both = {**LAST_TWO, "other": LAST_TWO["app"]}
    assert [each.source for each in planned(repository, both, "other").sources] == ["other"]
    assert planned(repository, {**both, "new": None}, "new").sources == ()
    with pytest.raises(ConfigError, match="no source is called 'nobody'"):
        planned(repository, both, "nobody")


def test_a_source_that_is_not_configured_any_more_keeps_everything() -> None:
    repository = holding(*days(9, source="old"))
    for source in (None, "old"):
        (plan,) = planned(repository, LAST_TWO, source).sources
        assert not plan.configured
        assert plan.remove == ()
        assert plan.verdicts[0].reasons == ("no policy",)


def test_more_than_half_is_refused_and_then_nothing_at_all_is_removed() -> None:
    repository = holding(*days(4), *days(5, source="other", number=100))
    plan = planned(repository, {**LAST_TWO, "other": LAST_TWO["app"]})
    with pytest.raises(RefusedError, match="3 of the 5 of other; nothing was") as caught:
        forget(repository, plan, even_most=False)
    assert "--yes" in caught.value.hint
    assert len(there(repository)) == 9
    forget(repository, plan, even_most=True)
    assert len(there(repository)) == 4


def test_the_first_snapshot_after_a_pause_wipes_no_history_unasked() -> None:
    """A window that moves over a pause leaves all behind it at once."""
    snapshots = [*days(5), head(50, FIRST + timedelta(days=9))]
    repository = holding(*snapshots)
    plan = planned(repository, {"app": RetentionPolicy(keep_within=timedelta(days=3))})
    assert len(plan.sources[0].remove) == 5
    with pytest.raises(RefusedError):
        forget(repository, plan, even_most=False)


def test_a_damaged_head_stays_is_named_and_counts_for_nothing() -> None:
    repository = holding(*days(4))
    newest = days(4)[-1]
    key = repository.snapshot_key("app", newest.time, newest.id)
    stored = bytearray(repository.store.get(key))
    stored[-1] ^= 1
    repository.store.put(key, stored)
    repository.store.put("snapshots/not-a-source/not-a-name", b"junk")

    plan = planned(repository, LAST_TWO)
    forget(repository, plan, even_most=False)

    assert {each.key for each in plan.damaged} == {key, "snapshots/not-a-source/not-a-name"}
    assert set(there(repository)) == {"name", *ids(days(4)[1:])}


def test_what_is_ahead_of_the_stores_clock_stays_and_pushes_nothing_out() -> None:
    ahead = head(99, FIRST + timedelta(days=11))
    repository = holding(*days(4), ahead)
    (plan,) = planned(repository, LAST_TWO).sources
    assert plan.verdicts[0] == (ahead, (FUTURE,))
    assert ids(plan.remove) == ids(days(2))[::-1]


def test_what_a_drill_verified_stays() -> None:
    repository = holding(*days(5))
    verified = [SnapshotId(each) for each in ids(days(2))]
    (plan,) = plan_forgetting(repository, LAST_TWO, source=None, zone=UTC, verified=verified).sources
    assert ids(plan.remove) == [days(5)[2].id, days(5)[0].id]


class UndeletableStore(MemoryStore):
    def delete(self, key: str) -> None:
        raise StoreError(f"{key}: the server refused: AccessDenied", hint="Allow s3:DeleteObject.")


def test_a_store_that_refuses_to_delete() -> None:
    repository = make_repository(UndeletableStore(StoppedClock()))
    for each in days(4):
        repository.put_snapshot(each)
    plan = planned(repository, LAST_TWO)
    with pytest.raises(
        StoreError, match=r"0 of 2 snapshots were removed, then 0+0 of app could not be: .*AccessDenied"
    ) as caught:
        forget(repository, plan, even_most=False)
    assert caught.value.hint.startswith("Allow s3:DeleteObject. Forgetting needs credentials that may delete")
    planned(repository, LAST_TWO)
    assert [info.key for info in repository.store.list("probes/")] == ["probes/clock"]


class WatchedStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__(StoppedClock())
        self.deleted: list[str] = []

    def delete(self, key: str) -> None:
        super().delete(key)
        self.deleted.append(key.rpartition("-")[2])


def test_the_oldest_go_first() -> None:
    store = WatchedStore()
    repository = make_repository(store)
    for each in days(9):
        repository.put_snapshot(each)
    plan = planned(repository, LAST_TWO)
    store.deleted.clear()
    forget(repository, plan, even_most=True)
    assert store.deleted == ids(days(7))


def test_two_at_once_agree() -> None:
    repository = holding(*days(9))
    first, second = planned(repository, LAST_TWO), planned(repository, LAST_TWO)
    forget(repository, first, even_most=True)
    forget(repository, second, even_most=True)
    assert there(repository) == ids(days(9)[7:])


class VanishingStore(MemoryStore):
    """Another run removes the oldest head as soon as this one has listed."""

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        if key.startswith("snapshots/"):
            self.delete(next(iter(self.list("snapshots/"))).key)
        return super().get(key, offset=offset, length=length)


def test_heads_that_another_run_removes_meanwhile() -> None:
    repository = make_repository(VanishingStore(StoppedClock()))
    for each in days(3):
        repository.put_snapshot(each)
    assert planned(repository, LAST_TWO) == ForgetPlan((), ())
