"""The DuckDB format reader, on files that DuckDB 0.10 to 2.0 wrote and on files broken on purpose."""

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from rigs.duckdb_rig import run_duckdb

from flybackup.clock import SystemClock
from flybackup.errors import SourceError
from flybackup.sources.duckdb import runs as runs_module
from flybackup.sources.duckdb.layout import (
    HEADER_BYTES,
    BlockMap,
    Header,
    NotDuckdbError,
    TornError,
    block_offset,
    checksum,
    holds,
    parse_header,
    read_block_map,
    words_of,
)
from flybackup.sources.duckdb.live import LiveFile, is_duckdb_file
from flybackup.sources.duckdb.wal import WalScan, WalVersionError, scan

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "duckdb"
PLAIN = sorted(path.name.removesuffix(".duckdb.gz") for path in FIXTURES.glob("*.duckdb.gz") if "encr" not in path.name)


def content(name: str) -> bytes:
    return gzip.decompress((FIXTURES / f"{name}.gz").read_bytes())


def block_reader(data: bytes, header: Header) -> Callable[[int], bytes]:
    def read(block: int) -> bytes:
        start = block_offset(block, header.block_bytes)
        found = data[start : start + header.block_bytes]
        if len(found) < header.block_bytes or not holds(words_of(found)):
            raise TornError(f"block {block}")
        return found

    return read


def block_map(data: bytes) -> tuple[Header, BlockMap]:
    header = parse_header(data[:HEADER_BYTES])
    return header, read_block_map(header, block_reader(data, header))


def reseal(page: bytearray) -> None:
    struct.pack_into("<Q", page, 0, checksum(words_of(page)[1:]))


@pytest.mark.parametrize("name", PLAIN)
def test_every_version_is_understood_down_to_its_blocks(name: str) -> None:
    data = content(f"{name}.duckdb")
    header, blocks = block_map(data)
    assert header.library_version == "v" + name.split("-", maxsplit=1)[0]
    assert header.block_bytes == (16384 if name.endswith("16k") else 262144)
    assert header.iteration > 0
    assert blocks.metadata.any()
    read = block_reader(data, header)
    for block in np.flatnonzero(~blocks.free):
        read(int(block))


@pytest.mark.parametrize("name", [name for name in PLAIN if not name.endswith("plain")])
def test_the_log_of_every_version_is_read_to_its_last_commit(name: str) -> None:
    log = content(f"{name}.duckdb.wal")
    found = scan(lambda offset, size: log[offset : offset + size], len(log))
    assert found == WalScan(len(log), len(log), checkpoint_began="aborted" in name)


@given(cut=st.integers(0, 1000))
def test_a_torn_log_is_cut_at_its_last_commit(cut: int) -> None:
    log = content("1.5.5-log.duckdb.wal")  # two commits
    torn = log[:cut]
    found = scan(lambda offset, size: torn[offset : offset + size], len(torn))
    assert found.committed_bytes <= found.whole_bytes <= len(torn)
    assert found.committed_bytes in (0, 186, len(log))


def test_a_scan_goes_on_where_an_earlier_one_ended() -> None:
    log = content("1.5.5-aborted-checkpoint.duckdb.wal")

    def read(offset: int, size: int) -> bytes:
        return log[offset : offset + size]

    whole = scan(read, len(log))
    for size in range(len(log)):
        assert scan(read, len(log), scan(read, size)) == whole


@pytest.mark.parametrize(
    "head", [b"\x64\x00\x62\x65\x00\x01\xff\xff", b"\x64\x00\x62\x65\x00\x03\xff\xff", b"garbage!"]
)
def test_a_log_of_another_version_is_not_guessed_at(head: bytes) -> None:
    with pytest.raises(WalVersionError):
        scan(lambda offset, size: head[offset : offset + size], len(head))


def test_an_empty_log_holds_nothing() -> None:
    assert scan(lambda _, __: b"", 0) == WalScan()


@pytest.mark.parametrize("page", [0, 4096, 8192])
def test_a_torn_header_is_noticed(page: int) -> None:
    raw = bytearray(content("1.4.4-log.duckdb")[:HEADER_BYTES])
    raw[page + 2000] ^= 1
    with pytest.raises(TornError):
        parse_header(bytes(raw))


def test_the_header_with_the_higher_iteration_counts() -> None:
    raw = bytearray(content("1.4.4-log.duckdb")[:HEADER_BYTES])
    first, second = (struct.unpack_from("<QQ", raw, page)[1] for page in (4096, 8192))
    assert parse_header(bytes(raw)).iteration == max(first, second)


@pytest.mark.parametrize("raw", [b"", b"x" * HEADER_BYTES, b"SQLite format 3\0" + bytes(HEADER_BYTES)])
def test_other_files_are_not_duckdb(raw: bytes) -> None:
    with pytest.raises(NotDuckdbError):
        parse_header(raw)


def test_an_encrypted_header_says_so() -> None:
    assert parse_header(content("1.5.5-encrypted.duckdb")[:HEADER_BYTES]).encrypted


@given(block=st.integers(0, 30) | st.integers(0, (1 << 56) - 1), index=st.integers(0, 255))
def test_a_wild_free_list_pointer_is_torn_and_never_more(block: int, index: int) -> None:
    data = content("1.4.4-16k.duckdb")
    header = parse_header(data[:HEADER_BYTES])
    wild = Header(**{name: getattr(header, name) for name in Header.__slots__} | {"free_list": index << 56 | block})
    try:
        blocks = read_block_map(wild, block_reader(data, header))
    except TornError:
        return
    assert blocks.free.size == header.block_count


@given(words=st.lists(st.integers(0, 12) | st.integers(0, (1 << 64) - 1), min_size=1, max_size=31))
def test_a_free_list_of_nonsense_is_torn_and_never_more(words: list[int]) -> None:
    """What a read gives when the list's block was used again: checksums hold, and every number is wild."""
    data = bytearray(content("1.4.4-16k.duckdb"))
    header = parse_header(bytes(data[:HEADER_BYTES]))
    start = block_offset(header.free_list & (1 << 56) - 1, header.block_bytes)
    block = data[start : start + header.block_bytes]
    struct.pack_into(f"<{len(words)}Q", block, 8 + (header.free_list >> 56) * 248, *words)
    reseal(block)
    data[start : start + header.block_bytes] = block
    try:
        read_block_map(header, block_reader(bytes(data), header))
    except TornError:
        return


def test_a_block_count_beyond_the_end_is_no_damage_while_those_blocks_are_free(tmp_path: Path) -> None:
    path = tmp_path / "shrunk.duckdb"
    run_duckdb(
        path,
        "CREATE TABLE b AS SELECT 1 AS i; CREATE TABLE a AS SELECT i, hash(i) AS h FROM range(500000) r(i); "
        "CHECKPOINT; DROP TABLE a; CHECKPOINT; INSERT INTO b VALUES (2); CHECKPOINT",
    )
    header, blocks = block_map(path.read_bytes())
    assert header.blocks_end > path.stat().st_size
    assert block_offset(int(np.flatnonzero(~blocks.free)[-1]) + 1, header.block_bytes) <= path.stat().st_size


def test_blocks_of_a_sparse_file_lie_outside_its_holes(tmp_path: Path) -> None:
    path = tmp_path / "sparse.duckdb"
    run_duckdb(path, "CREATE TABLE a AS SELECT i FROM range(1000) r(i)")
    size = path.stat().st_size
    os.truncate(path, 1 << 40)
    with LiveFile(path) as live:
        ranges = list(live.data_ranges(1 << 40))
    assert ranges
    assert size <= ranges[-1][1] < size + (1 << 20)


@given(wanted=st.lists(st.booleans(), max_size=200))
def test_runs_are_the_wanted_blocks_in_order_and_not_too_long(wanted: list[bool]) -> None:
    mask = np.array(wanted, np.bool_)
    found = list(runs_module.runs(mask, 262144))
    assert [block for first, last in found for block in range(first, last)] == [int(b) for b in np.flatnonzero(mask)]
    assert all((last - first) * 262144 <= runs_module.RUN_BYTES for first, last in found)


class ImpatientClock(SystemClock):
    def sleep(self, seconds: float) -> None:
        """Nobody is writing this file."""


def test_a_header_that_stays_torn_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "torn.duckdb"
    raw = bytearray(content("1.4.4-log.duckdb"))
    raw[5000] ^= 1
    path.write_bytes(raw)
    with LiveFile(path) as live, pytest.raises(SourceError, match="header"):
        live.header(ImpatientClock())


def test_duckdb_files_are_recognised_by_their_first_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(content("0.10.3-plain.duckdb"))
    (tmp_path / "b.db").write_bytes(b"SQLite format 3\0")
    assert is_duckdb_file(path)
    assert not is_duckdb_file(tmp_path / "b.db")
    assert not is_duckdb_file(tmp_path)
    assert not is_duckdb_file(tmp_path / "absent")
