"""DuckDB files as they are found: of old versions, in use, damaged, encrypted, replaced, with stale logs."""

import contextlib
import ctypes
import errno
import gzip
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import pytest
from rigs import stored
from rigs.duckdb_rig import POPULATE, Application, holding, run_duckdb

from flybackup.chunking import Extent, Fixed
from flybackup.clock import SystemClock
from flybackup.errors import RefusedError, SourceError
from flybackup.model import Facts
from flybackup.sources import Captured, RestoreOptions, Stream
from flybackup.sources.duckdb.kept import KeptBlocks
from flybackup.sources.duckdb.layout import HEADER_BYTES, block_offset, parse_header
from flybackup.sources.duckdb.live import LiveFile
from flybackup.sources.duckdb.protocol import RawCopy
from flybackup.sources.duckdb.source import DuckdbSource
from flybackup.sources.duckdb.version import duckdb_version_of
from flybackup.sources.duckdb.wal import WAL_SUFFIXES
from flybackup.sources.files import holders, publishing, staging
from flybackup.sources.files.family import Family

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "duckdb"
NAMES = sorted(path.name.removesuffix(".duckdb.gz") for path in FIXTURES.glob("*.duckdb.gz") if "encr" not in path.name)
NewScratch = Callable[[], Path]
COMMAND = Path(sys.executable).name
"""What the processes that the rig starts are called."""


@pytest.fixture
def new_scratch(tmp_path_factory: pytest.TempPathFactory) -> NewScratch:
    return lambda: tmp_path_factory.mktemp("scratch")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A database with a log, used by nobody."""
    path = tmp_path / "app.duckdb"
    run_duckdb(path, POPULATE, "crash")
    return path


def fixture_file(name: str, directory: Path) -> Path:
    for packed in FIXTURES.glob(f"{name}.duckdb*.gz"):
        (directory / packed.name.removesuffix(".gz")).write_bytes(gzip.decompress(packed.read_bytes()))
    return directory / f"{name}.duckdb"


def capture(source: DuckdbSource, scratch: Path) -> tuple[list[Stream], Captured]:
    with source.capture(scratch) as captured:
        return stored(captured), captured.finish()


def restore(streams: list[Stream], target: Path, scratch: Path, options: RestoreOptions) -> tuple[str, ...]:
    with DuckdbSource(target).restore(iter(streams), options, scratch) as restoration:
        return restoration.publish()


def rows(facts: Facts) -> dict[str, int]:
    return {name: table.rows for name, table in facts.tables.items()}


# Old versions


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_an_old_version_comes_back_with_its_log_byte_for_byte(
    name: str, tmp_path: Path, new_scratch: NewScratch
) -> None:
    path = fixture_file(name, tmp_path)
    streams, captured = capture(DuckdbSource(path), new_scratch())
    logged = not name.endswith("plain")
    assert rows(captured.facts) == {"main.t": 1005 if logged else 1000, "side.u": 290 if logged else 300}
    grade = "crash-image" if "aborted" in name else "clean-with-wal" if logged else "clean"
    assert captured.method == f"raw-copy, {grade}, 1 pass"
    assert f"DuckDB v{name.split('-', maxsplit=1)[0]} (storage" in captured.facts.engine
    target = tmp_path / "restored.db"
    restore(streams, target, new_scratch(), RestoreOptions())
    for suffix in ("", ".wal") if logged else ("",):
        assert Path(f"{path}{suffix}").read_bytes() == Path(f"{target}{suffix}").read_bytes()


def test_one_table_keeps_the_storage_version_and_block_size(tmp_path: Path, new_scratch: NewScratch) -> None:
    path = fixture_file("1.2.2-16k", tmp_path)
    streams, _ = capture(DuckdbSource(path), new_scratch())
    target = tmp_path / "one.duckdb"
    restore(streams, target, new_scratch(), RestoreOptions(tables=["u"]))
    header = parse_header(target.read_bytes()[:HEADER_BYTES])
    assert (header.storage_version, header.block_bytes) == (64, 16384)


def test_an_encrypted_file_is_refused_and_the_message_says_what_is_missing(
    tmp_path: Path, new_scratch: NewScratch
) -> None:
    path = fixture_file("1.5.5-encrypted", tmp_path)
    with pytest.raises(SourceError, match=r"encrypted .* without the key"):
        capture(DuckdbSource(path), new_scratch())


def test_the_first_stream_is_cut_at_the_files_own_blocks(tmp_path: Path, new_scratch: NewScratch) -> None:
    path = fixture_file("1.4.4-16k", tmp_path)
    with DuckdbSource(path).capture(new_scratch()) as captured:
        stream = next(captured.streams())
        assert stream.chunking == Fixed(HEADER_BYTES, 16384)
        offsets = [(extent.offset, len(extent.data)) for extent in stream.extents]
    assert offsets[0] == (0, HEADER_BYTES)
    assert all((offset - HEADER_BYTES) % 16384 == 0 and size % 16384 == 0 for offset, size in offsets[1:])


def test_a_new_and_empty_database_is_captured(tmp_path: Path, new_scratch: NewScratch) -> None:
    path = tmp_path / "new.duckdb"
    run_duckdb(path, "SELECT 1")
    _, captured = capture(DuckdbSource(path), new_scratch())
    assert captured.facts.tables == {}


# In use


def test_an_open_database_is_captured_and_its_lock_stays(app: Path, new_scratch: NewScratch) -> None:
    with holding(
        app, "SET wal_autocheckpoint = '1GB'; INSERT INTO numbers VALUES (7, 7); BEGIN; DELETE FROM numbers"
    ) as pid:
        streams, captured = capture(DuckdbSource(app), new_scratch())
        with app.open("rb") as file:
            assert holders.writer_of(file.fileno()) == holders.Holder(pid, COMMAND)
    assert captured.facts.details["writer"] == f"process {pid} ({COMMAND})"
    assert rows(captured.facts)["main.numbers"] > 50000
    assert len(streams) == 2
    assert captured.warnings == ()


def test_a_memory_mapped_database_is_captured_without_its_hole_of_256_gib(
    tmp_path: Path, new_scratch: NewScratch
) -> None:
    path = tmp_path / "mapped.duckdb"
    statements = f"ATTACH '{path}' AS m (IO_MODE MMAP); CREATE TABLE m.t AS SELECT i FROM range(99) r(i); CHECKPOINT m"
    with holding(tmp_path / "other.duckdb", statements):
        assert path.stat().st_size == 1 << 38
        streams, captured = capture(DuckdbSource(path), new_scratch())
    assert rows(captured.facts) == {"main.t": 99}
    assert streams[0].entry.size < 1 << 24


def test_the_duckdb_version_of_a_process_is_seen(app: Path) -> None:
    with holding(app) as pid:
        assert duckdb_version_of(pid) == duckdb.__version__
    assert duckdb_version_of(1 << 22) is None


def test_restoring_over_a_database_in_use_names_the_process(app: Path, new_scratch: NewScratch) -> None:
    streams, _ = capture(DuckdbSource(app), new_scratch())
    before = app.read_bytes()
    with holding(app) as pid, pytest.raises(RefusedError, match=rf"process {pid} \({COMMAND}\)"):
        restore(streams, app, new_scratch(), RestoreOptions(replace=True))
    assert app.read_bytes() == before


def test_a_database_opened_by_this_very_process_is_not_touched(app: Path, new_scratch: NewScratch) -> None:
    with duckdb.connect(str(app)):
        with pytest.raises(SourceError, match="this very process"):
            capture(DuckdbSource(app), new_scratch())
        with app.open("rb") as file:  # this drops the lock at last, as it would have
            pass
    assert file.closed


def test_a_checkpoint_that_never_ends_gives_a_degraded_snapshot_that_says_so(
    app: Path, new_scratch: NewScratch
) -> None:
    with holding(app, "SET wal_autocheckpoint = '1GB'; INSERT INTO numbers VALUES (7, 7)"):
        Path(f"{app}.wal.checkpoint").touch()
        _, captured = capture(DuckdbSource(app, bound_seconds=0.5), new_scratch())
    assert "degraded" in captured.method
    assert "checkpoints never paused" in captured.warnings[0]


def test_a_checkpoint_that_runs_is_waited_for(app: Path, new_scratch: NewScratch) -> None:
    marker = Path(f"{app}.wal.checkpoint")
    with holding(app, "SET wal_autocheckpoint = '1GB'; INSERT INTO numbers VALUES (7, 7)"):
        marker.touch()
        ending = threading.Timer(0.3, marker.unlink)
        ending.start()
        _, captured = capture(DuckdbSource(app), new_scratch())
        ending.join()
    assert captured.method == "raw-copy, clean-with-wal, 1 pass"


def capture_while(source: DuckdbSource, scratch: Path, act: Callable[[], object]) -> tuple[list[Stream], Captured]:
    """Capture, and *act* once, after the first block was given."""
    with source.capture(scratch) as captured:
        streams = captured.streams()
        first = next(streams)

        def acting() -> Iterator[Extent]:
            for number, extent in enumerate(first.extents):
                yield extent
                if number == 1:
                    act()

        whole = SimpleNamespace(streams=lambda: itertools.chain([first._replace(extents=acting())], streams))
        return stored(whole), captured.finish()


def test_a_process_that_opens_it_during_the_copy_means_another_pass(app: Path, new_scratch: NewScratch) -> None:
    with contextlib.ExitStack() as stack:

        def begin() -> None:  # DuckDB replays the log and keeps it
            stack.enter_context(holding(app, "SET wal_autocheckpoint = '1GB'"))

        _, captured = capture_while(DuckdbSource(app), new_scratch(), begin)
    assert "1 pass" not in captured.method
    assert rows(captured.facts)["main.numbers"] == 50001


@pytest.mark.parametrize("shrink", [Path.unlink, lambda log: os.truncate(log, 0)], ids=["removed", "emptied"])
def test_a_log_that_shrinks_during_the_copy_means_another_pass(
    shrink: Callable[[Path], None], app: Path, new_scratch: NewScratch
) -> None:
    log = Path(f"{app}.wal")
    streams, captured = capture_while(DuckdbSource(app), new_scratch(), lambda: shrink(log))
    assert captured.method == "raw-copy, clean, 2 passes"
    assert len(streams) == 1
    assert rows(captured.facts)["main.numbers"] == 50000


def test_checkpoints_during_the_copy_give_one_state_and_not_a_mixture(tmp_path: Path, new_scratch: NewScratch) -> None:
    path = tmp_path / "app.duckdb"
    with Application(path) as application:
        application.execute("CREATE TABLE a AS SELECT i, hash(i) AS h FROM range(900000) r(i)")
        application.execute("CREATE TABLE b AS SELECT 0 AS version")
        application.execute("CHECKPOINT")

        def change() -> None:
            application.execute("UPDATE a SET h = h + 1")
            application.execute("UPDATE b SET version = 1")
            application.execute("CHECKPOINT")

        streams, captured = capture_while(DuckdbSource(path), new_scratch(), change)
    assert captured.method == "raw-copy, clean, 2 passes"
    target = tmp_path / "restored.duckdb"
    restore(streams, target, new_scratch(), RestoreOptions())
    found = run_duckdb(target, "SELECT 1", "SELECT version, sum(h - hash(i)), count(*) FROM a, b GROUP BY ALL")
    assert found == [(1, 900000, 900000)]


def test_a_torn_end_of_a_dead_applications_log_is_kept_as_it_is(app: Path, new_scratch: NewScratch) -> None:
    log = Path(f"{app}.wal")
    torn = log.read_bytes() + b"\x40\0\0"
    log.write_bytes(torn)
    streams, captured = capture(DuckdbSource(app), new_scratch())
    assert rows(captured.facts)["main.numbers"] == 50001
    assert b"".join(bytes(extent.data) for extent in streams[1].extents) == torn


def test_a_database_replaced_during_the_copy_is_an_error(app: Path, new_scratch: NewScratch) -> None:
    other = app.with_name("other.duckdb")
    run_duckdb(other, "CREATE TABLE t AS SELECT 1 AS i")
    with DuckdbSource(app).capture(new_scratch()) as captured:
        extents = next(captured.streams()).extents
        next(extents)
        other.replace(app)
        with pytest.raises(SourceError, match="was replaced"):
            list(extents)


def test_a_validation_that_crashes_is_done_again_from_a_staged_copy(app: Path, new_scratch: NewScratch) -> None:
    captured = capture_with_crashing_children(app, new_scratch(), crashes=3)
    assert captured.method == "raw-copy, clean-with-wal, 4 passes, staged"
    assert rows(captured.facts)["main.numbers"] == 50001


def test_a_validation_that_always_crashes_is_an_error_that_names_the_signal(app: Path, new_scratch: NewScratch) -> None:
    with pytest.raises(SourceError, match="SIGSEGV"):
        capture_with_crashing_children(app, new_scratch(), crashes=4)


def capture_with_crashing_children(path: Path, scratch: Path, *, crashes: int) -> Captured:
    """Crash DuckDB's process in each of the first passes: a pass begins with the header."""
    others = children_of_this_process()  # the servers that tests share
    with DuckdbSource(path).capture(scratch) as captured:
        for stream in captured.streams():
            for extent in stream.extents:
                if extent.offset == 0 and len(extent.data) == HEADER_BYTES and crashes:
                    crashes -= 1
                    for child in children_of_this_process() - others:
                        os.kill(child, signal.SIGSEGV)
        return captured.finish()


def children_of_this_process() -> set[int]:
    found: set[int] = set()
    for thread in Path("/proc/self/task").iterdir():
        found.update(int(pid) for pid in (thread / "children").read_text().split())
    return found


def test_checksums_of_an_open_database_are_taken_from_a_staged_copy(app: Path, new_scratch: NewScratch) -> None:
    static = DuckdbSource(app).probe(checksums=True, scratch=new_scratch())
    with holding(app, "SET wal_autocheckpoint = '1GB'"):
        _, captured = capture(DuckdbSource(app, checksums=True), new_scratch())
    assert captured.method.endswith("staged")
    assert captured.facts.tables == static.tables


def test_a_staged_copy_that_would_not_fit_is_an_error_that_says_so(
    app: Path, new_scratch: NewScratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with holding(app), pytest.raises(SourceError, match="does not fit") as refused:
        capture(DuckdbSource(app, checksums=True), new_scratch())
    assert "TMPDIR" in refused.value.hint


# Damaged, missing, linked


def test_a_damaged_block_is_named(app: Path, new_scratch: NewScratch) -> None:
    with app.open("r+b") as file:
        file.seek(block_offset(2, 262144) + 1000)
        file.write(b"damage")
    with pytest.raises(SourceError, match=r"block 2 of .* is damaged"):
        capture(DuckdbSource(app), new_scratch())


def test_a_truncated_file_is_an_error(app: Path, new_scratch: NewScratch) -> None:
    os.truncate(app, app.stat().st_size - 262144)
    with pytest.raises(SourceError, match="shorter than its header says"):
        capture(DuckdbSource(app), new_scratch())


def test_a_log_that_is_none_is_an_error(app: Path, new_scratch: NewScratch) -> None:
    Path(f"{app}.wal").write_bytes(b"not a log at all")
    with pytest.raises(SourceError, match="not a log"):
        capture(DuckdbSource(app), new_scratch())


def test_what_is_no_database_is_an_error(tmp_path: Path, new_scratch: NewScratch) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no database")
    for path in (text, tmp_path, tmp_path / "absent.duckdb"):
        with pytest.raises(SourceError) as refused:
            capture(DuckdbSource(path), new_scratch())
        assert str(path) in str(refused.value)


def test_a_link_leads_to_the_logs_wherever_the_application_put_them(app: Path, new_scratch: NewScratch) -> None:
    link = app.with_name("link.duckdb")
    link.symlink_to(app)
    assert rows(DuckdbSource(link).probe(checksums=False, scratch=new_scratch()))["main.numbers"] == 50001
    Path(f"{app}.wal").rename(f"{link}.wal")  # where DuckDB before 2.0 puts it
    assert rows(DuckdbSource(link).probe(checksums=False, scratch=new_scratch()))["main.numbers"] == 50001
    Path(f"{app}.wal").touch()
    with pytest.raises(SourceError, match="both have logs"):
        DuckdbSource(link).probe(checksums=False, scratch=new_scratch())
    with pytest.raises(RefusedError, match="symbolic link"):
        restore([], link, new_scratch(), RestoreOptions(replace=True))


def test_a_given_block_that_became_a_hole_is_given_again_as_zeros(tmp_path: Path) -> None:
    path = tmp_path / "holes.duckdb"
    run_duckdb(
        path,
        "CREATE TABLE b AS SELECT 1 AS i; CREATE TABLE a AS SELECT i, hash(i) AS h FROM range(500000) r(i); "
        "CHECKPOINT; DROP TABLE a; CHECKPOINT",
    )
    with LiveFile(path) as live, KeptBlocks(tmp_path / "kept", everything=False) as kept:
        copy = RawCopy(live, tmp_path / "copy", SystemClock(), 10)
        before = assembled(copy, kept)
        header = live.header(SystemClock())
        block = int(np.flatnonzero(live.block_map(header).free)[0])
        start = block_offset(block, header.block_bytes)
        assert any(before[start : start + header.block_bytes])
        punch_hole(path, start, header.block_bytes)
        after = before[:]
        after[start : start + header.block_bytes] = bytes(header.block_bytes)
        assert assembled(copy, kept, before) == after


def assembled(copy: RawCopy, kept: KeptBlocks, content: bytearray | None = None) -> bytearray:
    """Put what *copy* gives over *content*."""
    content = bytearray() if content is None else bytearray(content)
    for offset, data in copy.extents(kept):
        content.extend(bytes(max(offset + len(data) - len(content), 0)))
        content[offset : offset + len(data)] = data
    return content


def punch_hole(path: Path, offset: int, size: int) -> None:
    keep_size, punch = 1, 2
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    with path.open("r+b") as file:
        arguments = [ctypes.c_int64(offset), ctypes.c_int64(size)]
        assert fallocate(file.fileno(), keep_size | punch, *arguments) == 0, os.strerror(ctypes.get_errno())


# Restoring


def test_a_stale_log_never_meets_the_restored_database(app: Path, tmp_path: Path, new_scratch: NewScratch) -> None:
    clean = tmp_path / "clean.duckdb"
    run_duckdb(clean, "CREATE TABLE numbers AS SELECT i, hash(i) AS h FROM range(10) r(i)")
    streams, _ = capture(DuckdbSource(clean), new_scratch())
    restore(streams, app, new_scratch(), RestoreOptions(replace=True))
    assert not Path(f"{app}.wal").exists()
    assert app.read_bytes() == clean.read_bytes()


def test_a_log_without_its_database_is_moved_aside(app: Path, tmp_path: Path, new_scratch: NewScratch) -> None:
    streams, _ = capture(DuckdbSource(app), new_scratch())
    target = tmp_path / "place" / "target.duckdb"
    target.parent.mkdir()
    Path(f"{target}.wal.checkpoint").write_bytes(b"left over")
    sentences = restore(streams, target, new_scratch(), RestoreOptions())
    assert "is kept as" in sentences[0]
    assert Path(f"{target}.wal").read_bytes() == Path(f"{app}.wal").read_bytes()
    (aside,) = target.parent.glob("*before-restore*")
    assert aside.read_bytes() == b"left over"


class CrashError(Exception):
    """Stands for the machine's end between two steps."""


@pytest.mark.parametrize("steps", range(12))
def test_a_crash_between_any_two_steps_of_publishing_mixes_nothing(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, staged = tmp_path / "t.duckdb", tmp_path / "s.duckdb"
    for base, text in ((target, "old"), (staged, "new")):
        base.write_text(text)
        Path(f"{base}.wal").write_text(f"{text} log")
    left = iter(range(steps))

    def crash_when_used_up(_: Path) -> None:
        if next(left, None) is None:
            raise CrashError

    monkeypatch.setattr(publishing, "sync_directory", crash_when_used_up)
    with contextlib.suppress(CrashError):
        publishing.publish(Family(staged, WAL_SUFFIXES), target, SystemClock().now(), replace=True)
    files = {path.name: path.read_text() for path in tmp_path.iterdir()}
    at_target = files.get("t.duckdb"), files.get("t.duckdb.wal")
    assert at_target[0] is None or at_target in (("old", "old log"), ("new", "new log"))
    families = [(text, files.get(f"{name}.wal")) for name, text in files.items() if not name.endswith(".wal")]
    assert ("old", "old log") in families
    assert "new" in files.values()
    assert "new log" in files.values()


def test_a_full_disk_is_an_error_and_leaves_nothing(
    app: Path, tmp_path: Path, new_scratch: NewScratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams, _ = capture(DuckdbSource(app), new_scratch())
    before = sorted(tmp_path.iterdir())

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(SourceError, match="no space left"):
        restore(streams, tmp_path / "restored.duckdb", new_scratch(), RestoreOptions())
    assert sorted(tmp_path.iterdir()) == before


def test_the_mode_comes_back_and_nobody_reads_it_before(app: Path, tmp_path: Path, new_scratch: NewScratch) -> None:
    app.chmod(0o640)
    streams, _ = capture(DuckdbSource(app), new_scratch())
    target = tmp_path / "restored.duckdb"
    with DuckdbSource(target).restore(iter(streams), RestoreOptions(), new_scratch()) as restoration:
        assert {path.stat().st_mode & 0o777 for path in tmp_path.glob(".restored*")} == {staging.PRIVATE_MODE}
        restoration.publish()
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_target_without_a_directory_or_that_is_one_is_an_error(tmp_path: Path, new_scratch: NewScratch) -> None:
    for target, error in ((tmp_path / "absent" / "a.duckdb", SourceError), (tmp_path, RefusedError)):
        with pytest.raises(error, match="directory"):
            restore([], target, new_scratch(), RestoreOptions(replace=True))


def test_a_snapshot_without_a_database_is_an_error(tmp_path: Path, new_scratch: NewScratch) -> None:
    with pytest.raises(SourceError, match="holds no database"):
        restore([], tmp_path / "restored.duckdb", new_scratch(), RestoreOptions())


def test_a_restored_file_that_duckdb_cannot_read_is_an_error(
    app: Path, tmp_path: Path, new_scratch: NewScratch
) -> None:
    streams, _ = capture(DuckdbSource(app), new_scratch())
    entry = streams[0].entry
    broken = [Stream(entry, iter([Extent(0, bytes(entry.size))])), *streams[1:]]
    with (
        DuckdbSource(tmp_path / "restored.duckdb").restore(
            iter(broken), RestoreOptions(), new_scratch()
        ) as restoration,
        pytest.raises(SourceError, match="DuckDB cannot read the restored database"),
    ):
        restoration.probe(checksums=False)


def test_an_entry_that_is_no_database_or_log_is_refused(app: Path, tmp_path: Path, new_scratch: NewScratch) -> None:
    streams, _ = capture(DuckdbSource(app), new_scratch())

    def hostile() -> Iterator[Stream]:
        yield streams[0]
        entry = type(streams[0].entry)(path=f"{streams[0].entry.path}/../../evil", kind="file")
        yield Stream(entry, iter(()))

    with pytest.raises(SourceError, match="no such entry"):
        restore(list(hostile()), tmp_path / "restored.duckdb", new_scratch(), RestoreOptions())
    assert not list(tmp_path.parent.glob("evil*"))


def test_a_single_table_keeps_what_the_schema_says_of_it(tmp_path: Path, new_scratch: NewScratch) -> None:
    path = tmp_path / "rich.duckdb"
    run_duckdb(
        path,
        """
        CREATE SEQUENCE ids START 10;
        CREATE TYPE mood AS ENUM ('well', 'ill');
        CREATE TABLE parent (id INTEGER PRIMARY KEY, "odd.name" VARCHAR UNIQUE);
        CREATE TABLE child (id BIGINT DEFAULT nextval('ids'), parent INTEGER REFERENCES parent (id), mood mood,
                            half DOUBLE, twice DOUBLE GENERATED ALWAYS AS (half * 2) VIRTUAL, CHECK (half > 0));
        CREATE TABLE other AS SELECT 1 AS i;
        CREATE INDEX by_half ON child (half);
        CREATE VIEW everything AS SELECT * FROM child, other;
        INSERT INTO parent SELECT i, 'n' || i FROM range(5) r(i);
        INSERT INTO child (parent, mood, half) SELECT i % 5, 'well', i + 1 FROM range(50) r(i);
        """,
    )
    streams, _ = capture(DuckdbSource(path), new_scratch())
    with pytest.raises(RefusedError, match=r"foreign keys to main\.parent"):
        restore(streams, tmp_path / "child.duckdb", new_scratch(), RestoreOptions(tables=["child"]))
    streams, _ = capture(DuckdbSource(path), new_scratch())
    target = tmp_path / "both.duckdb"
    restore(streams, target, new_scratch(), RestoreOptions(tables=["main.child", "parent"]))
    assert run_duckdb(target, "SELECT 1", "SELECT count(*), sum(twice) FROM child") == [(50, 2550.0)]
    assert run_duckdb(target, "SELECT 1", "SELECT table_name FROM duckdb_tables() ORDER BY 1") == [
        ("child",),
        ("parent",),
    ]
    (ddl,) = run_duckdb(target, "SELECT 1", "SELECT sql FROM duckdb_tables() WHERE table_name = 'child'") or []
    assert all(word in str(ddl) for word in ("nextval", "FOREIGN KEY", "CHECK", "GENERATED", "ENUM"))


@pytest.mark.parametrize("ran", ["checkpointed", "crashed"])
def test_the_undo_works_after_the_application_ran(ran: str, app: Path, tmp_path: Path, new_scratch: NewScratch) -> None:
    """It may have removed the restored log, or left one of its own; neither may meet the old database."""
    target = tmp_path / "live" / "app.duckdb"
    target.parent.mkdir()
    restore(capture(DuckdbSource(app), new_scratch())[0], target, new_scratch(), RestoreOptions())
    before = run_duckdb(target, "SELECT 1", "SELECT table_name FROM duckdb_tables() ORDER BY 1")
    _, undo = restore(capture(DuckdbSource(app), new_scratch())[0], target, new_scratch(), RestoreOptions(replace=True))
    crash = "os._exit(1)" if ran == "crashed" else "con.close()"
    work = (
        f"import os, duckdb\ncon = duckdb.connect({str(target)!r})\ncon.execute('CREATE TABLE since (i INT)')\n{crash}"
    )
    subprocess.run([sys.executable, "-c", work], check=False)

    subprocess.run(["/bin/sh", "-c", undo.split(": ", 1)[1]], check=True)

    assert run_duckdb(target, "SELECT 1", "SELECT table_name FROM duckdb_tables() ORDER BY 1") == before
    assert subprocess.run(["/bin/sh", "-c", undo.split(": ", 1)[1]], check=False, capture_output=True).returncode != 0


def test_single_tables_do_not_replace_a_whole_database(app: Path, new_scratch: NewScratch) -> None:
    with pytest.raises(RefusedError, match="by a part of it"):
        restore([], app, new_scratch(), RestoreOptions(replace=True, tables=["t"]))
