from datetime import UTC, datetime, timedelta

import pytest
from engine.bytes_source import BytesSource
from engine.simple import CLOCK, PASSPHRASE, back_up, checked, make_repository, restored
from msgspec import json, structs

from flybackup import repository as repositories
from flybackup.errors import (
    ConfigError,
    IntegrityError,
    RefusedError,
    RepositoryNotFoundError,
    UnsupportedFormatError,
    WrongKeyError,
)
from flybackup.keys import Argon2Cost
from flybackup.operations.select import newest_first, select
from flybackup.stores.memory import MemoryStore

DATA = {"a": b"first" * 1000, "empty": b""}


def test_what_is_backed_up_comes_back_by_every_key() -> None:
    repository = make_repository()
    back_up(repository, BytesSource(DATA))
    store, master = repository.store, repository.require_master("test")

    for opened in (
        repositories.open_with_passphrase(store, PASSPHRASE),
        repositories.open_with_recovery_key(store, master.recovery_text()),
    ):
        assert restored(opened) == DATA


def test_the_recovery_key_needs_nothing_under_keys() -> None:
    repository = make_repository()
    back_up(repository, BytesSource(DATA))
    for name, _ in list(repository.slots()):
        repository.store.delete(name)

    opened = repositories.open_with_recovery_key(repository.store, repository.require_master("x").recovery_text())

    assert restored(opened) == DATA


def test_the_write_key_backs_up_and_lists_and_does_not_restore() -> None:
    repository = make_repository()
    agent = repositories.open_with_write_key(repository.store, repository.write_key.text())

    snapshot = back_up(agent, BytesSource(DATA))

    assert select(agent, "app", timezone=UTC) == snapshot
    assert checked(agent).ok
    with pytest.raises(WrongKeyError, match="can only write"):
        restored(agent)
    assert restored(repository) == DATA


def test_an_agent_cannot_read_what_it_wrote_before() -> None:
    """Nothing in the store and the write key together opens a data chunk: only the private key opens session keys."""
    repository = make_repository()
    agent = repositories.open_with_write_key(repository.store, repository.write_key.text())

    assert agent.master is None
    assert not hasattr(agent.write_key, "private_key")


def test_wrong_secrets_are_wrong_keys() -> None:
    repository, other = make_repository(), make_repository()
    store = repository.store

    with pytest.raises(WrongKeyError, match="passphrase does not open"):
        repositories.open_with_passphrase(store, "wrong")
    with pytest.raises(WrongKeyError, match="another repository"):
        repositories.open_with_write_key(store, other.write_key.text())
    with pytest.raises(WrongKeyError, match="another repository"):
        repositories.open_with_recovery_key(store, other.require_master("x").recovery_text())


def test_nothing_there_is_no_repository() -> None:
    with pytest.raises(RepositoryNotFoundError):
        repositories.open_with_passphrase(MemoryStore(CLOCK), PASSPHRASE)


def test_init_refuses_where_a_repository_is() -> None:
    repository = make_repository()
    before = {info.key for info in repository.store.list("")}

    with pytest.raises(RefusedError):
        make_repository(repository.store)

    assert {info.key for info in repository.store.list("")} == before


def test_a_later_format_is_said_to_be_one() -> None:
    store = make_repository().store
    line = store.get("config").partition(b"\n")[0].replace(b'"format":1', b'"format":2')
    newer = MemoryStore(CLOCK)
    newer.put("config", repositories._finish_config(line, b"mac"))

    with pytest.raises(UnsupportedFormatError, match="format 2"):
        repositories.open_with_passphrase(newer, PASSPHRASE)


def test_a_swapped_public_key_does_not_get_through() -> None:
    """A hostile store would like new backups sealed to a key of its own."""
    repository, evil = make_repository(), make_repository()
    forged = MemoryStore(CLOCK)
    for info in repository.store.list(""):
        forged.put(info.key, repository.store.get(info.key))
    line = evil.store.get("config").partition(b"\n")[0].replace(evil.id.hex().encode(), repository.id.hex().encode())
    forged.delete("config")
    forged.put("config", repositories._config(line, evil.write_key))

    with pytest.raises(IntegrityError, match="not written by a holder"):
        repositories.open_with_write_key(forged, repository.write_key.text())
    with pytest.raises(IntegrityError, match="not written by a holder"):
        repositories.open_with_passphrase(forged, PASSPHRASE)


def test_a_hostile_slot_does_not_keep_a_good_one_from_opening() -> None:
    repository = make_repository()
    (_, good), *_ = repository.slots()
    for salt in range(8):  # before and behind the good one, whatever their names
        hostile = structs.replace(good, cost=Argon2Cost(memory_kib=1 << 40), salt=bytes([salt]))
        repositories._put_slot(repository.store, json.encode(hostile))

    assert repositories.open_with_passphrase(repository.store, PASSPHRASE).id == repository.id
    with pytest.raises(IntegrityError, match="absurd"):
        repositories.open_with_passphrase(repository.store, "wrong")


@pytest.mark.parametrize("forged", ["zz" * 16, "é" * 32, "ab", ""])
def test_a_config_with_an_impossible_id_is_a_typed_error(forged: str) -> None:
    """Anybody who can write to the store can forge it: no key is needed for the digest in its last line."""
    repository = make_repository()
    line, _, _ = repository.store.get("config").partition(b"\n")
    store = MemoryStore(CLOCK)
    store.put("config", repositories._finish_config(line.replace(repository.id.hex().encode(), forged.encode()), b""))

    with pytest.raises(UnsupportedFormatError):
        repositories.open_with_passphrase(store, PASSPHRASE)
    with pytest.raises(UnsupportedFormatError):
        repositories.open_with_write_key(store, repository.write_key.text())
    with pytest.raises(UnsupportedFormatError):
        repositories.open_with_recovery_key(store, repository.require_master("test").recovery_text())


@pytest.mark.parametrize("line", [b'{"format": 1, "id": "\xff"}', b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"])
def test_a_config_that_does_not_decode_is_a_typed_error(line: bytes) -> None:
    store = MemoryStore(CLOCK)
    store.put("config", repositories._finish_config(line, b""))

    with pytest.raises(UnsupportedFormatError):
        repositories.open_with_passphrase(store, PASSPHRASE)


def test_passphrases_come_and_go() -> None:
    repository = make_repository()
    slot = repository.add_passphrase("second", label="second", now=CLOCK.now())
    first = next(name for name, _ in repository.slots() if name != slot)

    repository.remove_slot(first.removeprefix("keys/")[:8])

    assert repositories.open_with_passphrase(repository.store, "second").id == repository.id
    with pytest.raises(WrongKeyError):
        repositories.open_with_passphrase(repository.store, PASSPHRASE)
    with pytest.raises(RefusedError, match="last passphrase"):
        repository.remove_slot(slot.removeprefix("keys/"))
    with pytest.raises(ConfigError):
        repository.remove_slot("zz")


def test_snapshots_are_found_by_id_source_and_time() -> None:
    repository = make_repository()
    first = back_up(repository, BytesSource(DATA), "app", tags=["pre-deploy"])
    second = back_up(repository, BytesSource(DATA), "app")
    other = back_up(repository, BytesSource(DATA), "other")

    assert select(repository, first.id[:10], timezone=UTC) == first
    assert select(repository, "app", timezone=UTC) == second
    assert select(repository, f"app@{first.time.isoformat()}", timezone=UTC) == first
    later = (second.time + timedelta(days=1)).isoformat()
    assert select(repository, f"app@{later}", timezone=UTC) == second
    assert list(newest_first(repository)) == [other, second, first]
    assert list(newest_first(repository, limit=1)) == [other]
    assert list(newest_first(repository, source="app", tags=["pre-deploy"])) == [first]
    for wrong in ("nothing", "app@1999-01-01", "app@noon", "other@x"):
        with pytest.raises(ConfigError):
            select(repository, wrong, timezone=UTC)


@pytest.mark.parametrize(
    "form", ["%Y-%m-%d", "%Y-%m-%dT%H", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S.%fZ"]
)
def test_a_time_includes_the_whole_unit_that_was_written(form: str) -> None:
    """What `snapshots` prints has no fractions of a second; typed back it must find that snapshot."""
    repository = make_repository()
    snapshot = back_up(repository, BytesSource(DATA))

    assert select(repository, f"app@{snapshot.time.strftime(form)}", timezone=UTC) == snapshot


def test_nothing_names_no_snapshot() -> None:
    repository = make_repository()
    back_up(repository, BytesSource(DATA))

    with pytest.raises(ConfigError):
        select(repository, "", timezone=UTC)


def test_a_time_without_an_offset_is_local() -> None:
    repository = make_repository()
    snapshot = back_up(repository, BytesSource(DATA))
    west = datetime.now(UTC).astimezone().tzinfo
    assert west is not None
    local = (snapshot.time.astimezone(west) + timedelta(seconds=1)).replace(tzinfo=None)

    assert select(repository, f"app@{local.isoformat()}", timezone=west) == snapshot


def test_source_names_do_not_show_in_the_store() -> None:
    repository = make_repository()
    back_up(repository, BytesSource(DATA), "secret-project")

    assert not any("secret" in info.key for info in repository.store.list(""))
    assert not any(b"secret-project" in repository.store.get(info.key) for info in repository.store.list(""))
    assert not any(DATA["a"][:20] in repository.store.get(info.key) for info in repository.store.list(""))
