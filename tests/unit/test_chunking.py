import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings, strategies as st

from flybackup.chunking import Chunk, ContentDefined, Extent, Fixed, data_chunks, split
from flybackup.errors import SourceError

SMALL = ContentDefined(multiplier=0x9E3779B97F4A7C15, minimum=64, average=192, maximum=512)


def extents(data: bytes, steps: list[int], start: int = 0) -> Iterator[Extent]:
    at = 0
    for step in [*steps, len(data)]:
        if at < len(data):
            yield Extent(start + at, data[at : at + step])
            at += step


def cut(data: bytes, steps: list[int], how: Fixed | ContentDefined) -> list[tuple[int, bytes]]:
    return [(offset, bytes(piece)) for offset, piece in split(extents(data, steps), how)]


@given(st.binary(max_size=20_000), st.lists(st.integers(1, 3000), max_size=20))
def test_content_defined_chunks_join_to_the_data_and_keep_their_bounds(data: bytes, steps: list[int]) -> None:
    chunks = cut(data, steps, SMALL)

    assert b"".join(piece for _, piece in chunks) == data
    assert [offset for offset, _ in chunks] == [sum(len(p) for _, p in chunks[:n]) for n in range(len(chunks))]
    assert all(SMALL.minimum <= len(piece) <= SMALL.maximum for _, piece in chunks[:-1])
    assert all(len(piece) <= SMALL.maximum for _, piece in chunks)


@given(st.binary(max_size=20_000), st.lists(st.integers(1, 3000), max_size=20))
def test_cuts_do_not_depend_on_how_the_data_arrives(data: bytes, steps: list[int]) -> None:
    assert cut(data, steps, SMALL) == cut(data, [], SMALL)


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(0, 199_999), st.binary(min_size=1, max_size=50))
def test_an_insertion_changes_few_chunks(seed: int, place: int, inserted: bytes) -> None:
    data = random.Random(seed).randbytes(200_000)
    before = {piece for _, piece in cut(data, [], SMALL)}
    after = [piece for _, piece in cut(data[:place] + inserted + data[place:], [], SMALL)]

    new = [piece for piece in after if piece not in before]

    # The chunk it falls into, and those until cuts meet again: a forced cut shifts, a content-defined one does not.
    assert len(new) <= 12


def test_constant_data_is_cut_at_the_maximum_or_minimum() -> None:
    sizes = {len(piece) for _, piece in cut(bytes(100_000), [], SMALL)[:-1]}

    assert sizes in ({SMALL.minimum}, {SMALL.maximum})


def test_real_parameters_give_about_a_mebibyte_on_average() -> None:
    data = random.Random(1).randbytes(48 << 20)

    sizes = [len(piece) for _, piece in split(extents(data, [1 << 20] * 48), data_chunks(0x9E3779B97F4A7C15))]

    assert 0.8 * (1 << 20) < sum(sizes) / len(sizes) < 1.25 * (1 << 20)


def test_fixed_chunks_follow_the_pages() -> None:
    data = random.Random(2).randbytes(12_288 + 5 * 4096 + 100)

    chunks = cut(data, [12_288 + 4096, 2 * 4096], Fixed(head=12_288, block=4096))

    assert [len(piece) for _, piece in chunks] == [12_288, 4096, 4096, 4096, 4096, 4096, 100]
    assert b"".join(piece for _, piece in chunks) == data


def test_a_block_given_again_comes_again_at_its_place() -> None:
    again = [Extent(0, bytes(8)), Extent(8, b"a" * 8), Extent(8, b"b" * 8), Extent(16, b"")]

    chunks = [(chunk.offset, bytes(chunk.data)) for chunk in split(again, Fixed(head=8, block=8))]

    assert chunks == [(0, bytes(8)), (8, b"a" * 8), (8, b"b" * 8), (16, b"")]


def test_a_hole_ends_a_content_defined_chunk() -> None:
    sparse = [Extent(0, b"a" * 100), Extent(1000, b"b" * 100), Extent(5000, b"")]

    chunks = [(chunk.offset, len(chunk.data)) for chunk in split(sparse, SMALL)]

    assert chunks == [(0, 100), (1000, 100), (5000, 0)]


def test_an_extent_that_begins_inside_a_block_is_refused() -> None:
    with pytest.raises(SourceError, match="no block's beginning"):
        list(split([Extent(9, b"x" * 8)], Fixed(head=8, block=8)))


def test_chunks_share_the_buffer_and_are_valid_until_the_next() -> None:
    chunks: Iterator[Chunk] = split([Extent(0, random.Random(3).randbytes(2000))], SMALL)

    assert isinstance(next(chunks).data, memoryview)
