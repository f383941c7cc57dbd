"""When a request is repeated, how long it waits, and what a repeated creation may conclude."""

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from flybackup.errors import ObjectExistsError, ObjectNotFoundError, StoreError
from flybackup.stores import Buffer, ObjectInfo
from flybackup.stores.memory import MemoryStore
from flybackup.stores.retrying import RetryingStore


class PassingClock:
    """Time passes only by sleeping."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 11, 20, tzinfo=UTC)

    def monotonic(self) -> float:
        return sum(self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class FaultyStore(MemoryStore):
    """Raises each of `before` ahead of a request, and each of `after` behind one that was done."""

    def __init__(self) -> None:
        super().__init__()
        self.before: deque[StoreError] = deque()
        self.after: deque[StoreError] = deque()
        self.break_listing_after: deque[int] = deque()

    def _fail(self, faults: deque[StoreError]) -> None:
        if faults:
            raise faults.popleft()

    def put(self, key: str, data: Buffer) -> datetime:
        self._fail(self.before)
        return super().put(key, data)

    def create(self, key: str, data: Buffer) -> datetime:
        self._fail(self.before)
        time = super().create(key, data)
        self._fail(self.after)
        return time

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        self._fail(self.before)
        return super().get(key, offset=offset, length=length)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        count = self.break_listing_after.popleft() if self.break_listing_after else None
        for number, info in enumerate(super().list(prefix)):
            if number == count:
                raise passing()
            yield info


def passing() -> StoreError:
    return StoreError("busy", retryable=True)


@pytest.fixture
def inner() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def clock() -> PassingClock:
    return PassingClock()


@pytest.fixture
def store(inner: FaultyStore, clock: PassingClock) -> RetryingStore:
    return RetryingStore(inner, clock, attempts=4, chance=lambda: 0)


def test_what_passes_is_repeated_after_twice_as_long_each_time(
    store: RetryingStore, inner: FaultyStore, clock: PassingClock
) -> None:
    inner.before.extend([passing()] * 3)

    store.put("key", b"data")

    assert clock.slept == [1, 2, 4]
    assert inner.get("key") == b"data"


def test_it_gives_up_with_the_last_error(store: RetryingStore, inner: FaultyStore, clock: PassingClock) -> None:
    last = passing()
    inner.before.extend([passing(), passing(), passing(), last])

    with pytest.raises(StoreError) as caught:
        store.get("key")

    assert caught.value is last
    assert len(clock.slept) == 3


def test_no_wait_is_longer_than_half_a_minute(inner: FaultyStore, clock: PassingClock) -> None:
    inner.before.extend([passing()] * 9)

    RetryingStore(inner, clock, attempts=10, chance=lambda: 0).put("key", b"")

    assert max(clock.slept) == 30


def test_up_to_half_of_each_wait_is_left_to_chance(inner: FaultyStore, clock: PassingClock) -> None:
    inner.before.extend([passing()] * 2)

    RetryingStore(inner, clock, chance=lambda: 1).put("key", b"")

    assert clock.slept == [0.5, 1]


@pytest.mark.parametrize("error", [StoreError("denied"), ObjectNotFoundError("absent")])
def test_what_does_not_pass_is_not_repeated(
    store: RetryingStore, inner: FaultyStore, clock: PassingClock, error: StoreError
) -> None:
    inner.before.append(error)

    with pytest.raises(StoreError) as caught:
        store.get("key")

    assert caught.value is error
    assert clock.slept == []


def test_a_creation_that_succeeded_unheard_succeeds(store: RetryingStore, inner: FaultyStore) -> None:
    inner.after.append(passing())

    assert store.create("lock", bytearray(b"mine")).tzinfo
    assert inner.get("lock") == b"mine"


def test_a_creation_that_failed_unheard_and_lost_is_refused(store: RetryingStore, inner: FaultyStore) -> None:
    inner.put("lock", b"another's")
    inner.before.append(passing())

    with pytest.raises(ObjectExistsError):
        store.create("lock", b"mine")
    assert inner.get("lock") == b"another's"


def test_a_creation_refused_at_once_is_refused_even_for_equal_bytes(store: RetryingStore, inner: FaultyStore) -> None:
    inner.put("lock", b"same")

    with pytest.raises(ObjectExistsError):
        store.create("lock", b"same")


def test_a_creation_that_keeps_failing_gives_up(store: RetryingStore, inner: FaultyStore) -> None:
    inner.before.extend([passing()] * 4)

    with pytest.raises(StoreError, match="busy"):
        store.create("lock", b"mine")


def test_a_listing_goes_on_where_it_broke_off(store: RetryingStore, inner: FaultyStore, clock: PassingClock) -> None:
    for number in range(10):
        inner.put(f"index/{number}", b"")
    inner.break_listing_after.extend([3, 0, 0, 7])

    assert [info.key for info in store.list("index/")] == [f"index/{number}" for number in range(10)]
    assert clock.slept == [1, 2, 4, 1], "the count begins anew when something was got"


def test_a_listing_that_keeps_breaking_off_gives_up(store: RetryingStore, inner: FaultyStore) -> None:
    inner.put("index/1", b"")
    inner.break_listing_after.extend([0] * 4)

    with pytest.raises(StoreError, match="busy"):
        list(store.list(""))
