from concurrent.futures import ThreadPoolExecutor

import pytest

from flybackup.errors import ObjectExistsError, ObjectNotFoundError
from flybackup.stores.counting import CountingStore, Usage
from flybackup.stores.memory import MemoryStore


@pytest.fixture
def store() -> CountingStore:
    return CountingStore(MemoryStore())


def test_requests_are_counted_by_method_and_bytes_both_ways(store: CountingStore) -> None:
    store.put("a", b"12345")
    store.put("b", memoryview(b"123"))
    store.create("c", bytearray(b"1"))
    store.get("a", offset=1, length=2)
    store.delete("a")
    assert list(store.list(""))

    assert store.usage() == Usage(
        requests={"put": 2, "create": 1, "get": 1, "delete": 1, "list": 1}, bytes_sent=9, bytes_received=2
    )
    assert store.usage().total == 6


def test_failures_are_requests_too(store: CountingStore) -> None:
    store.create("a", b"12345")
    with pytest.raises(ObjectExistsError):
        store.create("a", b"12345")
    with pytest.raises(ObjectNotFoundError):
        store.get("b")

    assert store.usage() == Usage(requests={"create": 2, "get": 1}, bytes_sent=5, bytes_received=0)


@pytest.mark.parametrize(("objects", "requests"), [(0, 1), (1, 1), (1000, 1), (1001, 2), (2000, 2), (2001, 3)])
def test_a_listing_counts_for_each_thousand_as_s3_charges(store: CountingStore, objects: int, requests: int) -> None:
    for number in range(objects):
        store.put(f"{number:05}", b"")

    assert len(list(store.list(""))) == objects
    assert store.usage().requests["list"] == requests


def test_no_thread_s_request_is_lost(store: CountingStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.put(str(number), b"1"), range(2000)))

    assert store.usage() == Usage(requests={"put": 2000}, bytes_sent=2000)
