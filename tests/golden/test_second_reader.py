"""docs/format.md says enough: a reader written from it alone opens the frozen repository and refuses forgeries."""

import base64
import hashlib
import hmac
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from golden import second_reader as reader
from golden.second_reader import Repository

HERE = Path(__file__).parent / "v1"
KEYS = json.loads((HERE / "keys.json").read_text())
ROOT = HERE / "repository"

TEXT = b"".join(b"%d,row of a table\n" % number for number in range(9000))
SPARSE = (b"h" * 100 + b"b" * 64 + bytes(64) + b"c" * 64).ljust(1_000_000, b"\0")
EVERYTHING = {
    ("noise", "file", 40_000, 0o600, 1): random.Random(1).randbytes(40_000),
    ("text", "dump", len(TEXT), None, None): TEXT,
    ("empty", "file", 0, None, None): b"",
    ("sparse \U0001f986", "file", 1_000_000, None, None): SPARSE,
}

OPENINGS: dict[str, Callable[[Path], Repository]] = {
    "passphrase": lambda root: reader.open_with_passphrase(root, KEYS["passphrase"]),
    "recovery key": lambda root: reader.open_with_recovery_key(root, KEYS["recovery_key"]),
    "write key": lambda root: reader.open_with_write_key(root, KEYS["write_key"]),
}
INDEXES = {"index files": reader.places_by_index_files, "packs": reader.places_by_packs}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT, tmp_path / "repository"))


def head_of(repository: Repository, source: str) -> dict[str, object]:
    return next(head for head in reader.snapshots(repository) if head["source"] == source)


@pytest.mark.parametrize("opening", ["passphrase", "recovery key"])
@pytest.mark.parametrize("index", INDEXES)
def test_both_snapshots_read_back_byte_for_byte(opening: str, index: str) -> None:
    repository = OPENINGS[opening](ROOT)
    places = reader.index_of(INDEXES[index](repository))
    read = {
        (head["id"], entry.path, entry.kind, entry.size, entry.mode, entry.mtime_ns): reader.content(
            repository, places, entry, extents
        )
        for head in reader.snapshots(repository)
        for entry, extents in reader.entries(repository, places, head)
    }

    everything = {key[1:]: data for key, data in read.items() if key[0] == KEYS["everything"]}
    (app,) = [data for key, data in read.items() if key[0] == KEYS["app"]]
    assert everything == EVERYTHING
    assert hashlib.sha256(app).hexdigest() == KEYS["app_sha256"]


def test_heads_and_sessions_say_what_was_backed_up() -> None:
    repository = OPENINGS["write key"](ROOT)
    head = head_of(repository, "everything")

    assert {h["id"]: h["source"] for h in reader.snapshots(repository)} == {
        KEYS["everything"]: "everything",
        KEYS["app"]: "app",
    }
    assert head["facts"] == {
        "tables": {"main.text": {"rows": 9000, "checksum": "abc"}},
        "sequences": {"main.s": 7},
        "files": 4,
        "engine": "",
        "details": {},
    }
    assert (head["kind"], head["method"], head["status"]) == ("golden", "by hand", "complete")
    assert (head["tags"], head["warnings"]) == (["golden", "format-1"], ["a warning"])
    assert reader.sessions(repository).keys() == {KEYS["everything"], KEYS["app"]}


def test_the_write_key_opens_manifests_and_no_data() -> None:
    repository = OPENINGS["write key"](ROOT)
    index = reader.index_of(reader.places_by_index_files(repository))
    found = {
        entry.path: extents
        for head in reader.snapshots(repository)
        for entry, extents in reader.entries(repository, index, head)
    }

    assert found.keys() == {"noise", "text", "empty", "sparse \U0001f986", "app.duckdb"}
    data = [index["data", extent.id] for extents in found.values() for extent in extents]
    assert len(data) > 5
    for place in data:
        with pytest.raises(reader.WrongKey, match="restore key only"):
            reader.open_chunk(repository, place)


@pytest.mark.parametrize("opening", OPENINGS)
def test_the_packs_alone_say_what_the_index_files_say(opening: str, copy: Path) -> None:
    by_files = reader.places_by_index_files(OPENINGS[opening](ROOT))
    shutil.rmtree(copy / "index")
    by_packs = reader.places_by_packs(OPENINGS[opening](copy))

    assert by_packs == by_files
    assert {place.kind for place in by_packs} == {"data", "manifest"}
    assert len({(place.salt, place.counter) for place in by_packs}) == len(by_packs), "a nonce was used twice"


def test_packs_index_files_and_key_slots_bear_the_digest_of_their_bytes() -> None:
    for pattern, count in {"packs/??/*": 4, "index/*": 2, "keys/*": 1}.items():
        paths = list(ROOT.glob(pattern))
        assert len(paths) == count
        for path in paths:
            assert reader.digest(path.read_bytes()).hex() == path.name
    assert all(path.parent.name == path.name[:2] for path in ROOT.glob("packs/*/*"))


def test_the_reader_knows_nothing_of_the_first_implementation() -> None:
    code = "import sys, second_reader; sys.exit('flybackup' in sys.modules)"
    subprocess.run([sys.executable, "-B", "-W", "error", "-c", code], cwd=HERE.parent, check=True, timeout=60)


def test_keys_that_are_not_this_repositorys_are_refused(copy: Path) -> None:
    with pytest.raises(reader.WrongKey, match="no key slot"):
        reader.open_with_passphrase(ROOT, "another passphrase")
    with pytest.raises(reader.Refused, match="mistyped"):
        reader.open_with_recovery_key(ROOT, KEYS["recovery_key"].replace("ZFRZ", "ZFRA"))
    with pytest.raises(reader.Refused, match="mistyped"):
        reader.open_with_write_key(ROOT, KEYS["write_key"].replace("1-96EB", "1-96EC"))
    (slot,) = (copy / "keys").iterdir()
    rename_to_digest(slot, foreign_slot(slot))
    with pytest.raises(reader.WrongKey, match="no key slot"):
        OPENINGS["passphrase"](copy)


def foreign_slot(slot: Path) -> bytes:
    """A slot of another repository that would be refused, were it not passed over."""
    cost = {"memory_kib": 2**30, "iterations": 1, "lanes": 1}
    return json.dumps({**json.loads(slot.read_bytes()), "repository": bytes(16).hex(), "cost": cost}).encode()


def test_another_repositorys_slot_is_passed_over(copy: Path) -> None:
    (slot,) = (copy / "keys").iterdir()
    beside = slot.with_name("beside")
    shutil.copy(slot, beside)
    rename_to_digest(beside, foreign_slot(slot))
    assert len(list((copy / "keys").iterdir())) == 2
    opened = OPENINGS["passphrase"](copy)
    assert opened.keys.public_key_digest == OPENINGS["recovery key"](ROOT).keys.public_key_digest


def test_a_recovery_key_reads_in_any_case_and_spacing() -> None:
    sloppy = KEYS["recovery_key"].lower().replace("-", " \n")
    assert reader.open_with_recovery_key(ROOT, sloppy).keys.public_key_digest


def test_a_slot_too_dear_to_open_is_refused(copy: Path) -> None:
    (slot,) = (copy / "keys").iterdir()
    dear = json.loads(slot.read_bytes())
    dear["cost"]["memory_kib"] = 2**20 + 1
    rename_to_digest(slot, json.dumps(dear).encode())
    with pytest.raises(reader.Refused, match="too dear"):
        OPENINGS["passphrase"](copy)


def rename_to_digest(path: Path, data: bytes) -> None:
    path.unlink()
    (path.parent / reader.digest(data).hex()).write_bytes(data)


def forge_config(root: Path, *, mac_key: bytes | None) -> None:
    """A config with a public key of the forger's, complete up to what `mac_key` allows."""
    line, mac, _, _ = (root / "config").read_bytes().split(b"\n")
    line = json.dumps({**json.loads(line), "public_key": base64.b64encode(bytes(1216)).decode()}).encode()
    if mac_key:
        mac = hmac.digest(mac_key, line, "sha256").hex().encode()
    head = b"%s\n%s\n" % (line, mac)
    (root / "config").write_bytes(head + reader.digest(head).hex().encode() + b"\n")


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_config_with_a_strangers_public_key_is_refused(opening: str, copy: Path) -> None:
    forge_config(copy, mac_key=None)
    with pytest.raises(reader.Refused, match="not written by a holder of the write key"):
        OPENINGS[opening](copy)
    forge_config(copy, mac_key=OPENINGS["write key"](ROOT).keys.purpose("config"))
    with pytest.raises(reader.Refused, match="another public key"):
        OPENINGS[opening](copy)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_rot_is_found(copy: Path) -> None:
    flip(copy / "config", 9)
    with pytest.raises(reader.Refused, match="config is damaged"):
        OPENINGS["write key"](copy)
    repository = OPENINGS["recovery key"](ROOT)
    rotten = Repository(copy, repository.keys)
    for path in [*copy.glob("packs/*/*"), *copy.glob("index/*")]:
        flip(path, 50)
    for places in INDEXES.values():
        with pytest.raises(reader.Refused, match="is damaged"):
            places(rotten)
    for first_chunk in [place for place in reader.places_by_packs(repository) if place.offset == 0]:
        with pytest.raises(reader.WrongKey):
            reader.open_chunk(rotten, first_chunk)


def test_a_head_or_session_shown_under_another_key_is_refused(copy: Path) -> None:
    repository = OPENINGS["write key"](copy)
    (one, other) = copy.glob("snapshots/*/*")
    shutil.copy(one, other.parent / one.name)
    with pytest.raises(reader.WrongKey):
        reader.snapshots(repository)
    (one, other) = copy.glob("sessions/*/*")
    shutil.copy(one, other)
    with pytest.raises(reader.WrongKey):
        reader.sessions(repository)


def test_a_sealed_chunk_passes_for_no_other() -> None:
    repository = OPENINGS["recovery key"](ROOT)
    place = next(place for place in reader.places_by_packs(repository) if place.counter == 1)
    others = [
        replace(place, id=bytes(32)),
        replace(place, counter=2),
        replace(place, encoding=0),
        replace(place, salt=bytes(32)),
    ]
    for other in others:
        with pytest.raises(reader.WrongKey):
            reader.open_chunk(repository, other)
    with pytest.raises(reader.Refused, match="not of its size"):
        reader.open_chunk(repository, replace(place, size=place.size + 1))


def test_a_write_keys_thief_cannot_pass_other_content_for_a_chunk(copy: Path) -> None:
    thief = OPENINGS["write key"](copy)
    place = next(place for place in reader.places_by_packs(thief) if place.kind == "manifest")
    other = bytes(place.size)
    segment_key = reader.derive(thief.keys.purpose("metadata"), place.salt, "chunks")
    sealed = AESGCM(segment_key).encrypt(place.counter.to_bytes(12, "big"), other, place.id + b"\0")
    reader.pack_path(thief, place.pack).write_bytes(sealed)

    with pytest.raises(reader.Refused, match="not what its id names"):
        reader.open_chunk(thief, replace(place, offset=0, length=len(sealed), encoding=0))
