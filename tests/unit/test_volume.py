# ruff: noqa: PTH101, PTH102, PTH103, PTH120, PTH123, PTH211  names that are no UTF-8 are bytes here
"""Trees of every shape come back bit for bit, through the repository; what is unchanged is not read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from engine.simple import CLOCK, SMALL, make_repository
from hypothesis import given, settings, strategies as st
from trees import pictured

from flybackup.app import source_at
from flybackup.errors import SourceError
from flybackup.model import Entry, Progress, Snapshot
from flybackup.operations.backup import BackupRequest, backup
from flybackup.operations.restore import RestoreRequest, restore
from flybackup.operations.verify import RestoreReport
from flybackup.reading import Reader
from flybackup.repository import Repository
from flybackup.sources import RestoreOptions
from flybackup.sources.volume.source import VolumeSource
from flybackup.sources.volume.walking import Walk


class Later:
    """A clock that is ahead, so that files made a moment ago are old."""

    def now(self) -> datetime:
        return CLOCK.now() + timedelta(minutes=1)

    def monotonic(self) -> float:
        return CLOCK.monotonic()

    def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


def volume(path: Path, **walk: object) -> VolumeSource:
    source = source_at("volume", str(path))
    assert isinstance(source, VolumeSource)
    return VolumeSource(path, source._kinds, Walk(**walk), clock=Later())  # type: ignore[arg-type]


@contextmanager
def scratch() -> Iterator[Path]:
    with TemporaryDirectory() as directory:
        yield Path(directory)


def back_up(repository: Repository, path: Path, **walk: object) -> Snapshot:
    with scratch() as place:
        request = BackupRequest("tree", (), place, SMALL)
        return backup(repository, volume(path, **walk), request, clock=CLOCK, on_progress=lambda _: None)


def bring_back(repository: Repository, snapshot: Snapshot, target: Path, **options: object) -> RestoreReport:
    with scratch() as place:
        request = RestoreRequest(str(target), place, RestoreOptions(**options))  # type: ignore[arg-type]
        return restore(repository, snapshot, volume(target), request, clock=CLOCK, on_progress=lambda _: None)


def entries(repository: Repository, snapshot: Snapshot) -> dict[str, Entry]:
    with Reader(repository, repository.load_index()) as reader:
        return {entry.path: entry for entry, _ in reader.entries(snapshot)}


names = st.binary(min_size=1, max_size=12).filter(
    lambda name: not {0, 47} & set(name) and name not in (b".", b"..") and not name.startswith(b".flybackup-restore")
)
sizes = st.one_of(st.integers(0, 200), st.integers(0, 70_000), st.just(700_000))
modes = st.integers(0, 0o7777).map(lambda mode: mode | 0o400)
times = st.integers(-(10**18), 3 * 10**18)
attributes = st.dictionaries(
    st.sampled_from([b"user.a", b"user.\xc3\xa9", b"user.b"]), st.binary(max_size=40), max_size=2
)
files = st.tuples(st.just("file"), sizes, st.integers(0, 5), attributes)
sparse = st.tuples(st.just("sparse"), st.integers(600_000, 3_000_000), st.integers(0, 500_000))
links = st.tuples(st.just("symlink"), st.binary(min_size=1, max_size=30).filter(lambda target: 0 not in target))
others = st.sampled_from([("fifo",), ("socket",), ("hardlink", 0), ("hardlink", 1), ("directory",)])
trees = st.dictionaries(
    st.lists(names, min_size=1, max_size=3).map(tuple),
    st.tuples(st.one_of(files, files, sparse, links, others), modes, times),
    max_size=14,
)


def grow(root: bytes, tree: dict[tuple[bytes, ...], tuple[tuple[object, ...], int, int]]) -> None:
    """Make the tree; what does not fit (a file where a directory is) is left away."""
    made: list[bytes] = []
    for path, (what, mode, mtime_ns) in tree.items():
        place = b"/".join((root, *path))
        try:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            _make(place, what, made)
        except (FileExistsError, NotADirectoryError):
            continue
        if what[0] != "symlink":
            os.chmod(place, mode)
        os.utime(place, ns=(mtime_ns, mtime_ns), follow_symlinks=False)


def _make(place: bytes, what: tuple[object, ...], made: list[bytes]) -> None:  # noqa: C901  # a table of kinds
    match what:
        case ("file", int(size), int(seed), dict(xattrs)):
            with open(place, "xb") as file:
                file.write((b"%d " % seed * (size // 2 + 1))[:size])
            for name, value in xattrs.items():
                os.setxattr(place, name, value)
            made.append(place)
        case ("sparse", int(size), int(at)):
            with open(place, "xb") as file:
                file.seek(at)
                file.write(b"here")
                file.truncate(size)
        case ("symlink", bytes(target)):
            os.symlink(target, place)
        case ("fifo",):
            os.mkfifo(place)
        case ("socket",):
            os.mknod(place, 0o140600)
        case ("directory",):
            os.mkdir(place)
        case ("hardlink", int(number)):
            if len(made) > number:
                os.link(made[number], place)
            else:
                raise FileExistsError
        case _:
            raise AssertionError(what)


def without_sockets(root: Path) -> object:
    return {path: what for path, what in pictured(root).items() if not str(what[0]).startswith("s")}


@settings(max_examples=60, deadline=None)
@given(trees, trees)
def test_any_tree_comes_back_bit_for_bit_also_after_changes(first: dict, more: dict) -> None:  # type: ignore[type-arg]
    repository = make_repository()
    with scratch() as directory:
        tree = directory / "tree"
        tree.mkdir()
        grow(os.fsencode(tree), first)
        before = back_up(repository, tree)
        saved = without_sockets(tree)
        grow(os.fsencode(tree), more)
        again = back_up(repository, tree)
        assert bring_back(repository, before, directory / "old").verified
        assert bring_back(repository, again, directory / "new").verified
        assert without_sockets(directory / "old") == saved
        assert without_sockets(directory / "new") == without_sockets(tree)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "saves" / "old").mkdir(parents=True)
    (root / "cache").mkdir()
    for number in range(200):
        (root / "saves" / f"{number:03}.txt").write_text(f"file number {number}\n" * 20)
    (root / "saves" / "old" / "large").write_bytes(os.urandom(1_500_000))
    (root / "medium").write_bytes(os.urandom(100_000))
    return root


def test_unchanged_files_are_not_read(tree: Path) -> None:
    repository = make_repository()
    first, second = back_up(repository, tree), back_up(repository, tree)
    assert first.summary.bytes_read > 1_600_000
    assert (second.summary.bytes_read, second.summary.chunks_new) == (0, 0)
    assert second.facts == first.facts
    (tree / "saves" / "007.txt").write_text("another text")
    third = back_up(repository, tree)
    assert third.summary.bytes_read == len("another text")
    assert third.summary.entries == second.summary.entries


@pytest.mark.parametrize("what", ["content", "size", "mtime", "mode", "inode", "link"])
def test_whatever_changes_of_a_file_is_seen(what: str, tree: Path, tmp_path: Path) -> None:
    repository = make_repository()
    back_up(repository, tree)
    file = tree / "saves" / "042.txt"
    status = file.stat()
    match what:
        case "content":  # of the same size, with the old time put back, as some tools do
            file.write_text(file.read_text().replace("42", "43"))
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        case "size":
            file.write_text("short")
        case "mtime":
            os.utime(file, ns=(1, 1))
        case "mode":
            file.chmod(0o751)
        case "inode":
            (tmp_path / "other").write_text("replaced")
            (tmp_path / "other").replace(file)
        case "link":
            (tree / "another").hardlink_to(file)
        case _:
            raise AssertionError(what)
    snapshot = back_up(repository, tree)
    assert bring_back(repository, snapshot, tmp_path / "restored").verified
    assert pictured(tmp_path / "restored") == pictured(tree)


def test_a_young_file_is_read_again(tree: Path) -> None:
    repository = make_repository()
    young = VolumeSource(tree, volume(tree)._kinds, clock=CLOCK)
    with scratch() as place:
        request = BackupRequest("t", (), place, SMALL)
        taken = [backup(repository, young, request, clock=CLOCK, on_progress=lambda _: None) for _ in range(2)]
    assert taken[1].summary.bytes_read > 1_600_000


def test_a_chunk_that_vanished_from_the_store_is_read_and_stored_again(tree: Path, tmp_path: Path) -> None:
    repository = make_repository()
    back_up(repository, tree)
    lost = next(info.key for info in repository.store.list("packs/") if info.size > 100_000)
    repository.store.delete(lost)
    again = back_up(repository, tree)
    assert again.summary.bytes_new > 0
    assert bring_back(repository, again, tmp_path / "restored").verified


def test_a_damaged_manifest_before_means_reading_everything(tree: Path, tmp_path: Path) -> None:
    repository = make_repository()
    back_up(repository, tree)
    for info in list(repository.store.list("packs/")):
        if info.size < 100_000:  # the manifests'
            repository.store.delete(info.key)
    again = back_up(repository, tree)
    assert again.summary.bytes_read > 1_600_000
    assert bring_back(repository, again, tmp_path / "restored").verified


def test_what_patterns_exclude_is_not_there(tree: Path, tmp_path: Path) -> None:
    repository = make_repository()
    (tree / "saves" / ".flybackupignore").write_text("1*.txt\n!123.txt\n")
    (tree / "cache" / "CACHEDIR.TAG").write_bytes(b"Signature: 8a477f597d28d172789f06886806bc55\nby a test")
    (tree / "cache" / "thing").write_text("can be made again")
    (tree / "a.tmp").write_text("x")
    snapshot = back_up(repository, tree, exclude=("*.tmp", "/saves/old/"))
    there = entries(repository, snapshot)
    assert {"saves/123.txt", "saves/099.txt", "cache", "cache/CACHEDIR.TAG"} <= there.keys()
    assert not {"saves/124.txt", "saves/old", "saves/old/large", "cache/thing", "a.tmp"} & there.keys()
    assert bring_back(repository, snapshot, tmp_path / "restored").verified


def test_a_false_cache_tag_hides_nothing(tree: Path) -> None:
    (tree / "cache" / "CACHEDIR.TAG").write_text("anything")
    (tree / "cache" / "thing").write_text("precious")
    repository = make_repository()
    assert "cache/thing" in entries(repository, back_up(repository, tree))


def test_a_file_that_may_not_be_read_makes_the_snapshot_partial(tree: Path) -> None:
    (tree / "saves" / "001.txt").chmod(0)
    (tree / "saves" / "old").chmod(0)
    with scratch() as place, volume(tree).capture(place) as capture, as_nobody():
        paths = [stream.entry.path for stream in capture.streams()]
        problems = capture.finish().problems
    (tree / "saves" / "old").chmod(0o700)
    assert "saves/002.txt" in paths
    assert "saves/001.txt" not in paths
    assert problems == (
        "saves/001.txt: cannot be read: Permission denied",
        "saves/old: cannot be opened: Permission denied",
    )


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give up the rights of root, whom nothing keeps from reading, while the block runs."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_file_that_changes_while_it_is_read_is_read_again(tree: Path, tmp_path: Path) -> None:
    large = tree / "saves" / "old" / "large"
    assert problems_when(tree, large, changes=1) == ()
    (problem,) = problems_when(tree, large, changes=99)
    assert problem.startswith("saves/old/large: changed each time it was read")


def problems_when(tree: Path, large: Path, *, changes: int) -> tuple[str, ...]:
    with scratch() as place, volume(tree).capture(place) as capture:
        for stream in capture.streams():
            content = bytearray()
            for offset, data in stream.extents:
                if stream.entry.path.endswith("large") and not offset and data and changes:
                    changes -= 1
                    with large.open("ab") as file:
                        file.write(b"more")
                del content[offset:]
                content += data
            if stream.entry.path.endswith("large") and stream.amended is not None:
                assert stream.amended().torn == (changes > 50)
                assert bytes(content) == large.read_bytes() or changes > 50
        return capture.finish().problems


@pytest.mark.parametrize("how", ["in place", "by an insertion"])
def test_a_file_that_changed_while_it_was_read_is_stored_as_it_is(how: str, tree: Path, tmp_path: Path) -> None:
    large = tree / "saves" / "old" / "large"
    large.write_bytes(os.urandom(6_000_000))
    repository = make_repository()
    done: list[Progress] = []

    def change_once(progress: Progress) -> None:
        # In the middle of the file: its first pieces have been cut and given out.
        if not done and progress.done_bytes > 4_500_000:
            content = large.read_bytes()
            large.write_bytes(b"new" + (content[3:] if how == "in place" else content))
            done.append(progress)

    with scratch() as place:
        request = BackupRequest("tree", (), place, SMALL)
        snapshot = backup(repository, volume(tree), request, clock=CLOCK, on_progress=change_once)
    assert done
    assert snapshot.status == "complete"
    assert bring_back(repository, snapshot, tmp_path / "restored").verified
    assert pictured(tmp_path / "restored") == pictured(tree)


def test_a_missing_volume_is_an_error_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot open the directory"):
        back_up(make_repository(), tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []
