"""A repository: the objects of one set of keys in one store, and the keys this process was given.

`config` is three lines, so that damage, which everybody can see, is told apart from a wrong key:

    {"format": 1, "id": …, "public_key": …, "created": …}
    hmac-sha256 of the first line, under a key that holders of the write key derive
    blake3 of the first two lines
"""

import hmac
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from flybackup.crypto import digest
from flybackup.envelope import UNDECODABLE, open_value, seal_value
from flybackup.errors import (
    ConfigError,
    IntegrityError,
    ObjectExistsError,
    ObjectNotFoundError,
    RefusedError,
    RepositoryNotFoundError,
    UnsupportedFormatError,
    WrongKeyError,
)
from flybackup.index import ChunkIndex, IndexedPack, decode_index
from flybackup.keys import (
    Argon2Cost,
    KeySlot,
    Master,
    WriteKey,
    parse_recovery_key,
    parse_write_key,
    read_slot,
    unwrap,
    wrap,
)
from flybackup.model import PackId, Snapshot, SnapshotId
from flybackup.packing import pack_key
from flybackup.stores import Store

FORMAT = 1
_TIME_FORMAT = "%Y%m%dt%H%M%S%fz"


class _ConfigLine(msgspec.Struct, frozen=True):
    format: int
    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    public_key: bytes
    created: str


class Repository:
    """What every operation works on. `master` is None when only the write key is at hand.

    Holds keys in memory only; no method writes one anywhere but wrapped.
    """

    def __init__(self, store: Store, public_key: bytes, write_key: WriteKey, master: Master | None) -> None:
        self.store = store
        self.public_key = public_key
        self.write_key = write_key
        self.master = master

    @property
    def id(self) -> bytes:
        return self.write_key.repository_id

    def require_master(self, purpose: str) -> Master:
        """Return the master secret. Raise `WrongKeyError` when only the write key is here."""
        if self.master is None:
            raise WrongKeyError(
                f"{purpose} needs the restore key, and FLYBACKUP_WRITE_KEY can only write and list",
                hint="Set FLYBACKUP_PASSPHRASE, or FLYBACKUP_RECOVERY_KEY when the passphrase is lost.",
            )
        return self.master

    def with_store(self, store: Store) -> "Repository":
        """Return this repository seen through *store*, which wraps the present one."""
        return Repository(store, self.public_key, self.write_key, self.master)

    def load_index(
        self, damaged: list[IntegrityError] | None = None, *, there: Mapping[str, int] | None = None
    ) -> ChunkIndex:
        """Read every index file. One that is damaged is added to *damaged*, or raised where that is not given.

        With *there* (keys and sizes) only packs that it has are taken.
        """
        index = ChunkIndex()
        index.extend(pack for pack in self._indexed_packs(damaged) if there is None or _lies(pack, there))
        return index

    def load_index_for_reading(self, damaged: list[IntegrityError]) -> ChunkIndex:
        """Read every index file. A chunk that lies in several packs is found in one that is there, if any is."""
        there = self.packs_there()
        index = ChunkIndex()
        index.extend(sorted(self._indexed_packs(damaged), key=lambda pack: not _lies(pack, there)))
        return index

    def packs_there(self) -> dict[str, int]:
        """Return the packs that lie in the store, with their sizes. One request for a thousand packs."""
        return {info.key: info.size for info in self.store.list("packs/")}

    def _indexed_packs(self, damaged: list[IntegrityError] | None) -> Iterator[IndexedPack]:
        for info in self.store.list("index/"):
            try:
                yield from decode_index(self.write_key.metadata, info.key, self.store.get(info.key))
            except IntegrityError as exc:
                if damaged is None:
                    raise
                damaged.append(exc)

    def snapshot_keys(self, source: str | None = None) -> list[str]:
        """Return where the heads lie, per source ascending in time."""
        prefix = "snapshots/" if source is None else f"snapshots/{self.write_key.source_key(source)}/"
        return [info.key for info in self.store.list(prefix)]

    def snapshots(self, source: str | None = None) -> Iterator[Snapshot]:
        """Yield the heads of the snapshots, per source ascending in time. Raise `IntegrityError` for a damaged one."""
        return map(self.read_snapshot, self.snapshot_keys(source))

    def read_snapshot(self, key: str) -> Snapshot:
        """Open the head at *key*. Raise `IntegrityError` when it is damaged, or another than its key says."""
        snapshot = open_value(self.write_key.metadata, key, self.store.get(key), Snapshot)
        said = (self.write_key.source_key(snapshot.source), snapshot.time, snapshot.id)
        if said != (key.split("/")[1], *parse_snapshot_key(key)):
            raise IntegrityError("says that it is another snapshot", key=key)
        return snapshot

    def put_snapshot(self, snapshot: Snapshot) -> None:
        """Commit: from here on the snapshot exists."""
        key = self.snapshot_key(snapshot.source, snapshot.time, snapshot.id)
        self.store.put(key, seal_value(self.write_key.metadata, key, snapshot))

    def snapshot_key(self, source: str, time: datetime, snapshot: SnapshotId) -> str:
        """Return where a snapshot's head lies; `parse_snapshot_key` reads it back."""
        stamp = time.astimezone(UTC).strftime(_TIME_FORMAT)
        return f"snapshots/{self.write_key.source_key(source)}/{stamp}-{snapshot}"

    def slots(self) -> Iterator[tuple[str, KeySlot]]:
        """Yield the key slots of this repository by name; those of an `init` that lost a race are not ours."""
        for info in self.store.list("keys/"):
            slot = read_slot(info.key, self.store.get(info.key))
            if slot.repository == self.id.hex():
                yield info.key, slot

    def add_passphrase(self, passphrase: str, *, label: str, now: datetime) -> str:
        """Wrap the master secret by another passphrase and return the new slot's key in the store."""
        slot = wrap(self.require_master("adding a passphrase"), passphrase, label=label, created=now.isoformat())
        return _put_slot(self.store, slot)

    def remove_slot(self, prefix: str) -> str:
        """Delete the slot whose id begins with *prefix*; the last one stays, or only the recovery key would be left."""
        names = [name for name, _ in self.slots()]
        found = [name for name in names if name.removeprefix("keys/").startswith(prefix)]
        if len(found) != 1:
            raise ConfigError(f"{len(found)} keys begin with {prefix!r}", hint="'flybackup key list' shows them.")
        if len(names) == 1:
            raise RefusedError("this is the last passphrase", hint="Add another one first: flybackup key add.")
        self.store.delete(found[0])
        return found[0]


def _lies(pack: IndexedPack, there: Mapping[str, int]) -> bool:
    return there.get(pack_key(PackId(pack.id))) == pack.size


def parse_snapshot_key(key: str) -> tuple[datetime, SnapshotId]:
    """Return the time and id in a snapshot's key. Raise `IntegrityError` for a key nobody of us wrote."""
    stamp, _, snapshot = key.rpartition("/")[2].partition("-")
    try:
        time = datetime.strptime(stamp, _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError as exc:
        raise IntegrityError("is no snapshot's name", key=key) from exc
    return time, SnapshotId(snapshot)


def create(store: Store, passphrase: str, *, label: str, now: datetime, cost: Argon2Cost | None = None) -> Repository:
    """Make a repository; writing `config` is the commit. Raise `RefusedError` when the store holds one already."""
    if _has_config(store):
        raise RefusedError(f"{store.url} holds a repository already", hint="Use it, or choose another place.")
    master = Master(os.urandom(16), os.urandom(32))
    public_key = master.private_key.public_bytes()
    _put_slot(store, wrap(master, passphrase, label=label, created=now.isoformat(), cost=cost))
    line = _ConfigLine(format=FORMAT, id=master.repository_id.hex(), public_key=public_key, created=now.isoformat())
    try:
        store.create("config", _config(msgspec.json.encode(line), master.write_key))
    except ObjectExistsError as exc:
        raise RefusedError(f"{store.url} holds a repository already: another init was quicker") from exc
    return Repository(store, public_key, master.write_key, master)


def open_with_passphrase(store: Store, passphrase: str) -> Repository:
    """Raise `WrongKeyError` when no slot opens with *passphrase*, `RepositoryNotFoundError` where there is none."""
    text, line = _read_config(store)
    damage: IntegrityError | None = None
    for info in store.list("keys/"):
        try:
            slot = read_slot(info.key, store.get(info.key))
            master = unwrap(slot, passphrase) if slot.repository == line.id else None
        except IntegrityError as exc:
            damage = exc  # another slot may still open
            continue
        if master is not None:
            return _opened(store, text, line, master.write_key, master)
    raise damage or WrongKeyError(
        f"the passphrase does not open the repository at {store.url}",
        hint="Check FLYBACKUP_PASSPHRASE. If it is lost, the recovery key printed by init still restores.",
    )


def open_with_recovery_key(store: Store, recovery_key: str) -> Repository:
    """Open by the recovery key alone: no object under `keys/` is needed. Raise `WrongKeyError`."""
    text, line = _read_config(store)
    master = parse_recovery_key(recovery_key, bytes.fromhex(line.id))
    if not _mac_matches(text, master.write_key):
        raise WrongKeyError(f"this recovery key belongs to another repository than the one at {store.url}")
    return _opened(store, text, line, master.write_key, master)


def open_with_write_key(store: Store, write_key: str) -> Repository:
    """Open for writing and listing only. Raise `WrongKeyError` when the key is another repository's."""
    text, line = _read_config(store)
    key = parse_write_key(write_key)
    if not hmac.compare_digest(key.repository_id.hex(), line.id):
        raise WrongKeyError(f"this write key belongs to another repository than the one at {store.url}")
    return _opened(store, text, line, key, None)


def _opened(store: Store, text: bytes, line: _ConfigLine, key: WriteKey, master: Master | None) -> Repository:
    # The public key decides who can read what is written from now on. A store that swaps it must not get through.
    if not _mac_matches(text, key) or not hmac.compare_digest(digest(line.public_key), key.public_key_digest):
        raise IntegrityError("was not written by a holder of this repository's keys", key="config")
    return Repository(store, line.public_key, key, master)


def _has_config(store: Store) -> bool:
    try:
        store.get("config")
    except ObjectNotFoundError:
        return False
    return True


def _read_config(store: Store) -> tuple[bytes, _ConfigLine]:
    try:
        stored = store.get("config")
    except ObjectNotFoundError as exc:
        raise RepositoryNotFoundError(
            f"there is no repository at {store.url}", hint="Check the address, or make one: flybackup init."
        ) from exc
    text, line = _parse_config(stored)
    if line.format != FORMAT:
        raise UnsupportedFormatError(f"{store.url} has format {line.format}, this is 1", hint="Update flybackup.")
    return text, line


def _parse_config(stored: bytes) -> tuple[bytes, _ConfigLine]:
    line, _, rest = stored.partition(b"\n")
    if not stored.endswith(b"\n") or stored != _finish_config(line, rest.partition(b"\n")[0]):
        raise IntegrityError("its bytes are not what was written", key="config")
    try:
        return stored, msgspec.json.decode(line, type=_ConfigLine)
    except UNDECODABLE as exc:
        raise UnsupportedFormatError("this repository's format is not known here", hint="Update flybackup.") from exc


def _config(line: bytes, key: WriteKey) -> bytes:
    return _finish_config(line, key.config_mac(line).hex().encode())


def _finish_config(line: bytes, mac: bytes) -> bytes:
    text = line + b"\n" + mac + b"\n"
    return text + digest(text).hex().encode() + b"\n"


def _mac_matches(stored: bytes, key: WriteKey) -> bool:
    return hmac.compare_digest(stored, _config(stored.partition(b"\n")[0], key))


def _put_slot(store: Store, slot: bytes) -> str:
    key = f"keys/{digest(slot).hex()}"
    store.put(key, slot)
    return key
