"""Flip, truncate, swap and delete each kind of object: always a typed error that names it, never wrong data."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TypeVar

import pytest
from engine.bytes_source import BytesSource
from engine.simple import CLOCK, PASSPHRASE, back_up, checked, make_repository, restore_into, restored
from hypothesis import given, settings, strategies as st
from msgspec import structs

from flybackup import repository as repositories
from flybackup.chunking import Fixed
from flybackup.envelope import seal_value
from flybackup.errors import IntegrityError, RepositoryNotFoundError, UnsupportedFormatError
from flybackup.index import IndexedPack, decode_index, encode_index
from flybackup.model import SnapshotId
from flybackup.repository import Repository
from flybackup.stores import ObjectInfo, Store
from flybackup.stores.memory import MemoryStore

T = TypeVar("T")

DATA = {"db": random.Random(5).randbytes(900_000), "dump": b"row\n" * 100_000}
KINDS = ("config", "keys/", "packs/", "index/", "snapshots/")


def make() -> Repository:
    repository = make_repository()
    back_up(repository, BytesSource(DATA, Fixed(64 * 1024, 64 * 1024)), "app")
    back_up(repository, BytesSource({"db": b"another"}), "other")
    return repository


PRISTINE = make()


def copy() -> MemoryStore:
    store = MemoryStore(CLOCK)
    for info in PRISTINE.store.list(""):
        store.put(info.key, PRISTINE.store.get(info.key))
    return store


def keys(kind: str) -> list[str]:
    return [info.key for info in PRISTINE.store.list(kind)]


def change(store: Store, key: str, how: Callable[[bytes], bytes]) -> None:
    stored = store.get(key)
    store.delete(key)
    store.put(key, how(stored))


def flip(bit: int) -> Callable[[bytes], bytes]:
    def flipped(stored: bytes) -> bytes:
        changed = bytearray(stored)
        changed[bit % len(changed)] ^= 1 << (bit // len(changed) % 8)
        return bytes(changed)

    return flipped


def assert_found(store: Store, key: str) -> None:
    """Opening or checking names the object; restoring gives the right bytes or an integrity error, never others."""
    opened = outcome(lambda: repositories.open_with_passphrase(store, PASSPHRASE))
    if isinstance(opened, IntegrityError):
        assert opened.key == key
        return
    report = checked(opened)
    assert key in {damage.object for damage in report.errors}
    for source, data in (("app", DATA), ("other", {"db": b"another"})):
        content = outcome(partial(restored, opened, source))
        assert isinstance(content, IntegrityError) or content == data


def outcome(act: Callable[[], T]) -> T | IntegrityError:
    try:
        return act()
    except IntegrityError as exc:
        return exc


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), st.data())
def test_a_flipped_bit(kind: str, data: st.DataObject) -> None:
    store, key = copy(), data.draw(st.sampled_from(keys(kind)))
    change(store, key, flip(data.draw(st.integers(0, 8 * 2_000_000))))

    assert_found(store, key)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), st.data())
def test_a_truncated_object(kind: str, data: st.DataObject) -> None:
    store, key = copy(), data.draw(st.sampled_from(keys(kind)))
    keep = data.draw(st.floats(0, 0.9999))
    change(store, key, lambda stored: stored[: int(len(stored) * keep)])

    assert_found(store, key)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(("packs/", "index/", "snapshots/")), st.data())
def test_two_objects_swapped(kind: str, data: st.DataObject) -> None:
    store = copy()
    one, two = data.draw(st.permutations(keys(kind)))[:2]
    first, second = store.get(one), store.get(two)
    change(store, one, lambda _: second)
    change(store, two, lambda _: first)

    assert_found(store, one)


@pytest.mark.parametrize("number", range(len(keys("packs/"))))
def test_a_deleted_pack_is_named_with_the_snapshots_that_need_it(number: int) -> None:
    store, key = copy(), keys("packs/")[number]
    store.delete(key)
    repository = repositories.open_with_passphrase(store, PASSPHRASE)

    report = checked(repository, read_data=False)

    (damage,) = (damage for damage in report.errors if damage.object == key)
    assert damage.problem == "is missing from the store"
    assert len(damage.snapshots) == 1
    with pytest.raises(IntegrityError, match=key):
        restored(repository, damage.snapshots[0])


@pytest.mark.parametrize("number", range(len(keys("index/"))))
def test_a_deleted_index_file_is_noticed(number: int) -> None:
    store, key = copy(), keys("index/")[number]
    store.delete(key)
    repository = repositories.open_with_passphrase(store, PASSPHRASE)

    assert any("no index file knows" in damage.problem for damage in checked(repository, read_data=False).errors)


def test_a_damaged_index_file_is_told_and_stops_only_what_needs_it() -> None:
    """An index file is redundant and everything read is proved: no reason to keep anybody from the other snapshots."""
    outcomes = []
    for key in keys("index/"):
        store = copy()
        change(store, key, flip(1000))
        repository = repositories.open_with_passphrase(store, PASSPHRASE)
        for source in ("app", "other"):
            report = outcome(partial(restore_into, repository, source, BytesSource()))
            outcomes.append(isinstance(report, IntegrityError))
            assert isinstance(report, IntegrityError) or (report.verified and key in report.notes[0])

    assert outcomes.count(False) == 2


def test_a_deleted_config_is_no_repository() -> None:
    store = copy()
    store.delete("config")

    with pytest.raises(RepositoryNotFoundError):
        repositories.open_with_passphrase(store, PASSPHRASE)


def test_a_snapshot_moved_to_another_time_or_source_does_not_open() -> None:
    """An attacker who can write to the store cannot pass an old snapshot off as the newest."""
    store = copy()
    old, other = keys("snapshots/")
    forged = other.rpartition("/")[0] + "/29991231t000000000000z-" + old.rpartition("-")[2]
    store.put(forged, store.get(old))
    repository = repositories.open_with_passphrase(store, PASSPHRASE)

    assert forged in {damage.object for damage in checked(repository, read_data=False).errors}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_any_config_is_a_typed_error(stored: bytes) -> None:
    store = copy()
    change(store, "config", lambda _: stored)

    with pytest.raises((IntegrityError, UnsupportedFormatError)):
        repositories.open_with_passphrase(store, PASSPHRASE)


class BusyStore(MemoryStore):
    """Another writer backs up just before *prefix* is listed."""

    prefix = ""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        if prefix == self.prefix:
            self.prefix = ""
            back_up(repositories.open_with_passphrase(self, PASSPHRASE), BytesSource({"db": b"meanwhile"}))
        return super().list(prefix)


@pytest.mark.parametrize("prefix", ["keys/", "snapshots/", "index/", "packs/"])
def test_a_backup_that_ends_during_a_check_is_no_damage(prefix: str) -> None:
    store = BusyStore(CLOCK)
    repository = make_repository(store)
    back_up(repository, BytesSource(DATA))
    store.prefix = prefix

    assert checked(repository).ok
    assert store.prefix == ""


@pytest.mark.parametrize(("cut", "size"), [(2, 100), (32, 0), (32, -2), (32, 1 << 40)])
def test_a_forged_head_cannot_ask_for_the_impossible(cut: int, size: int) -> None:
    """A thief of the write key signs it; a size is what bounds decompression (-1 would mean: without bound)."""
    repository = repositories.open_with_passphrase(copy(), PASSPHRASE)
    snapshot = next(repository.snapshots("app"))
    forged = replace(snapshot, id=SnapshotId("f" * 16), manifest=((snapshot.manifest[0][0][:cut], size),))
    repository.put_snapshot(forged)

    with pytest.raises(IntegrityError, match="impossible chunk"):
        restored(repository, forged.id)
    assert [damage.snapshots for damage in checked(repository, read_data=False).errors] == [(forged.id,)]


@pytest.mark.parametrize("lie", ["id", "source", "time"])
def test_a_forged_head_cannot_contradict_its_name(lie: str) -> None:
    repository = repositories.open_with_passphrase(copy(), PASSPHRASE)
    app, other = next(repository.snapshots("app")), next(repository.snapshots("other"))
    forged = repository.snapshot_key("app", app.time, SnapshotId("f" * 16))
    head = replace(app, **{"id": SnapshotId("f" * 16), lie: getattr(other, lie)})
    repository.store.put(forged, seal_value(repository.write_key.metadata, forged, head))

    with pytest.raises(IntegrityError, match="another snapshot"):
        repository.read_snapshot(forged)
    assert [damage.object for damage in checked(repository, read_data=False).errors] == [forged]


def test_index_files_that_contradict_each_other_are_damage() -> None:
    """A thief of the write key can lie about where chunks lie; the check must not believe the honest file only."""
    repository = repositories.open_with_passphrase(copy(), PASSPHRASE)
    key, metadata = keys("index/")[0], repository.write_key.metadata
    pack = decode_index(metadata, key, repository.store.get(key))[0]
    shifted = structs.replace(pack.directory, offsets=b"\1\0\0\0" * len(pack.directory))
    honest, lies = IndexedPack(pack.id, pack.size, pack.directory), IndexedPack(pack.id, pack.size, shifted)
    for packs in ([lies], [honest, lies]):
        repository.store.put(*encode_index(metadata, packs))

    problems = [damage.problem for damage in checked(repository).errors]

    assert any("contradicts another index file" in problem for problem in problems)


def test_a_backup_stores_again_what_a_vanished_pack_held() -> None:
    """A chunk counts as stored only when its pack lies there: else a new snapshot would need what nobody has."""
    store = copy()
    for key in keys("packs/"):
        store.delete(key)
    repository = repositories.open_with_passphrase(store, PASSPHRASE)

    back_up(repository, BytesSource(DATA, Fixed(64 * 1024, 64 * 1024)), "app")

    assert restored(repository, "app") == DATA


def test_a_damaged_index_file_does_not_stop_a_backup_and_is_told() -> None:
    store = copy()
    change(store, keys("index/")[0], flip(1000))
    repository = repositories.open_with_passphrase(store, PASSPHRASE)

    snapshot = back_up(repository, BytesSource(DATA, Fixed(64 * 1024, 64 * 1024)), "app")

    assert keys("index/")[0] in snapshot.warnings[0]
    assert restored(repository, snapshot.id) == DATA
