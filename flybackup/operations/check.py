"""Check what is stored: structure with the write key, every byte on request.

- structure: every object is named by its bytes or opens under its name; every chunk a snapshot refers to is in an index
  file; every pack an index file speaks of lies there with its size.
- `read_data`: every pack is read and hashed (which needs no key), and with the restore key every chunk is opened.
"""

from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from flybackup.concurrency import ordered_map
from flybackup.crypto import ChunkCipher, digest
from flybackup.errors import FlybackupError, IntegrityError, ObjectNotFoundError
from flybackup.index import ChunkIndex, IndexedPack, decode_index
from flybackup.keys import read_slot
from flybackup.manifest import in_a_row
from flybackup.model import ChunkId, OnProgress, PackId, Progress, Snapshot, SnapshotId
from flybackup.packing import (
    TRAILER_BYTES,
    Segment,
    chunks_of,
    directory_length,
    open_chunk,
    pack_key,
    read_directory,
)
from flybackup.reading import Reader
from flybackup.repository import Repository

WORKERS = 3


@dataclass(frozen=True, slots=True)
class Damage:
    """An object that is not what was written, and the snapshots that need it."""

    object: str
    problem: str
    snapshots: tuple[SnapshotId, ...]


@dataclass(frozen=True, slots=True)
class CheckReport:
    """`bytes_verified` counts what was read and hashed; `oldest_unverified` is not kept yet and None."""

    ok: bool
    errors: tuple[Damage, ...]
    bytes_verified: int
    oldest_unverified: str | None


def check(repository: Repository, *, read_data: bool, on_progress: OnProgress) -> CheckReport:
    """Return all damage found. Changes nothing. Raise `StoreError` when the store cannot be read at all."""
    return _Check(repository, on_progress).run(read_data=read_data)


class _Check:
    """Collects damage by object and, as snapshots are walked, who needs which pack."""

    def __init__(self, repository: Repository, on_progress: OnProgress) -> None:
        self._repository = repository
        self._on_progress = on_progress
        self._problems: dict[str, str] = {}
        self._needed_by: dict[str, set[SnapshotId]] = defaultdict(set)
        self._packs: dict[PackId, IndexedPack] = {}
        self._index = ChunkIndex()
        self._bytes_verified = 0

    def run(self, *, read_data: bool) -> CheckReport:
        self._check_keys()
        # Against the order of writing, or a backup that ends meanwhile looks like damage.
        snapshots = [info.key for info in self._repository.store.list("snapshots/")]
        self._load_index()
        self._check_packs_exist()
        self._check_snapshots(snapshots)
        if read_data:
            self._read_packs()
        errors = tuple(
            Damage(key, problem, tuple(sorted(self._needed_by[key]))) for key, problem in sorted(self._problems.items())
        )
        return CheckReport(not errors, errors, self._bytes_verified, None)

    def _note(self, exc: FlybackupError, key: str) -> None:
        self._problems.setdefault(key, exc.problem if isinstance(exc, IntegrityError) else str(exc))

    def _check_keys(self) -> None:
        for info in self._repository.store.list("keys/"):
            try:
                read_slot(info.key, self._repository.store.get(info.key))
            except IntegrityError as exc:
                self._note(exc, info.key)

    def _load_index(self) -> None:
        store, key = self._repository.store, self._repository.write_key.metadata
        for info in store.list("index/"):
            try:
                self._add_packs(decode_index(key, info.key, store.get(info.key)), info.key)
            except IntegrityError as exc:
                self._note(exc, info.key)
        self._index.extend(self._packs.values())

    def _add_packs(self, packs: Iterable[IndexedPack], key: str) -> None:
        """A pack may be in several index files. They must agree: a reader believes any, and only one is proved here."""
        for pack in packs:
            if self._packs.setdefault(PackId(pack.id), pack) != pack:
                self._problems[key] = f"contradicts another index file about the pack {pack.id.hex()}"

    def _check_packs_exist(self) -> None:
        there = {info.key: info.size for info in self._repository.store.list("packs/")}
        for name, pack in self._packs.items():
            key = pack_key(name)
            if key not in there:
                self._problems[key] = "is missing from the store"
            elif there[key] != pack.size:
                self._problems[key] = f"has {there[key]} bytes, was written with {pack.size}"

    def _check_snapshots(self, keys: Iterable[str]) -> None:
        with Reader(self._repository, self._index) as reader:
            for key in keys:
                try:
                    snapshot = self._repository.read_snapshot(key)
                except ObjectNotFoundError:  # forgotten since it was listed
                    continue
                except IntegrityError as exc:
                    self._note(exc, exc.key or key)
                    continue
                try:
                    self._walk(reader, snapshot, key)
                except IntegrityError as exc:
                    self._note(exc, exc.key or key)

    def _walk(self, reader: Reader, snapshot: Snapshot, key: str) -> None:
        self._needed_by[key].add(snapshot.id)
        self._need((ref.id for ref in in_a_row(snapshot.manifest)), snapshot, key)
        for entry in reader.entries(snapshot):
            self._need((ref.id for ref in entry.chunks), snapshot, key)

    def _need(self, names: Iterable[ChunkId], snapshot: Snapshot, key: str) -> None:
        for name in names:
            place = self._index.find(name)
            if place is None:
                self._problems[key] = "needs chunks that no index file knows"
            else:
                self._needed_by[pack_key(place.pack)].add(snapshot.id)

    def _read_packs(self) -> None:
        whole = [pack for name, pack in self._packs.items() if pack_key(name) not in self._problems]
        total = sum(pack.size for pack in whole)
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="check") as pool:
            for size, damage in ordered_map(pool, self._read_pack, whole, ahead=WORKERS):
                self._bytes_verified += size
                self._on_progress(Progress("check", self._bytes_verified, total))
                if damage is not None:
                    self._note(damage, damage.key)

    def _read_pack(self, pack: IndexedPack) -> tuple[int, IntegrityError | None]:
        key = pack_key(PackId(pack.id))
        try:
            stored = memoryview(self._repository.store.get(key))
            self._prove(pack, stored, key)
        except ObjectNotFoundError:
            return 0, IntegrityError("is missing from the store", key=key)
        except IntegrityError as exc:
            return pack.size, IntegrityError(exc.problem, key=key)
        return pack.size, None

    def _prove(self, pack: IndexedPack, stored: memoryview, key: str) -> None:
        if digest(stored) != pack.id:
            raise IntegrityError("its bytes do not match its name", key=key)
        end = len(stored) - TRAILER_BYTES
        length = directory_length(stored[end:], len(stored), key)
        metadata_key = self._repository.write_key.metadata
        if read_directory(metadata_key, stored[end - length : end], key) != pack.directory:
            raise IntegrityError("its directory and the index file disagree", key=key)
        self._open_chunks(pack, stored)

    def _open_chunks(self, pack: IndexedPack, stored: memoryview) -> None:
        keys = self._repository.write_key
        for segment, rows in chunks_of(pack.directory):
            secret = self._secret(pack, segment)
            if secret is None:
                continue
            cipher = ChunkCipher(secret, segment.salt)
            id_key = keys.manifest_ids if segment.session is None else keys.data_ids
            for row in rows:
                open_chunk(cipher, row, stored[row.offset : row.offset + row.length], id_key)

    def _secret(self, pack: IndexedPack, segment: Segment) -> bytes | None:
        """Return what opens a segment, or None for data when only the write key is here."""
        if segment.session is None:
            return self._repository.write_key.metadata
        if self._repository.master is None:
            return None
        sealed = pack.directory.sessions[segment.session]
        return self._repository.master.private_key.open_session(sealed, self._repository.id)
