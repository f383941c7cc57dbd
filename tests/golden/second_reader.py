"""A second reader of format 1, written from docs/format.md alone: nothing here knows the first implementation.

The numbers after § are the sections of that document. A check stated there that fails raises `Refused`.
"""

import base64
import hmac
import json
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 1024 * 1024
CHUNK_LIMIT = 4 * MIB
RECORD_LIMIT = MIB
RUN_LIMIT = 1024
ZERO_NONCE = bytes(12)


class Refused(Exception):  # noqa: N818
    """What was read is damaged, forged, of another repository, or closed to this key."""


class WrongKey(Refused):
    """An authenticated cipher did not open: a wrong key, or bytes or a name that are not the sealed ones."""


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Refused(otherwise)


def digest(data: bytes) -> bytes:
    """H(data), §2."""
    return blake3(data).digest()


def keyed_digest(key: bytes, data: bytes) -> bytes:
    """H(key, data), §2."""
    return blake3(data, key=key).digest()


def derive(secret: bytes, salt: bytes, purpose: str, length: int = 32) -> bytes:
    """§2."""
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=b"flybackup 1 " + purpose.encode()).derive(secret)


def open_gcm(key: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
    """§2."""
    try:
        return AESGCM(key).decrypt(nonce, sealed, aad)
    except InvalidTag as exc:
        raise WrongKey("a seal does not hold") from exc


def decode(encoding: int, body: bytes, limit: int | None = None) -> bytes:
    """The reverse of encode(), §2; exactly one frame, and never more than `limit` bytes of it."""
    require(encoding in {0, 1}, f"unknown encoding {encoding}")
    if encoding == 0:
        return body
    frame = zstd.ZstdDecompressor()
    plain = frame.decompress(body, -1 if limit is None else limit + 1)
    require(frame.eof and not frame.unused_data, "not one zstd frame")
    return plain


@dataclass(frozen=True)
class Keys:
    """What a key opens, §3; without the restore key nothing of data."""

    repository: bytes
    write_secret: bytes
    public_key_digest: bytes
    restore: MLKEM768X25519PrivateKey | None

    def purpose(self, purpose: str) -> bytes:
        return derive(self.write_secret, self.repository, purpose)


@dataclass(frozen=True)
class Config:
    """§4; `line` is what `mac` is about."""

    repository: bytes
    public_key: bytes
    line: bytes
    mac: str


@dataclass(frozen=True)
class Repository:
    root: Path
    keys: Keys


def read_config(root: Path) -> Config:
    """What everybody can check of `config`, §4: its own digest and the format."""
    lines = (root / "config").read_bytes().split(b"\n")
    require(len(lines) == 4 and not lines[3], "config is not three lines")
    require(digest(b"%s\n%s\n" % (lines[0], lines[1])).hex() == lines[2].decode(), "config is damaged")
    fields = json.loads(lines[0])
    require(fields["format"] == 1, "not format 1")
    return Config(bytes.fromhex(fields["id"]), base64.b64decode(fields["public_key"]), lines[0], lines[1].decode())


def opened(root: Path, config: Config, keys: Keys) -> Repository:
    """What a holder of a key checks of `config`, §4: its repository, its author, whom data is sealed to."""
    require(keys.repository == config.repository, "the key is of another repository")
    mac = hmac.digest(keys.purpose("config"), config.line, "sha256")
    require(hmac.compare_digest(mac.hex(), config.mac), "config was not written by a holder of the write key")
    require(digest(config.public_key) == keys.public_key_digest, "config names another public key")
    return Repository(root, keys)


def keys_of(master: bytes, repository: bytes) -> Keys:
    """The tree of §3 from the master secret."""
    ml_kem = MLKEM768PrivateKey.from_seed_bytes(derive(master, repository, "ML-KEM-768 seed", 64))
    x25519 = X25519PrivateKey.from_private_bytes(derive(master, repository, "X25519 seed"))
    public_key = ml_kem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    write_secret = derive(master, repository, "write secret")
    return Keys(repository, write_secret, digest(public_key), MLKEM768X25519PrivateKey(ml_kem, x25519))


def open_with_recovery_key(root: Path, text: str) -> Repository:
    """§3."""
    folded = "".join(text.split()).replace("-", "").upper()
    raw = base64.b32decode(folded.removeprefix("FLYBACKUPRECOVERY1"))
    master, check = raw[:32], raw[32:]
    require(digest(master)[:3] == check, "the recovery key is mistyped")
    config = read_config(root)
    return opened(root, config, keys_of(master, config.repository))


def open_with_write_key(root: Path, text: str) -> Repository:
    """§3."""
    raw = base64.urlsafe_b64decode(text.removeprefix("flybackup-write-1-"))
    body, check = raw[:-4], raw[-4:]
    require(len(body) == 80 and digest(body)[:4] == check, "the write key is mistyped")
    return opened(root, read_config(root), Keys(body[:16], body[16:48], body[48:], None))


def open_with_passphrase(root: Path, passphrase: str) -> Repository:
    """§3: the first slot of this repository that the passphrase opens."""
    config = read_config(root)
    for path in sorted((root / "keys").iterdir()):
        slot = json.loads(named_by_digest(path))
        if slot["repository"] == config.repository.hex():
            with suppress(WrongKey):
                return opened(root, config, keys_of(unwrapped(slot, passphrase), config.repository))
    raise WrongKey("the passphrase opens no key slot")


def unwrapped(slot: Mapping[str, Any], passphrase: str) -> bytes:
    """The master secret of a key slot, §3; costs that would only exhaust the reader are refused first."""
    memory_kib, iterations, lanes = (slot["cost"][name] for name in ("memory_kib", "iterations", "lanes"))
    affordable = memory_kib <= MIB and iterations <= 64 and lanes <= 64  # 1 GiB in KiB
    require(slot["kdf"] == "argon2id" and affordable, "a key slot asks for another or too dear a derivation")
    salt = base64.b64decode(slot["salt"])
    argon2 = Argon2id(salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory_kib)
    aad = b"flybackup 1 key slot " + bytes.fromhex(slot["repository"])
    return open_gcm(argon2.derive(passphrase.encode()), ZERO_NONCE, base64.b64decode(slot["wrapped"]), aad)


def named_by_digest(path: Path) -> bytes:
    """The bytes of a pack, index file or key slot, which are its name, §1."""
    data = path.read_bytes()
    require(digest(data).hex() == path.name, f"{path.name} is damaged")
    return data


def open_value(repository: Repository, name: str, blob: bytes) -> Any:
    """A blob under the metadata key and the value in it, §5."""
    magic, salt, sealed = blob[:8], blob[8:40], blob[40:]
    require(magic == b"flyblob1", f"{name} is not a blob")
    key = derive(repository.keys.purpose("metadata"), salt, "blob")
    plain = open_gcm(key, ZERO_NONCE, sealed, name.encode())
    return msgspec.msgpack.decode(decode(plain[0], plain[1:]))


@dataclass(frozen=True)
class Place:
    """One row of a pack's directory, §7: where a sealed chunk lies and how it opens."""

    pack: str
    kind: str
    session: bytes | None
    salt: bytes
    id: bytes
    offset: int
    length: int
    counter: int
    size: int
    encoding: int


Index = Mapping[tuple[str, bytes], Place]


def u32_column(column: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(column) // 4}I", column)


def ids_column(column: bytes) -> list[bytes]:
    return [column[at : at + 32] for at in range(0, len(column), 32)]


def directory_places(pack: str, directory: Mapping[str, Any]) -> Iterator[Place]:
    """The rows of a directory, segment after segment, §7."""
    kind, sessions = directory["kind"], directory.get("sessions", [])
    columns = [u32_column(directory[name]) for name in ("offsets", "lengths", "counters", "sizes")]
    rows = zip(ids_column(directory["ids"]), *columns, directory["encodings"], strict=True)
    for salt, session, count in directory["segments"]:
        require((session is None) == (kind == "manifest"), "§5: data under session secrets, manifests under none")
        secret = None if session is None else sessions[session]
        for _ in range(count):
            chunk_id, offset, length, counter, size, encoding = next(rows)
            yield Place(pack, kind, secret, salt, chunk_id, offset, length, counter, size, encoding)
    require(next(rows, None) is None, "rows outside every segment")


def places_by_index_files(repository: Repository) -> frozenset[Place]:
    """§8."""
    places: set[Place] = set()
    for path in (repository.root / "index").iterdir():
        for pack in open_value(repository, "index", named_by_digest(path)):
            name = pack["id"].hex()
            require(pack_path(repository, name).stat().st_size == pack["size"], f"pack {name} has another size")
            places.update(directory_places(name, pack["directory"]))
    return frozenset(places)


def places_by_packs(repository: Repository) -> frozenset[Place]:
    """The same from the directories at the end of the packs, §7."""
    places: set[Place] = set()
    for path in (repository.root / "packs").glob("*/*"):
        pack = named_by_digest(path)
        length, magic = struct.unpack("<I8s", pack[-12:])
        require(magic == b"flypack1", f"{path.name} is not a pack")
        places.update(directory_places(path.name, open_value(repository, "pack directory", pack[-12 - length : -12])))
    return frozenset(places)


def index_of(places: frozenset[Place]) -> Index:
    """A chunk may be in several packs, any will do, §8."""
    return {(place.kind, place.id): place for place in places}


def pack_path(repository: Repository, name: str) -> Path:
    return repository.root / "packs" / name[:2] / name


def segment_secret(keys: Keys, place: Place) -> bytes:
    """§5; a session secret opens with the restore key only."""
    if place.session is None:
        return keys.purpose("metadata")
    if keys.restore is None:
        raise WrongKey("data opens with the restore key only")
    suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    try:
        return suite.decrypt(place.session, keys.restore, info=b"flybackup 1 session " + keys.repository)
    except InvalidTag as exc:
        raise WrongKey("a session key is not sealed to this repository") from exc


def open_chunk(repository: Repository, place: Place) -> bytes:
    """§5 and §6: the seal, the size, and the id computed again."""
    with pack_path(repository, place.pack).open("rb") as pack:
        pack.seek(place.offset)
        sealed = pack.read(place.length)
    key = derive(segment_secret(repository.keys, place), place.salt, "chunks")
    aad = place.id + bytes([place.encoding])
    body = open_gcm(key, place.counter.to_bytes(12, "big"), sealed, aad)
    chunk = decode(place.encoding, body, CHUNK_LIMIT)
    require(1 <= len(chunk) == place.size <= CHUNK_LIMIT, "a chunk is not of its size")
    id_key = repository.keys.purpose("data ids" if place.kind == "data" else "manifest ids")
    require(keyed_digest(id_key, chunk) == place.id, "a chunk is not what its id names")
    return chunk


def find(index: Index, kind: str, chunk_id: bytes, size: int) -> Place:
    place = index.get((kind, chunk_id))
    if place is None or place.size != size:
        raise Refused(f"{kind} chunk {chunk_id.hex()} of {size} bytes is in no pack")
    return place


def snapshots(repository: Repository) -> list[dict[str, Any]]:
    """§10: every head, each the one its key says."""
    heads = []
    for path in sorted((repository.root / "snapshots").glob("*/*")):
        head = open_value(repository, path.relative_to(repository.root).as_posix(), path.read_bytes())
        source = keyed_digest(repository.keys.purpose("source names"), head["source"].encode())[:8].hex()
        name = f"{head['time'].astimezone(UTC):%Y%m%dt%H%M%S%fz}-{head['id']}"
        require((path.parent.name, path.name) == (source, name), f"{path.name} is another snapshot's head")
        heads.append(head)
    return heads


def sessions(repository: Repository) -> dict[str, datetime]:
    """§11: when each session began, by its writer's clock."""
    started: dict[str, datetime] = {}
    for path in (repository.root / "sessions").glob("*/*"):
        session = open_value(repository, path.relative_to(repository.root).as_posix(), path.read_bytes())
        require(session["id"] == path.parent.name, f"{path} is another session's")
        started[session["id"]] = session["started"]
    return started


@dataclass(frozen=True)
class Entry:
    path: str
    kind: str
    size: int
    mode: int | None
    mtime_ns: int | None


@dataclass(frozen=True)
class Extent:
    """A chunk and where it lies in its entry."""

    at: int
    size: int
    id: bytes


def records(stream: bytes) -> Iterator[Mapping[str, Any]]:
    """§9; records end where the stream ends."""
    at = 0
    while at < len(stream):
        (length,) = struct.unpack_from("<I", stream, at)
        body = stream[at + 4 : at + 4 + length]
        require(len(body) == length <= RECORD_LIMIT, "a manifest ends within a record, or a record is too long")
        yield msgspec.msgpack.decode(body)
        at += 4 + length


def run_extents(run: Mapping[str, Any]) -> Iterator[Extent]:
    """The chunks of a run, one after the other, §9."""
    at, sizes = run.get("at", 0), u32_column(run["sizes"])
    require(len(sizes) <= RUN_LIMIT, "a run is too long")
    for size, chunk_id in zip(sizes, ids_column(run["ids"]), strict=True):
        yield Extent(at, size, chunk_id)
        at += size


def entries(repository: Repository, index: Index, snapshot: Mapping[str, Any]) -> list[tuple[Entry, list[Extent]]]:
    """The entries of a snapshot from its manifest, §9; the write key is enough."""
    places = [find(index, "manifest", chunk_id, size) for chunk_id, size in snapshot["manifest"]]
    found: list[tuple[Entry, list[Extent]]] = []
    for record in records(b"".join(open_chunk(repository, place) for place in places)):
        if "entry" in record:
            fields = record["entry"]
            optional = fields.get("size", 0), fields.get("mode"), fields.get("mtime_ns")
            found.append((Entry(fields["path"], fields["kind"], *optional), []))
        if "sizes" in record:
            found[-1][1].extend(run_extents(record))
    return found


def content(repository: Repository, index: Index, entry: Entry, extents: list[Extent]) -> bytes:
    """The bytes of an entry: what no chunk covers is a hole and reads as zeros, §9."""
    data = bytearray(entry.size)
    for extent in extents:
        end = extent.at + extent.size
        require(end <= entry.size, f"a chunk lies outside {entry.path}")
        data[extent.at : end] = open_chunk(repository, find(index, "data", extent.id, extent.size))
    return bytes(data)
