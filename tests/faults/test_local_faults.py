"""A directory whose disk is full, missing or forbidden, and writers that are killed."""

import mmap
import os
import random
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flybackup.errors import ObjectExistsError, ObjectNotFoundError, StoreError
from flybackup.stores.local import LocalStore

MIB = 1024 * 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    root.mkdir()
    return root


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root)


def scratch_files(root: Path) -> list[Path]:
    return list((root / ".tmp").glob("*"))


def run(program: str, *arguments: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE)


WRITE_FOR_EVER = """
import itertools, os, sys
from pathlib import Path
from flybackup.stores.local import LocalStore
store, data = LocalStore(Path(sys.argv[1])), os.urandom(8 << 20)
for number in itertools.count():
    getattr(store, sys.argv[2])(f"packs/{number:08}", data)
    print(number, flush=True)
"""


@pytest.mark.parametrize("write", ["put", "create"])
def test_a_writer_killed_at_any_moment_leaves_whole_objects_only(root: Path, store: LocalStore, write: str) -> None:
    left_behind = turns = 0
    while left_behind < 2:
        turns += 1
        assert turns < 50, "no writer was killed within a write"
        with run(WRITE_FOR_EVER, root, write) as writer:
            assert writer.stdout
            acknowledged = int(writer.stdout.readline())
            time.sleep(turns % 8 / 1000)  # a moment within a write, another one each time
            writer.send_signal(signal.SIGKILL)
            acknowledged += len(writer.stdout.read().split())

        sizes = [info.size for info in store.list("")]
        left_behind += len(scratch_files(root))
        assert set(sizes) == {8 * MIB}
        assert len(sizes) > acknowledged
        for path in [*root.glob("packs/*"), *scratch_files(root)]:
            path.unlink()


def test_what_killed_writers_left_is_removed_when_it_is_old(root: Path, store: LocalStore) -> None:
    (root / ".tmp").mkdir()
    old, new = root / ".tmp/old", root / ".tmp/new"
    for path in (old, new):
        path.write_bytes(b"half an obj")
    os.utime(old, (time.time() - 7200, time.time() - 7200))

    assert list(store.list("")) == []
    assert old.exists(), "who only reads may not be allowed to write"
    store.put("key", b"data")

    assert scratch_files(root) == [new]


WRITE_WITH_LITTLE_ROOM = """
import resource, sys
from pathlib import Path
from flybackup.errors import StoreError
from flybackup.stores.local import LocalStore
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
store = LocalStore(Path(sys.argv[1]))
store.put("small", b"data")
try:
    getattr(store, sys.argv[2])("large", bytes(2 << 20))
except StoreError as exc:
    print(exc.hint, exc.retryable)
"""


@pytest.mark.parametrize("write", ["put", "create"])
def test_a_file_that_may_not_grow_is_an_error_and_leaves_nothing(root: Path, store: LocalStore, write: str) -> None:
    with run(WRITE_WITH_LITTLE_ROOM, root, write) as writer:
        assert writer.stdout
        assert b"ulimit -f" in writer.stdout.read()

    assert [info.key for info in store.list("")] == ["small"]
    assert scratch_files(root) == []


WRITE_ON_A_FULL_DISK = """
import os, sys
from pathlib import Path
from flybackup.errors import StoreError
from flybackup.stores.local import LocalStore
root = Path(sys.argv[1])
store = LocalStore(root)
store.put("small", b"data")
try:
    getattr(store, sys.argv[2])("large", bytes(4 << 20))
except StoreError as exc:
    print(exc.hint, exc.retryable)
print([info.key for info in store.list("")], os.listdir(root / ".tmp"))
"""


@pytest.mark.parametrize("write", ["put", "create"])
def test_a_full_disk_is_an_error_with_a_hint_and_leaves_nothing(root: Path, write: str) -> None:
    # A disk of 2 MiB in a mount namespace of its own, so that not even a killed test leaves a mount behind. Where users
    # may not make namespaces: sysctl kernel.apparmor_restrict_unprivileged_userns=0
    on_small_disk = 'mount -t tmpfs -o size=2m none "$1"; exec "$2" -c "$3" "$1" "$4"'
    shell = ["unshare", "--mount", "--map-root-user", "sh", "-ec", on_small_disk, "sh"]

    done = subprocess.run(
        [*shell, root, sys.executable, WRITE_ON_A_FULL_DISK, write], stdout=subprocess.PIPE, check=True, text=True
    )

    assert done.stdout.splitlines() == ["The disk is full; free space on it. False", "['small'] []"]


def test_a_missing_root_is_found_empty_by_nobody(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "not" / "mounted")

    with pytest.raises(ObjectNotFoundError, match="config") as caught:
        store.get("config")
    assert "mount its disk" in caught.value.hint
    attempts: list[Callable[[], object]] = [lambda: list(store.list("")), lambda: store.put("key", b"data")]
    for attempt in attempts:
        with pytest.raises(StoreError) as refused:
            attempt()
        assert "mount its disk" in refused.value.hint
    store.delete("key")
    assert list(tmp_path.iterdir()) == []


def test_create_makes_the_root_private(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "new" / "root")

    store.create("keys/one", b"data")
    store.put("packs/ab/one", b"data")

    modes = {path.relative_to(tmp_path).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {
        "new": 0o700,
        "new/root": 0o700,
        "new/root/.tmp": 0o700,
        "new/root/keys": 0o700,
        "new/root/keys/one": 0o600,
        "new/root/packs": 0o700,
        "new/root/packs/ab": 0o700,
        "new/root/packs/ab/one": 0o600,
    }


def test_a_directory_removed_under_a_running_store_is_made_again(root: Path, store: LocalStore) -> None:
    store.put("packs/ab/one", b"data")
    (root / "packs/ab/one").unlink()
    (root / "packs/ab").rmdir()

    store.put("packs/ab/two", b"data")

    assert store.get("packs/ab/two") == b"data"


def test_files_that_are_no_objects_are_passed_over(root: Path, store: LocalStore) -> None:
    store.put("index/1", b"data")
    for name in ("README.md", "index/.nfs0001", "index/Thumbs.db", "lost+found"):
        (root / name).write_bytes(b"")
    os.mkfifo(root / "index/pipe")
    (root / "index/dangling").symlink_to("nowhere")

    assert [info.key for info in store.list("")] == ["index/1"]


def test_packs_on_another_disk_behind_a_link_are_read_and_listed(tmp_path: Path, root: Path, store: LocalStore) -> None:
    (tmp_path / "large-disk").mkdir()
    (root / "packs").symlink_to(tmp_path / "large-disk")

    store.put("packs/one", b"data")

    assert store.get("packs/one") == b"data"
    assert [info.key for info in store.list("packs/")] == ["packs/one"]


def test_a_link_to_above_ends_in_an_error_and_not_never(root: Path, store: LocalStore) -> None:
    (root / "loop").symlink_to(root)

    with pytest.raises(StoreError, match="levels of symbolic links"):
        list(store.list(""))


def test_an_object_in_the_way_of_a_directory_is_an_error(store: LocalStore) -> None:
    store.put("a", b"data")

    for write in (store.put, store.create):
        with pytest.raises(StoreError) as caught:
            write("a/b", b"")
        assert not isinstance(caught.value, ObjectExistsError)


WRITE_AS_NOBODY = """
import os, sys
from pathlib import Path
from flybackup.errors import StoreError
from flybackup.stores.local import LocalStore
store = LocalStore(Path(sys.argv[1]))
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for attempt in (lambda: store.put("key", b""), lambda: store.create("new", b""), lambda: store.get("key")):
    try:
        attempt()
    except StoreError as exc:
        print(exc.hint)
"""


def test_a_root_that_belongs_to_another_is_an_error_with_a_hint() -> None:
    with tempfile.TemporaryDirectory() as directory:  # pytest's own are closed to others further up
        root = Path(directory)
        LocalStore(root).put("key", b"data")
        root.chmod(0o755 if os.getuid() == 0 else 0o555)

        with run(WRITE_AS_NOBODY, root) as writer:
            assert writer.stdout
            hints = writer.stdout.read().decode().splitlines()
        root.chmod(0o700)

    assert hints == ["Give this user the right to read and write there."] * len(hints)
    assert len(hints) >= 2


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1, (5 << 20) + 4095])
@pytest.mark.parametrize("aligned", [True, False])
def test_large_objects_written_past_the_cache_are_whole(tmp_path: Path, size: int, *, aligned: bool) -> None:
    """O_DIRECT takes whole sectors from aligned memory; the rest of a pack, and other memory, goes the usual way."""
    buffer = memoryview(mmap.mmap(-1, size + 1))[0 if aligned else 1 :][:size]
    buffer[:] = random.Random(size).randbytes(size)
    store = LocalStore(tmp_path)

    store.put("packs/large", buffer)

    assert store.get("packs/large") == bytes(buffer)
