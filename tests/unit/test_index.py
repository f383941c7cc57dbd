import os
import random
import struct
from typing import Any

import pytest
from msgspec import structs

from flybackup.crypto import chunk_id, digest, seal_blob
from flybackup.errors import IntegrityError
from flybackup.index import ChunkIndex, IndexedPack, decode_index, encode_index
from flybackup.model import ChunkId
from flybackup.packing import DATA, MANIFEST, OpenPack, Segment, SegmentKey, chunks_of, new_buffer, seal_segment

KEY = bytes(32)


def make_pack(seed: int, *, kind: str = DATA, segments: int = 2, chunks: int = 3) -> IndexedPack:
    rng, opened = random.Random(seed), OpenPack(kind, new_buffer(100_000))
    for _ in range(segments):
        pieces = [rng.randbytes(50) + bytes(50) * rng.randint(0, 1) for _ in range(chunks)]
        session = None if kind == MANIFEST else b"session %d" % (seed % 3)
        key = SegmentKey(KEY, os.urandom(32), session)
        opened.add(seal_segment([(chunk_id(KEY, piece), piece) for piece in pieces], key, KEY, opened.reserve))
    finished = opened.finish(KEY)
    return IndexedPack(finished.id, len(finished.data), finished.directory)


def assert_finds(index: ChunkIndex, pack: IndexedPack) -> None:
    for segment, rows in chunks_of(pack.directory):
        session = None if segment.session is None else pack.directory.sessions[segment.session]
        for row in rows:
            place = index.find(row.id)
            assert place == (pack.id, row.offset, row.length, row.counter, row.encoding, segment.salt, session)


@pytest.mark.parametrize("at_once", [True, False])
def test_every_chunk_is_found_where_it_lies(at_once: bool) -> None:
    packs = [make_pack(seed, kind=DATA if seed % 2 else MANIFEST) for seed in range(20)]
    index = ChunkIndex()
    if at_once:
        index.extend(packs)
    else:
        for pack in packs:
            index.add(pack)

    assert len(index) == 20 * 6
    for pack in packs:
        assert_finds(index, pack)
    assert index.find(ChunkId(bytes(32))) is None
    assert ChunkId(b"\xff" * 32) not in index


def test_runs_merge_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flybackup.index._FRESH_LIMIT", 10)
    packs = [make_pack(seed) for seed in range(40)]
    index = ChunkIndex()

    for pack in packs:
        index.add(pack)

    assert len(index) == 240
    for pack in packs:
        assert_finds(index, pack)


def test_ids_that_share_eight_bytes_are_told_apart() -> None:
    pack = make_pack(1)
    ids = pack.directory.ids
    twin = ids[:8] + os.urandom(24) + ids[32:]
    twin_pack = IndexedPack(bytes(32), 1, structs.replace(pack.directory, ids=twin))
    index = ChunkIndex()
    index.extend([pack, twin_pack])

    assert index.find(ChunkId(ids[:32])) is not None
    found = index.find(ChunkId(twin[:32]))
    assert found is not None
    assert found.pack == bytes(32)


def test_an_index_file_comes_back_and_is_named_by_its_bytes() -> None:
    packs = [make_pack(seed) for seed in range(3)]

    key, stored = encode_index(KEY, packs)

    assert decode_index(KEY, key, stored) == packs
    with pytest.raises(IntegrityError, match="do not match its name"):
        decode_index(KEY, key, stored[:-1] + bytes([stored[-1] ^ 1]))
    with pytest.raises(IntegrityError, match="not an index file of this repository"):
        decode_index(b"k" * 32, key, stored)


def u32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


@pytest.mark.parametrize(
    "forged",
    [
        {"offsets": b""},
        {"ids": bytes(32)},
        {"segments": (Segment(bytes(32), 0, 5),)},
        {"segments": (Segment(bytes(32), 0, -1), Segment(bytes(32), 0, 7))},
        {"segments": (Segment(bytes(32), 1, 6),)},
        {"segments": (Segment(b"short", 0, 6),)},  # would shift the salts of every pack behind
        {"lengths": u32(16, 17, 17, 17, 17, 17)},
        {"lengths": u32(17, 17, 17, 17, 17, 5 << 20)},
        {"sizes": u32(1, 1, 1, 1, 1, 0)},
        {"sizes": u32(1, 1, 1, 1, 1, 5 << 20)},
    ],
)
def test_a_directory_that_contradicts_itself_is_refused(forged: dict[str, Any]) -> None:
    pack = make_pack(1)

    key, stored = encode_index(KEY, [IndexedPack(pack.id, pack.size, structs.replace(pack.directory, **forged))])

    with pytest.raises(IntegrityError, match="contradicts itself"):
        decode_index(KEY, key, stored)


def test_an_index_file_names_packs_only() -> None:
    pack = make_pack(1)

    key, stored = encode_index(KEY, [IndexedPack(b"short", pack.size, pack.directory)])

    with pytest.raises(IntegrityError, match="cannot be"):
        decode_index(KEY, key, stored)


def test_a_value_nested_thousands_deep_is_a_typed_error() -> None:
    sealed = seal_blob(KEY, "index", b"\x00\x91\x81\xa1x" + b"\x91" * 100_000 + b"\x00")

    with pytest.raises(IntegrityError, match="not an index file"):
        decode_index(KEY, f"index/{digest(sealed).hex()}", sealed)


def test_a_chunk_costs_at_most_forty_bytes_of_memory() -> None:
    index = ChunkIndex()
    index.extend([make_pack(seed, segments=1, chunks=500) for seed in range(20)])

    assert sum(column.nbytes for run in index._runs for column in run) / len(index) <= 40
