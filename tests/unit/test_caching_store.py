"""What is fetched once only, what is not believed, and that a broken cache is never a failure."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3

from flybackup.errors import ObjectNotFoundError
from flybackup.stores import Store
from flybackup.stores.caching import CachingStore
from flybackup.stores.counting import CountingStore
from flybackup.stores.memory import MemoryStore

MAX_BYTES = 100_000
SNAPSHOT = "snapshots/source/20261120t030000z-0123456789abcdef"


def name_of(data: bytes) -> str:
    return blake3(data).hexdigest()


def index_key(data: bytes) -> str:
    return f"index/{name_of(data)}"


@pytest.fixture
def inner() -> CountingStore:
    return CountingStore(MemoryStore())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(inner: Store, directory: Path) -> CachingStore:
    return opened(inner, directory)


def opened(inner: Store, directory: Path, wanted: Callable[[str], bool] | None = None) -> CachingStore:
    if wanted:
        return CachingStore(inner, directory, MAX_BYTES, content_name=name_of, wanted=wanted)
    return CachingStore(inner, directory, MAX_BYTES, content_name=name_of)


def gets(store: CountingStore) -> int:
    return store.usage().requests.get("get", 0)


@pytest.mark.parametrize("key", [index_key(b"data"), SNAPSHOT])
def test_metadata_is_fetched_once_also_by_later_processes(inner: CountingStore, directory: Path, key: str) -> None:
    inner.put(key, b"data")

    for _ in range(3):
        assert opened(inner, directory).get(key) == b"data"

    assert gets(inner) == 1


def test_what_was_written_here_is_not_fetched_at_all(inner: CountingStore, store: CachingStore) -> None:
    store.put(index_key(b"data"), bytearray(b"data"))
    store.create(SNAPSHOT, memoryview(b"head"))

    assert store.get(index_key(b"data")) == b"data"
    assert store.get(SNAPSHOT) == b"head"
    assert gets(inner) == 0


def test_packs_and_ranges_are_not_cached(inner: CountingStore, store: CachingStore, directory: Path) -> None:
    inner.put("packs/ab/1", b"data")
    inner.put(SNAPSHOT, b"head")
    for _ in range(2):
        store.get("packs/ab/1")
        store.get(SNAPSHOT, offset=1)
        store.get(SNAPSHOT, length=4)

    assert gets(inner) == 6
    assert not directory.exists()


def test_the_caller_may_want_other_keys_cached(inner: CountingStore, directory: Path) -> None:
    store = opened(inner, directory, lambda key: key.startswith("packs/"))
    inner.put("packs/ab/1", b"data")
    for _ in range(2):
        store.get("packs/ab/1")

    assert gets(inner) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
    ],
)
def test_a_damaged_copy_is_fetched_again(
    inner: CountingStore, store: CachingStore, directory: Path, damage: Callable[[Path], object]
) -> None:
    store.put(SNAPSHOT, b"head")
    damage(directory / SNAPSHOT)

    assert store.get(SNAPSHOT) == b"head"
    assert store.get(SNAPSHOT) == b"head"
    assert gets(inner) == 1


def test_a_copy_under_another_name_is_not_believed(inner: CountingStore, store: CachingStore, directory: Path) -> None:
    store.put("snapshots/a/1", b"one")
    store.put("snapshots/a/2", b"two")
    (directory / "snapshots/a/1").replace(directory / "snapshots/a/2")

    assert store.get("snapshots/a/2") == b"two"


def test_what_is_damaged_in_the_store_is_not_kept(inner: CountingStore, store: CachingStore) -> None:
    key = index_key(b"data")
    inner.put(key, b"rotten")
    assert store.get(key) == b"rotten", "the reader decides what it means"

    inner.put(key, b"data")

    assert store.get(key) == b"data"


def test_a_deleted_object_is_gone_from_the_cache(store: CachingStore) -> None:
    store.put(SNAPSHOT, b"head")
    store.delete(SNAPSHOT)

    with pytest.raises(ObjectNotFoundError):
        store.get(SNAPSHOT)


def used_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def test_the_least_recently_used_make_room(inner: CountingStore, store: CachingStore, directory: Path) -> None:
    for number in range(9):
        store.put(f"snapshots/s/{number}", bytes(10_000))
        os.utime(directory / f"snapshots/s/{number}", (number, number))
    store.get("snapshots/s/0")

    store.put("snapshots/s/new", bytes(10_000))

    kept = {path.name for path in directory.rglob("*") if path.is_file()}
    assert used_bytes(directory) <= MAX_BYTES
    assert kept == {"0", "new", *"345678"}


def test_the_cap_holds_over_processes_and_for_their_remains(inner: CountingStore, directory: Path) -> None:
    (directory / "snapshots").mkdir(parents=True)
    (directory / "snapshots/.0123").write_bytes(bytes(MAX_BYTES))
    os.utime(directory / "snapshots/.0123", (0, 0))
    for number in range(30):
        opened(inner, directory).put(f"snapshots/s/{number}", bytes(10_000))
        assert used_bytes(directory) <= MAX_BYTES

    assert not (directory / "snapshots/.0123").exists()


def test_what_is_larger_than_the_cap_is_not_cached(store: CachingStore, directory: Path) -> None:
    store.put(SNAPSHOT, bytes(MAX_BYTES + 1))

    assert len(store.get(SNAPSHOT)) == MAX_BYTES + 1
    assert not directory.exists()


def test_copies_are_private(store: CachingStore, directory: Path) -> None:
    store.put(SNAPSHOT, b"head")

    modes = {path.is_dir(): stat.S_IMODE(path.stat().st_mode) for path in [directory, *directory.rglob("*")]}
    assert modes == {True: 0o700, False: 0o600}


def test_a_cache_that_is_no_directory_fails_nothing(inner: CountingStore, directory: Path) -> None:
    directory.write_text("in the way")
    store = opened(inner, directory)

    store.put(SNAPSHOT, b"head")
    assert store.get(SNAPSHOT) == store.get(SNAPSHOT) == b"head"
    store.delete(SNAPSHOT)

    assert gets(inner) == 2


def test_a_cache_deleted_meanwhile_fails_nothing(store: CachingStore, directory: Path) -> None:
    store.put(SNAPSHOT, b"head")
    (directory / SNAPSHOT).unlink()
    (directory / SNAPSHOT).mkdir()

    assert store.get(SNAPSHOT) == b"head"
    store.put("snapshots/s/2", b"two")
    assert store.get("snapshots/s/2") == b"two"


ON_A_SMALL_READ_ONLY_DISK = """
import sys
from pathlib import Path
from flybackup.stores.caching import CachingStore
from flybackup.stores.memory import MemoryStore
for directory in map(Path, sys.argv[1:]):
    store = CachingStore(MemoryStore(), directory, 1 << 30, content_name=lambda data: "")
    for number in range(4):
        store.put(f"snapshots/s/{number}", bytes(1 << 20))
    assert all(len(store.get(f"snapshots/s/{number}")) == 1 << 20 for number in range(4))
    store.delete("snapshots/s/1")
print("fine")
"""


def test_a_full_or_read_only_cache_disk_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "read-only").mkdir()
    mounts = 'mount -t tmpfs -o size=2m none "$1"; mount -t tmpfs -o ro none "$2"; exec "$3" -c "$4" "$1" "$2"'
    shell = ["unshare", "--mount", "--map-root-user", "sh", "-ec", mounts, "sh"]
    arguments = [str(tmp_path / "full"), str(tmp_path / "read-only"), sys.executable, ON_A_SMALL_READ_ONLY_DISK]

    done = subprocess.run([*shell, *arguments], stdout=subprocess.PIPE, check=True)

    assert done.stdout == b"fine\n"


def test_threads_share_a_cache(inner: CountingStore, directory: Path) -> None:
    stores = [opened(inner, directory) for _ in range(4)]
    for number in range(40):
        inner.put(f"snapshots/s/{number}", b"%d" % number * 2000)

    def read(number: int) -> bool:
        key = number * 7 % 40
        return stores[number % 4].get(f"snapshots/s/{key}") == b"%d" % key * 2000

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(800)))
    assert used_bytes(directory) <= MAX_BYTES + 4 * (MAX_BYTES // 16 + 5000), "each looks after a 16th of the cap"
