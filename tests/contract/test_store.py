"""The contract of `flybackup.stores`, for every store and every wrapper."""

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

import pytest
from blake3 import blake3
from servers.s3 import S3Server

from flybackup.errors import ObjectExistsError, ObjectNotFoundError, StoreError
from flybackup.stores import Buffer, Store
from flybackup.stores.caching import CachingStore
from flybackup.stores.conditional import prove_conditional_create
from flybackup.stores.counting import CountingStore
from flybackup.stores.local import LocalStore
from flybackup.stores.memory import MemoryStore
from flybackup.stores.retrying import RetryingStore
from flybackup.stores.s3 import open_s3

MIB = 1024 * 1024
PAGES = 2500

BASES = ["memory", "local", "s3"]
WRAPPERS = ["retrying", "caching", "counting"]
STORES = [*BASES, *(f"{wrapper}-{base}" for base in ("memory", "local") for wrapper in WRAPPERS), "caching-retrying-s3"]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    *wrappers, base = request.param.split("-")
    store = _base(base, request, tmp_path)
    for wrapper in reversed(wrappers):
        store = _wrapped(wrapper, store, tmp_path)
    return store


def _base(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if name == "memory":
        return MemoryStore()
    if name == "local":
        (tmp_path / "store").mkdir()
        return LocalStore(tmp_path / "store")
    server: S3Server = request.getfixturevalue("s3_server")
    return open_s3(server.url(), server.env())


def _wrapped(name: str, store: Store, tmp_path: Path) -> Store:
    if name == "retrying":
        return RetryingStore(store)
    if name == "counting":
        return CountingStore(store)
    # All keys are cached, so that the whole contract is put to the cache.
    return CachingStore(store, tmp_path / "cache", 64 * MIB, content_name=_blake3, wanted=lambda _: True)


def _blake3(data: bytes) -> str:
    return blake3(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 65_537, MIB, MIB + 1, 17 * MIB])
def test_an_object_comes_back_as_it_was_put(store: Store, size: int) -> None:
    data = secrets.token_bytes(size)

    store.put("packs/00/a", data)

    assert store.get("packs/00/a") == data
    assert list(store.list("packs/")) == [("packs/00/a", size)]


@pytest.mark.parametrize("lend", [bytes, bytearray, lambda data: memoryview(bytearray(b"x" + data + b"y"))[1:-1]])
@pytest.mark.parametrize("size", [1000, 3 * MIB])
def test_any_buffer_may_be_put_and_created(store: Store, lend: Callable[[bytes], Buffer], size: int) -> None:
    data = secrets.token_bytes(size)

    store.put("put", lend(data))
    store.create("created", lend(data))

    assert store.get("put") == store.get("created") == data


@pytest.mark.parametrize("size", [1000, 3 * MIB])
@pytest.mark.parametrize("write", ["put", "create"])
def test_a_buffer_belongs_to_the_caller_again(store: Store, write: str, size: int) -> None:
    data = secrets.token_bytes(size)
    buffer = bytearray(data)

    getattr(store, write)("key", buffer)
    buffer[:] = b"other"  # a BufferError if somebody still held it

    assert store.get("key") == data


def test_a_range_is_exact(store: Store) -> None:
    data = secrets.token_bytes(1000)
    store.put("key", data)

    for offset, length in [(0, 1), (0, 1000), (1, 998), (999, 1), (500, None), (999, None)]:
        assert store.get("key", offset=offset, length=length) == data[offset:][:length]


def test_a_range_outside_the_object_is_an_error(store: Store) -> None:
    store.put("key", secrets.token_bytes(1000))

    for offset, length in [(0, 1001), (999, 2), (1000, 1), (1000, None), (5000, 1), (-1, 1), (0, 0), (5, -1)]:
        with pytest.raises(StoreError) as caught:
            store.get("key", offset=offset, length=length)
        assert not isinstance(caught.value, ObjectNotFoundError)
        assert not caught.value.retryable


@pytest.mark.parametrize("length", [None, 10])
def test_an_absent_object_is_not_found(store: Store, length: int | None) -> None:
    store.put("some/thing", b"data")

    for key in ("absent", "some/absent", "some/thing/below", "some"):
        with pytest.raises(ObjectNotFoundError, match=key):
            store.get(key, length=length)


def test_putting_the_same_bytes_again_is_harmless(store: Store) -> None:
    store.put("key", b"data")
    store.put("key", b"data")

    assert store.get("key") == b"data"
    assert list(store.list("")) == [("key", 4)]


def test_create_refuses_a_key_that_is_taken(store: Store) -> None:
    store.create("lock/one", b"first")

    with pytest.raises(ObjectExistsError, match="lock/one"):
        store.create("lock/one", b"second")

    assert store.get("lock/one") == b"first"


def test_create_refuses_a_key_that_was_put(store: Store) -> None:
    store.put("key", b"first")

    with pytest.raises(ObjectExistsError):
        store.create("key", b"second")


def test_one_of_many_concurrent_creators_wins(store: Store) -> None:
    for turn in range(5):
        barrier = Barrier(8)

        def creates(name: int, key: str = f"lock/{turn}", barrier: Barrier = barrier) -> bytes | None:
            data = b"%d" % name
            barrier.wait()
            try:
                store.create(key, data)
            except ObjectExistsError:
                return None
            return data

        with ThreadPoolExecutor(8) as pool:
            won = [data for data in pool.map(creates, range(8)) if data is not None]

        assert won == [store.get(f"lock/{turn}")]


def test_conditional_creation_is_proved_and_leaves_nothing(store: Store) -> None:
    prove_conditional_create(store)

    assert list(store.list("")) == []


def test_several_threads_write_and_read_at_once(store: Store) -> None:
    objects = {f"packs/{number % 4:02}/{number}": secrets.token_bytes(10_000 + number) for number in range(40)}

    def round_trip(key: str) -> bool:
        store.put(key, objects[key])
        return store.get(key) == objects[key]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(round_trip, objects))
    assert [info.key for info in store.list("packs/")] == sorted(objects)


def test_a_listing_is_complete_and_ascending_however_many_pages(store: Store) -> None:
    keys = [f"packs/{number % 16:02x}/{number:08x}" for number in range(PAGES)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, key.encode()), [*keys, "index/1", "quux"]))

    assert [info.key for info in store.list("packs/")] == sorted(keys)
    assert [info.key for info in store.list("")] == ["index/1", *sorted(keys), "quux"]


def test_a_listing_holds_what_starts_with_its_prefix(store: Store) -> None:
    keys = ["a", "a0", "b/a.1", "b/c1", "b/cc/d1", "b/cc/d2", "b/cc/e", "b/cd/d", "b/d", "b0", "c-1/x", "c_1"]
    for key in keys:
        store.put(key, key.encode())

    for prefix in ("", "a", "a0", "b/", "b/c", "b/cc", "b/cc/", "b/cc/d", "b/x", "c", "snapshots/"):
        found = list(store.list(prefix))
        assert found == [(key, len(key)) for key in sorted(keys) if key.startswith(prefix)]


def test_a_listing_sees_every_write_that_has_returned(store: Store) -> None:
    for number in range(20):
        store.put(f"index/{number:02}", b"")
        assert len(list(store.list("index/"))) == number + 1


def test_delete_is_idempotent(store: Store) -> None:
    store.put("snapshots/a/1", b"data")

    store.delete("snapshots/a/1")
    store.delete("snapshots/a/1")
    store.delete("never/was")

    assert list(store.list("")) == []
    with pytest.raises(ObjectNotFoundError):
        store.get("snapshots/a/1")


def test_a_deleted_key_may_be_created_again(store: Store) -> None:
    store.create("key", b"one")
    store.delete("key")

    store.create("key", b"two")

    assert store.get("key") == b"two"


BAD_KEYS = ["", "/", "/etc/passwd", "../x", "a/../x", "a//b", "a/", ".tmp/x", "a/.b", "Upper", "a b", "a\0", "a\n", "ä"]


@pytest.mark.parametrize("method", ["put", "create", "get", "get a range", "delete"])
def test_what_is_no_key_is_refused(store: Store, method: str) -> None:
    attempts: dict[str, Callable[[str], object]] = {
        "put": lambda key: store.put(key, b""),
        "create": lambda key: store.create(key, b""),
        "get": store.get,
        "get a range": lambda key: store.get(key, length=1),
        "delete": store.delete,
    }

    for key in BAD_KEYS:
        with pytest.raises(StoreError, match="not a valid object key"):
            attempts[method](key)


def test_what_starts_no_key_is_refused_as_a_prefix(store: Store) -> None:
    for prefix in ("/", "../", "a//", "a/../", "A", "."):
        with pytest.raises(StoreError, match="not a valid object key"):
            list(store.list(prefix))


def test_times_are_aware_and_those_of_a_sane_clock(store: Store) -> None:
    # S3 tells whole seconds.
    before = datetime.now(UTC) - timedelta(seconds=2)

    times = [store.put("a", b""), store.create("b", b""), store.put("c", b"c")]

    assert all(time.utcoffset() == timedelta(0) for time in times)
    in_order = [before, *times, datetime.now(UTC) + timedelta(seconds=2)]
    assert in_order == sorted(in_order)


def test_a_url_names_the_place_and_no_secret(store: Store, s3_server: S3Server) -> None:
    assert store.url.split(":")[0] in {"memory", "file", "s3"}
    assert s3_server.secret_key not in store.url


def test_a_directory_lists_by_whole_keys_not_by_names(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    local, memory = LocalStore(tmp_path / "store"), MemoryStore()
    for key in ("a/b", "a-b", "a.b", "a0", "ab/c", "a_/c"):
        local.put(key, b"")
        memory.put(key, b"")

    assert list(local.list("")) == list(memory.list(""))
    assert [info.key for info in memory.list("")] == ["a-b", "a.b", "a/b", "a0", "a_/c", "ab/c"]
