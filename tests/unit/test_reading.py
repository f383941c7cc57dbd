from hypothesis import given, strategies as st

from flybackup.index import Location
from flybackup.manifest import ChunkRef
from flybackup.model import ChunkId, PackId
from flybackup.reading import FETCH_BYTES, GAP_BYTES, Part, plan_fetches, windows

rows = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200)), max_size=60)


def parts_of(chosen: list[tuple[int, int]]) -> list[Part]:
    """A chunk for each (pack, slot); its size follows from the slot, for one place holds one chunk."""
    parts, offset = [], 0
    for pack, slot in chosen:
        size = 1 + (slot * 7919 * 4099) % (4 * 1024 * 1024)
        place = Location(PackId(bytes([pack]) * 32), slot * 5 * 1024 * 1024, size, slot, 0, b"", b"")
        parts.append(Part(ChunkRef(offset, size, ChunkId(bytes(32))), place))
        offset += size
    return parts


@given(rows)
def test_every_chunk_is_fetched_once_and_lies_inside_its_fetch(chosen: list[tuple[int, int]]) -> None:
    parts = parts_of(chosen)

    fetches = plan_fetches(parts)

    assert sorted(part.ref.offset for fetch in fetches for part in fetch.parts) == [p.ref.offset for p in parts]
    for fetch in fetches:
        for part in fetch.parts:
            assert part.place.pack == fetch.pack
            assert fetch.offset <= part.place.offset
            assert part.place.offset + part.place.length <= fetch.offset + fetch.length


@given(rows)
def test_a_fetch_is_bounded(chosen: list[tuple[int, int]]) -> None:
    for fetch in plan_fetches(parts_of(chosen)):
        if len(fetch.parts) > 1:
            assert fetch.length <= FETCH_BYTES


def test_neighbours_are_one_read_and_strangers_are_not() -> None:
    def part(at: int, offset: int) -> Part:
        return Part(ChunkRef(at, 100, ChunkId(bytes(32))), Location(PackId(bytes(32)), offset, 116, 0, 0, b"", b""))

    near = [part(0, 0), part(100, 116), part(200, 232 + GAP_BYTES)]

    assert len(plan_fetches(near)) == 1
    assert len(plan_fetches([*near, part(300, 348 + 3 * GAP_BYTES)])) == 2


def test_a_window_of_tiny_chunks_is_bounded_too() -> None:
    place = Location(PackId(bytes(32)), 0, 17, 0, 0, b"", b"")
    tiny = (Part(ChunkRef(at, 1, ChunkId(bytes(32))), place) for at in range(300_000))

    assert max(len(window) for window in windows(tiny)) < 150_000
