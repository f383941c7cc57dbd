import struct

import pytest
from hypothesis import given, strategies as st

from flybackup.errors import IntegrityError, SourceError
from flybackup.manifest import RUN_CHUNKS, ChunkRef, Refs, decode, encode
from flybackup.model import ChunkId, Entry

paths = st.text(min_size=1, max_size=30)
sizes = st.integers(1, 4 * 1024 * 1024)


def name(number: int) -> ChunkId:
    return ChunkId(number.to_bytes(32, "big"))


@st.composite
def entries(draw: st.DrawFn) -> tuple[Entry, list[ChunkRef]]:
    refs, offset = [], 0
    for number, size in enumerate(draw(st.lists(sizes, max_size=20))):
        offset += draw(st.sampled_from([0, 0, 0, 4096]))  # now and then a hole
        refs.append(ChunkRef(offset, size, name(number)))
        offset += size
    return Entry(path=draw(paths), kind="file", size=offset, mode=0o640, mtime_ns=1), refs


@given(st.lists(entries(), max_size=6), st.integers(1, 500))
def test_a_manifest_comes_back_however_it_is_cut(written: list[tuple[Entry, list[ChunkRef]]], step: int) -> None:
    stream = b"".join(record for entry, refs in written for record in encode(entry, refs))

    read = decode(stream[at : at + step] for at in range(0, len(stream), step))

    assert [(entry, list(chunks)) for entry, chunks in read] == written


@given(st.lists(entries(), max_size=6))
def test_chunks_may_be_left_unread(written: list[tuple[Entry, list[ChunkRef]]]) -> None:
    stream = b"".join(record for entry, refs in written for record in encode(entry, refs))

    assert [entry for entry, _ in decode([stream])] == [entry for entry, _ in written]


def test_runs_stay_short_so_that_the_manifest_of_a_terabyte_streams() -> None:
    refs = [ChunkRef(at * 4096, 4096, name(at)) for at in range(3 * RUN_CHUNKS + 1)]

    records = list(encode(Entry(path="big", kind="file"), refs))

    assert len(records) == 4
    assert max(map(len, records)) < 40 * 1024


@given(st.binary(min_size=1, max_size=300))
def test_garbage_is_a_typed_error(garbage: bytes) -> None:
    with pytest.raises(IntegrityError):
        [list(chunks) for _, chunks in decode([garbage])]


def test_a_record_of_impossible_length_is_refused_before_it_is_held() -> None:
    with pytest.raises(IntegrityError, match="impossible length"):
        list(decode([struct.pack("<I", 1 << 31)]))


@pytest.mark.parametrize("refs", [[ChunkRef(0, 9, name(1))], [ChunkRef(4, 4, name(1)), ChunkRef(0, 4, name(2))]])
def test_chunks_that_overlap_or_reach_past_the_entry_are_refused(refs: list[ChunkRef]) -> None:
    stream = b"".join(encode(Entry(path="a", kind="file", size=8), refs))

    with pytest.raises(IntegrityError, match="overlap or reach past"):
        [list(chunks) for _, chunks in decode([stream])]


def test_a_record_nested_thousands_deep_is_a_typed_error() -> None:
    body = b"\x81\xa1x" + b"\x91" * 100_000 + b"\x00"

    with pytest.raises(IntegrityError, match="does not decode"):
        list(decode([struct.pack("<I", len(body)) + body]))


def test_a_truncated_manifest_is_damage() -> None:
    stream = b"".join(encode(Entry(path="a", kind="file"), [ChunkRef(0, 5, name(1))]))

    with pytest.raises(IntegrityError, match="middle of a record"):
        list(decode([stream[:-1]]))


def refs_of(*rows: tuple[int, int, int], end: int | None = None) -> tuple[int, list[ChunkRef]]:
    refs = Refs()
    for offset, size, number in rows:
        refs.add(offset, size, name(number))
    if end is not None:
        refs.end_at(end)
    size, chunks = refs.resolve()
    return size, list(chunks)


def test_a_chunk_given_again_replaces_the_first() -> None:
    size, chunks = refs_of((0, 8, 1), (8, 8, 2), (16, 8, 3), (8, 8, 4), (0, 8, 5))

    assert size == 24
    assert [ref.id for ref in chunks] == [name(5), name(4), name(3)]


def test_the_end_drops_what_lies_beyond() -> None:
    assert refs_of((0, 8, 1), (8, 8, 2), end=8) == (8, [ChunkRef(0, 8, name(1))])


def test_a_hole_may_end_a_file() -> None:
    assert refs_of((0, 8, 1), end=1 << 38)[0] == 1 << 38


def test_nothing_is_a_file_too() -> None:
    assert refs_of() == (0, [])


@pytest.mark.parametrize("rows", [((0, 8, 1), (4, 8, 2)), ((0, 16, 1), (8, 8, 2))])
def test_overlaps_are_refused(rows: tuple[tuple[int, int, int], ...]) -> None:
    with pytest.raises(SourceError, match="overlapping"):
        refs_of(*rows)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 99)), max_size=80))
def test_the_last_word_wins_at_every_place(given_blocks: list[tuple[int, int]]) -> None:
    _, chunks = refs_of(*((place * 8, 8, number) for place, number in given_blocks))

    assert {ref.offset // 8: int.from_bytes(ref.id, "big") for ref in chunks} == dict(given_blocks)
