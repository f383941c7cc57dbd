import os
import random

import pytest
from hypothesis import given, strategies as st

from flybackup.crypto import ChunkCipher, chunk_id, digest
from flybackup.errors import IntegrityError
from flybackup.model import ChunkId
from flybackup.packing import (
    DATA,
    TRAILER_BYTES,
    FinishedPack,
    OpenPack,
    SegmentKey,
    chunks_of,
    directory_length,
    new_buffer,
    open_chunk,
    read_directory,
    seal_segment,
)

ID_KEY = bytes(range(32))
METADATA_KEY = bytes(range(32, 64))
SECRET = b"s" * 32


def named(pieces: list[bytes]) -> list[tuple[ChunkId, bytes]]:
    return [(chunk_id(ID_KEY, piece), piece) for piece in pieces]


def pack(groups: list[list[bytes]]) -> FinishedPack:
    opened = OpenPack(DATA, new_buffer(100_000))
    for pieces in groups:
        key = SegmentKey(SECRET, os.urandom(32), b"sealed")
        opened.add(seal_segment(named(pieces), key, ID_KEY, opened.reserve))
    return opened.finish(METADATA_KEY)


def unpack(data: bytes) -> list[bytes]:
    length = directory_length(data[-TRAILER_BYTES:], len(data), "pack")
    end = len(data) - TRAILER_BYTES
    directory = read_directory(METADATA_KEY, data[end - length : end], "pack")
    return [
        bytes(open_chunk(ChunkCipher(SECRET, segment.salt), row, data[row.offset : row.offset + row.length], ID_KEY))
        for segment, rows in chunks_of(directory)
        for row in rows
    ]


pieces = st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=5)


@given(st.lists(pieces, min_size=1, max_size=4))
def test_what_is_packed_can_be_unpacked_from_the_pack_alone(groups: list[list[bytes]]) -> None:
    packed = pack(groups)

    assert unpack(bytes(packed.data)) == [piece for group in groups for piece in group]
    assert packed.id == digest(packed.data)


@given(pieces, st.data())
def test_any_changed_bit_is_an_integrity_error(group: list[bytes], data: st.DataObject) -> None:
    stored = bytearray(pack([group]).data)
    bit = data.draw(st.integers(0, len(stored) * 8 - 1))
    stored[bit // 8] ^= 1 << (bit % 8)

    with pytest.raises(IntegrityError):
        unpack(bytes(stored))


def test_a_chunk_does_not_open_as_another() -> None:
    packed = pack([[b"first" * 10, b"other" * 10]])
    (segment, (first, other)) = next(chunks_of(packed.directory))
    sealed = packed.data[other.offset : other.offset + other.length]
    cipher = ChunkCipher(SECRET, segment.salt)

    for forged in (first, other._replace(counter=0), other._replace(id=first.id), other._replace(encoding=7)):
        with pytest.raises(IntegrityError):
            open_chunk(cipher, forged, sealed, ID_KEY)


def test_a_sealed_lie_about_the_content_is_found_by_the_id() -> None:
    """Who stole the write key can seal anything under any id; what comes out must still be what the id names."""
    lie = [(chunk_id(ID_KEY, b"the truth"), b"not the truth")]

    with pytest.raises(IntegrityError, match="not what its id says"):
        seal_segment(lie, SegmentKey(SECRET, bytes(32), b"sealed"), ID_KEY, OpenPack(DATA, new_buffer(99)).reserve)


def test_nothing_more_comes_out_than_the_manifest_says() -> None:
    packed = pack([[bytes(1_000_000)]])
    (segment, (row,)) = next(chunks_of(packed.directory))
    sealed = packed.data[row.offset : row.offset + row.length]

    with pytest.raises(IntegrityError, match="more or less"):
        open_chunk(ChunkCipher(SECRET, segment.salt), row._replace(size=1000), sealed, ID_KEY)


def test_segments_lie_where_they_were_reserved_whatever_comes_back_first() -> None:
    opened = OpenPack(DATA, new_buffer(10_000))
    sealed = [
        seal_segment(named([piece]), SegmentKey(SECRET, os.urandom(32), b"sealed"), ID_KEY, opened.reserve)
        for piece in (b"first", b"second", b"third")
    ]
    for segment in reversed(sealed):
        assert not opened.whole
        opened.add(segment)
    opened.closed = True

    assert opened.whole
    assert unpack(bytes(opened.finish(METADATA_KEY).data)) == [b"first", b"second", b"third"]


def test_a_segment_larger_than_the_buffer_and_a_long_directory_fit() -> None:
    opened = OpenPack(DATA, new_buffer(1))
    pieces = [b"%d" % number for number in range(500)]
    opened.add(seal_segment(named(pieces), SegmentKey(SECRET, os.urandom(32), b"sealed"), ID_KEY, opened.reserve))

    assert unpack(bytes(opened.finish(METADATA_KEY).data)) == pieces


def test_random_data_is_kept_raw_and_text_is_compressed() -> None:
    noise, text = random.Random(1).randbytes(10_000), b"row after row of the same\n" * 400

    (_, (raw, zstd)) = next(chunks_of(pack([[noise, text]]).directory))

    assert (raw.encoding, zstd.encoding) == (0, 1)
    assert raw.length == 10_016
    assert zstd.length < 500


@given(st.binary(max_size=200))
def test_a_forged_end_is_an_integrity_error(end: bytes) -> None:
    with pytest.raises(IntegrityError):
        unpack(end + b"\xff\xff\xff\x7fflypack1")
