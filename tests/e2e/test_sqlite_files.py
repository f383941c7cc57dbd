"""SQLite files as they are found: in use, at rest, crashed, damaged, with everything SQLite can hold."""

import json
import os
import shutil
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from rigs import stored
from rigs.program import Program
from rigs.sqlite_rig import POPULATE, Application, dump, run_sqlite

from flybackup.chunking import Fixed
from flybackup.errors import RefusedError, SourceError
from flybackup.model import Facts
from flybackup.sources import Captured, RestoreOptions, Stream
from flybackup.sources.files import holders
from flybackup.sources.sqlite import copying
from flybackup.sources.sqlite.header import HEADER_BYTES, is_sqlite_file, parse_header
from flybackup.sources.sqlite.live import LiveFile, NotNowError
from flybackup.sources.sqlite.source import SqliteSource

NewScratch = Callable[[], Path]
ROWS = {"main.customers": 500, "main.empty": 0, "main.orders": 20000}
ODD_NAMES = ["my shop.db", 'it\'s "quoted".db', "100%#1?mode=memory&x.db", "main.temp.db", "ümläut.db", "-wal"]


@pytest.fixture
def new_scratch(tmp_path_factory: pytest.TempPathFactory) -> NewScratch:
    return lambda: tmp_path_factory.mktemp("scratch")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A database with a rollback journal, used by nobody."""
    path = tmp_path / "data" / "app.db"
    path.parent.mkdir()
    run_sqlite(path, POPULATE)
    return path


@pytest.fixture
def wal_app(app: Path) -> Path:
    run_sqlite(app, "PRAGMA journal_mode = WAL")
    return app


def capture(
    path: Path, scratch: Path, *, checksums: bool = False, bound_seconds: float = 30
) -> tuple[list[Stream], Captured]:
    with SqliteSource(path, checksums=checksums, bound_seconds=bound_seconds).capture(scratch) as captured:
        return stored(captured), captured.finish()


def restore(streams: list[Stream], target: Path, scratch: Path, **options: object) -> tuple[str, ...]:
    with SqliteSource(target).restore(iter(streams), RestoreOptions(**options), scratch) as restoration:  # type: ignore[arg-type]
        restoration.probe(checksums=False)
        return restoration.publish()


def rows(facts: Facts) -> dict[str, int]:
    return {name: table.rows for name, table in facts.tables.items()}


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    """Ask a database that nobody uses."""
    with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as con:
        return con.execute(sql).fetchall()


def everything_in(directory: Path) -> dict[str, tuple[bytes, int, int, int, int]]:
    return {
        path.name: (path.read_bytes(), (at := path.stat()).st_mtime_ns, at.st_ctime_ns, at.st_ino, at.st_mode)
        for path in directory.iterdir()
    }


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def copy_of(path: Path, streams: list[Stream], directory: Path) -> Path:
    target = directory / f"copy of {path.name}"
    restore(streams, target, directory)
    return target


# At rest


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_database_nobody_uses_is_captured_and_nothing_is_left_beside_it(
    mode: str, app: Path, new_scratch: NewScratch
) -> None:
    run_sqlite(app, f"PRAGMA journal_mode = {mode}")
    before = everything_in(app.parent)
    scratch = new_scratch()
    streams, captured = capture(app, scratch)
    assert everything_in(app.parent) == before
    assert list(scratch.iterdir()) == []
    assert rows(captured.facts) == ROWS
    assert captured.method == ("copied at rest" if mode == "WAL" else "online backup, rollback journal, 1 step")
    assert captured.facts.engine == f"SQLite {sqlite3.sqlite_version}"
    assert captured.facts.details == {
        "page_size": "4096",
        "journal_mode": "wal" if mode == "WAL" else "rollback",
        "encoding": "UTF-8",
        "user_version": "41",
        "application_id": "-77",
        "integrity_check": "ok",
        "foreign_key_violations": "0",
    }
    assert (captured.warnings, captured.problems) == ((), ())
    assert streams[0].chunking == Fixed(65536, 65536)
    if mode == "WAL":
        assert copy_of(app, streams, new_scratch()).read_bytes() == app.read_bytes()


@pytest.mark.parametrize("with_index", [True, False])
def test_a_log_left_by_a_crash_is_part_of_the_copy(with_index: bool, wal_app: Path, new_scratch: NewScratch) -> None:
    with Application(wal_app, "INSERT INTO empty VALUES (1)", "BEGIN", "INSERT INTO empty VALUES (2)") as application:
        application.crash()
    if not with_index:
        wal_app.with_name("app.db-shm").unlink()
    assert wal_app.with_name("app.db-wal").stat().st_size
    before = everything_in(wal_app.parent)
    streams, captured = capture(wal_app, new_scratch())
    assert everything_in(wal_app.parent) == before
    assert captured.method == "copied at rest, with its -wal"
    assert rows(captured.facts) == {**ROWS, "main.empty": 1}
    target = copy_of(wal_app, streams, new_scratch())
    assert run_sqlite(target, "", "PRAGMA journal_mode") == [["wal"]]
    assert run_sqlite(wal_app, "", "SELECT count(*) FROM empty") == [[1]]


def crash_in_a_transaction(path: Path) -> Path:
    """Leave a hot journal, and return it: half of the changed pages are in the database file."""
    with Application(path, "PRAGMA cache_size = 5", "BEGIN", "UPDATE orders SET note = 'lost ' || note") as application:
        application.crash()
    journal = path.with_name(f"{path.name}-journal")
    assert journal.stat().st_size
    assert query(path, "SELECT count(*) FROM orders WHERE note LIKE 'lost %'") != [(0,)]
    return journal


def test_a_hot_journal_is_rolled_back_in_the_copy_and_left_to_the_application(
    app: Path, new_scratch: NewScratch
) -> None:
    expected = dump(app)
    crash_in_a_transaction(app)
    before = everything_in(app.parent)
    streams, captured = capture(app, new_scratch())
    assert everything_in(app.parent) == before
    assert captured.method == "copied at rest, with its -journal"
    assert captured.facts.details["integrity_check"] == "ok"
    assert dump(copy_of(app, streams, new_scratch())) == expected


@pytest.mark.parametrize("exists", [True, False])
def test_a_journal_that_names_another_file_never_removes_that(
    exists: bool, app: Path, tmp_path: Path, new_scratch: NewScratch
) -> None:
    """A transaction over several databases: rolled back as long as the named file is there, else it was committed."""
    expected = dump(app)
    journal = crash_in_a_transaction(app)
    named = tmp_path / "precious"
    if exists:
        named.write_bytes(b"not a list of journals")
    name = os.fsencode(named)
    magic = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
    page = struct.pack(">I", 0x40000000 // 4096 + 1)
    with journal.open("ab") as file:
        file.write(page + name + struct.pack(">II", len(name), sum(name)) + magic)
    streams, captured = capture(app, new_scratch())
    assert named.exists() == exists
    assert "-journal" in captured.method
    lost = query(copy_of(app, streams, new_scratch()), "SELECT count(*) FROM orders WHERE note LIKE 'lost %'")
    assert (lost == [(0,)]) == exists
    if exists:
        assert dump(tmp_path / "data" / "app.db") != expected


def test_a_database_is_not_copied_raw_while_it_changes(
    wal_app: Path, new_scratch: NewScratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application that opens, writes and closes between two looks: the copy made meanwhile is thrown away."""
    changes = iter(["INSERT INTO empty VALUES (1)", "INSERT INTO empty VALUES (2)"])
    real = os.sendfile

    def writing_meanwhile(*arguments: int) -> int:
        count = real(*arguments)
        for change in changes:
            run_sqlite(wal_app, change)
            break
        return count

    monkeypatch.setattr(os, "sendfile", writing_meanwhile)
    _, captured = capture(wal_app, new_scratch())
    assert rows(captured.facts)["main.empty"] == 2


# In use


def test_a_wal_database_in_use_is_captured_with_its_log_and_goes_on(wal_app: Path, new_scratch: NewScratch) -> None:
    with Application(wal_app, "INSERT INTO empty VALUES (1)", "BEGIN", "INSERT INTO empty VALUES (2)") as application:
        names = names_in(wal_app.parent)
        _, captured = capture(wal_app, new_scratch())
        assert captured.method == "online backup, WAL, one transaction"
        assert rows(captured.facts) == {**ROWS, "main.empty": 1}
        assert names_in(wal_app.parent) == names
        application.execute("COMMIT")
        application.close()
        assert names_in(wal_app.parent) == ["app.db"]


def test_what_others_commit_during_a_capture_is_not_in_it(
    wal_app: Path, new_scratch: NewScratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "STEP_BYTES", 65536)
    with Application(wal_app, "SELECT count(*) FROM empty") as application:
        before = application.execute("SELECT count(*), total(customer) FROM orders")
        _between_steps(monkeypatch, lambda: application.execute("DELETE FROM orders WHERE rowid % 7 = 0"))
        streams, _ = capture(wal_app, new_scratch())
        assert application.execute("SELECT count(*), total(customer) FROM orders") != before
    copy = copy_of(wal_app, streams, new_scratch())
    assert query(copy, "SELECT count(*), total(customer) FROM orders") == [tuple(before[0])]


def test_the_last_user_that_closes_during_a_capture_leaves_the_log_to_it(wal_app: Path) -> None:
    with Application(wal_app, "INSERT INTO empty VALUES (1)") as application:
        with LiveFile(wal_app) as live, live.guarded():
            assert live.shares_a_log()
            application.close()
            assert not live.shares_a_log()
            assert wal_app.with_name("app.db-wal").stat().st_size
        run_sqlite(wal_app, "", "SELECT count(*) FROM empty")
    assert names_in(wal_app.parent) == ["app.db"]


def test_a_transaction_with_a_rollback_journal_is_not_in_the_copy(app: Path, new_scratch: NewScratch) -> None:
    with Application(app, "BEGIN IMMEDIATE", "INSERT INTO empty VALUES (1)") as application:
        _, captured = capture(app, new_scratch())
        assert captured.method == "online backup, rollback journal, 1 step"
        assert rows(captured.facts) == ROWS
        application.execute("COMMIT")
    assert rows(capture(app, new_scratch())[1].facts) == {**ROWS, "main.empty": 1}


def test_a_writer_with_a_rollback_journal_gets_its_turn_between_steps(
    app: Path, new_scratch: NewScratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And commits make the copy begin again, until it holds on."""
    monkeypatch.setattr(copying, "STEP_BYTES", 65536)
    commits: list[object] = []
    with Application(app, timeout=0) as application:

        def commit() -> None:
            if len(commits) < 50:
                commits.append(application.execute("INSERT INTO empty VALUES (1)"))

        _between_steps(monkeypatch, commit, only_with_restarts=True)
        _, captured = capture(app, new_scratch())
    assert captured.method == "online backup, rollback journal, one transaction"
    assert rows(captured.facts)["main.empty"] == len(commits) >= copying.RESTARTS


def _between_steps(
    monkeypatch: pytest.MonkeyPatch, do: Callable[[], object], *, only_with_restarts: bool = False
) -> None:
    real = copying._Copying._watch

    def watching(self: copying._Copying, *, restarts: int) -> Callable[[int, int, int], None]:
        watch = real(self, restarts=restarts)

        def and_do(status: int, remaining: int, total: int) -> None:
            watch(status, remaining, total)
            if remaining and (restarts or not only_with_restarts):
                do()

        return and_do

    monkeypatch.setattr(copying._Copying, "_watch", watching)


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_database_that_is_kept_locked_is_an_error_that_names_who(
    mode: str, app: Path, new_scratch: NewScratch
) -> None:
    run_sqlite(app, f"PRAGMA journal_mode = {mode}")
    with (
        Application(app, "PRAGMA locking_mode = EXCLUSIVE", "INSERT INTO empty VALUES (1)") as application,
        pytest.raises(SourceError, match=rf"process {application.pid} .* kept it locked") as caught,
    ):
        capture(app, new_scratch(), bound_seconds=0.2)
    assert "EXCLUSIVE" in caught.value.hint


def test_a_writer_that_waits_is_not_made_to_starve_and_is_waited_for(app: Path, new_scratch: NewScratch) -> None:
    with Application(app, "BEGIN EXCLUSIVE", "INSERT INTO empty VALUES (1)") as application:
        done: list[Captured] = []
        thread = threading.Thread(target=lambda: done.append(capture(app, new_scratch())[1]))
        thread.start()
        thread.join(0.1)
        assert not done
        application.execute("COMMIT")
        thread.join()
    assert rows(done[0].facts)["main.empty"] == 1


def test_behind_a_writer_that_waits_for_readers_no_reader_is_added(app: Path) -> None:
    begun = ["BEGIN", "SELECT count(*) FROM empty"]
    with Application(app, *begun) as reader, Application(app) as writer, LiveFile(app) as live:
        with live.guarded():
            pass
        writer.send("INSERT INTO empty VALUES (1)")
        while not holders.writer_of(live.fd):
            pass
        while True:  # from reserved to pending
            try:
                with live.guarded():
                    pass
            except NotNowError:
                break
        reader.execute("COMMIT")
        writer.answer()
        with live.guarded():
            pass


def test_a_database_that_this_process_has_locked_is_not_touched(wal_app: Path, new_scratch: NewScratch) -> None:
    with closing(sqlite3.connect(wal_app)) as con:
        con.execute("SELECT count(*) FROM empty").fetchall()
        with pytest.raises(SourceError, match="this very process"):
            capture(wal_app, new_scratch())
        assert holders.locked_by_this_process(wal_app)


# What is no database


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"text, " * 100, "not a SQLite database, or it is encrypted"),
        (b"SQLite format 3\0", "not a SQLite database"),
        (b"SQLite format 3\0\x10\0\x03\x03" + bytes(4096), "not a SQLite database"),
    ],
)
def test_what_is_no_database_is_an_error_and_is_not_made(
    content: bytes | None, problem: str, tmp_path: Path, new_scratch: NewScratch
) -> None:
    path = tmp_path / "missing.db"
    if content is not None:
        path.write_bytes(content)
    for ask in (
        lambda: capture(path, new_scratch()),
        lambda: SqliteSource(path).probe(checksums=False, scratch=new_scratch()),
    ):
        with pytest.raises(SourceError, match=problem):
            ask()
    assert [each.read_bytes() for each in tmp_path.glob("missing*")] == ([] if content is None else [content])


def test_a_directory_is_an_error(tmp_path: Path, new_scratch: NewScratch) -> None:
    with pytest.raises(SourceError, match="is not a file"):
        capture(tmp_path, new_scratch())


# Everything a database can be


@pytest.mark.parametrize("page", [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536])
@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_every_page_size_comes_back(page: int, mode: str, tmp_path: Path, new_scratch: NewScratch) -> None:
    path = tmp_path / "app.db"
    run_sqlite(path, f"PRAGMA page_size = {page}; PRAGMA journal_mode = {mode}; {POPULATE}")
    with Application(path, "INSERT INTO empty VALUES (1)") as application:
        streams, captured = capture(path, new_scratch())
        application.close()
    assert captured.facts.details["page_size"] == str(page)
    assert rows(captured.facts) == {**ROWS, "main.empty": 1}
    copy = copy_of(path, streams, new_scratch())
    assert run_sqlite(copy, "", "PRAGMA page_size") == [[page]]
    assert dump(copy) == dump(path)


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
@pytest.mark.parametrize("vacuum", ["FULL", "INCREMENTAL"])
def test_encoding_and_auto_vacuum_come_back(
    encoding: str, vacuum: str, tmp_path: Path, new_scratch: NewScratch
) -> None:
    path = tmp_path / "app.db"
    run_sqlite(path, f"PRAGMA encoding = '{encoding}'; PRAGMA auto_vacuum = {vacuum}; {POPULATE}")
    streams, captured = capture(path, new_scratch(), checksums=True)
    assert captured.facts.details["encoding"] == encoding
    copy = copy_of(path, streams, new_scratch())
    assert query(copy, "PRAGMA auto_vacuum") == query(path, "PRAGMA auto_vacuum") != [(0,)]
    assert dump(copy) == dump(path)
    utf8 = tmp_path / "utf8.db"
    with closing(sqlite3.connect(path)) as con:
        run_sqlite(utf8, "\n".join(con.iterdump()))
    assert capture(utf8, new_scratch(), checksums=True)[1].facts.tables == captured.facts.tables


RICH = """
CREATE TABLE pairs (a TEXT, b INTEGER, v, PRIMARY KEY (a, b)) WITHOUT ROWID;
INSERT INTO pairs VALUES ('x', 1, 1.5), ('x', 2, NULL);
CREATE TABLE computed (a INTEGER, b GENERATED ALWAYS AS (a * 2) VIRTUAL, c GENERATED ALWAYS AS (a * 3) STORED);
INSERT INTO computed VALUES (7), (8);
CREATE TABLE typed (i INTEGER PRIMARY KEY AUTOINCREMENT, r REAL, b BLOB) STRICT;
INSERT INTO typed (r, b) VALUES (1, x'00'), (2, zeroblob(5000000));
CREATE TABLE "odd ""name"".[x] 'y'" ("a b" TEXT, "c""d");
INSERT INTO "odd ""name"".[x] 'y'" VALUES ('one', 2);
CREATE TABLE "select" (i);
CREATE TABLE sqlitish (i);
CREATE VIRTUAL TABLE docs USING fts5(title, body);
INSERT INTO docs VALUES ('first', 'some words'), ('second', 'other words'), ('third', 'none');
CREATE VIRTUAL TABLE "old docs" USING fts4(body);
INSERT INTO "old docs" VALUES ('some words');
CREATE VIRTUAL TABLE places USING rtree(id, x0, x1);
INSERT INTO places VALUES (1, 0, 1), (2, 5, 6);
CREATE VIRTUAL TABLE terms USING fts5vocab(docs, row);
ANALYZE;
"""
RICH_ROWS = {
    "main.pairs": 2,
    "main.computed": 2,
    "main.typed": 2,
    'main."odd ""name"".[x] \'y\'"': 1,
    "main.select": 0,
    "main.sqlitish": 0,
    "main.docs": 3,
    "main.old docs": 1,
    "main.places": 2,
}


def test_everything_sqlite_can_hold_comes_back(tmp_path: Path, new_scratch: NewScratch) -> None:
    path = tmp_path / "rich.db"
    run_sqlite(path, RICH)
    streams, captured = capture(path, new_scratch(), checksums=True)
    assert rows(captured.facts) == RICH_ROWS
    assert all(table.checksum for table in captured.facts.tables.values())
    assert captured.warnings == ("main.terms is a virtual table (fts5vocab): not counted",)
    assert captured.problems == ()
    copy = copy_of(path, streams, new_scratch())
    assert dump(copy) == dump(path)
    assert run_sqlite(copy, "", "SELECT title FROM docs WHERE docs MATCH 'words' ORDER BY 1") == [["first"], ["second"]]


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_path_may_have_any_name(name: str, mode: str, tmp_path: Path, new_scratch: NewScratch) -> None:
    path = tmp_path / "a dir%20 #?" / name
    path.parent.mkdir()
    run_sqlite(path, f"PRAGMA journal_mode = {mode}; {POPULATE}")
    with Application(path, "INSERT INTO empty VALUES (1)") as application:
        streams, captured = capture(path, new_scratch())
        application.close()
    assert rows(captured.facts)["main.empty"] == 1
    assert streams[0].entry.path == name
    target = path.with_name(f"{name} restored")
    restore(streams, target, new_scratch())
    assert sorted(path.parent.iterdir()) == sorted([path, target])
    assert dump(target) == dump(path)


def test_a_link_leads_to_the_database_and_its_log(wal_app: Path, new_scratch: NewScratch) -> None:
    link = wal_app.parent.parent / "current.db"
    link.symlink_to("data/app.db")
    with Application(wal_app, "INSERT INTO empty VALUES (1)") as application:
        assert rows(capture(link, new_scratch())[1].facts)["main.empty"] == 1
        application.crash()
    assert rows(capture(link, new_scratch())[1].facts)["main.empty"] == 1


def test_what_only_the_application_knows_is_counted_and_said(tmp_path: Path, new_scratch: NewScratch) -> None:
    """Collations and functions of its own, and virtual tables of a module that is not here."""
    path = tmp_path / "own.db"
    with closing(sqlite3.connect(path)) as con:
        con.create_collation("OWN", lambda a, b: (a < b) - (a > b))
        con.create_function("own", 1, lambda a: a, deterministic=True)
        con.executescript("""
            CREATE TABLE collated (a TEXT COLLATE OWN UNIQUE);
            INSERT INTO collated VALUES ('a'), ('b'), ('c');
            CREATE TABLE keyed (a TEXT COLLATE OWN PRIMARY KEY, b) WITHOUT ROWID;
            INSERT INTO keyed VALUES ('a', 1), ('b', 2);
            CREATE TABLE checked (a CHECK (own(a)));
            INSERT INTO checked VALUES (1);
            CREATE INDEX indexed ON checked (own(a));
            CREATE TABLE plain (a);
            PRAGMA writable_schema = ON;
            INSERT INTO sqlite_schema
                VALUES ('table', 'vectors', 'vectors', 0, 'CREATE VIRTUAL TABLE vectors USING vec0(x)');
        """)
    streams, captured = capture(path, new_scratch(), checksums=True)
    assert rows(captured.facts) == {"main.collated": 3, "main.keyed": 2, "main.checked": 1, "main.plain": 0}
    assert captured.problems == ()
    assert captured.facts.details["integrity_check"] == "not checked"
    said = "\n".join(captured.warnings)
    assert "main.vectors is a virtual table (vec0): not counted" in said
    assert "main.collated could not be checked: no such collation sequence: OWN" in said
    assert "main.plain" not in said
    target = tmp_path / "one.db"
    restore(streams, target, new_scratch(), tables=["plain"], facts=captured.facts)
    assert query(target, "SELECT name FROM sqlite_schema ORDER BY 1") == [("plain",)]
    streams, _ = capture(path, new_scratch())
    with pytest.raises(SourceError, match="no such function: own"):
        restore(streams, tmp_path / "two.db", new_scratch(), tables=["checked"], facts=captured.facts)
    assert names_in(tmp_path) == ["one.db", "own.db"]


def test_foreign_keys_that_lead_nowhere_are_counted(app: Path, new_scratch: NewScratch) -> None:
    run_sqlite(app, "INSERT INTO orders VALUES (9999, 1, ''), (9998, 1, '')")
    facts = capture(app, new_scratch())[1].facts
    assert facts.details["foreign_key_violations"] == "2"


# Checksums


def test_checksums_tell_types_apart_and_not_order(tmp_path: Path, new_scratch: NewScratch) -> None:
    alone = ["1, 2", "1.0, 2", "'1', 2", "x'31', 2", "NULL, 2", "'', 2", "x'', 2", "2, 1", "12, ''", "1, NULL"]
    not_text = ["CAST(x'ff' AS TEXT), 1", "CAST(x'fe' AS TEXT), 1", "x'ff', 1", "'ÿ', 1"]
    other = [[], ["1, 2", "1, 2"], ["1, 2", "'1', 2", "3, 4"], ["3, 4", "1, 2", "'1', 2"], ["3, 4", "1, 2"]]
    contents = [*([each] for each in alone + not_text), *other]
    path = tmp_path / "a.db"
    script = [f"CREATE TABLE t{number} (a, b);" for number in range(len(contents))]
    script += [f"INSERT INTO t{number} VALUES ({row});" for number, rows in enumerate(contents) for row in rows]
    run_sqlite(path, "".join(script))
    tables = capture(path, new_scratch(), checksums=True)[1].facts.tables
    found = [tables[f"main.t{number}"].checksum for number in range(len(contents))]
    assert found[-3] == found[-2]
    assert len(set(found)) == len(contents) - 1


# Damage


def damage_an_index(path: Path) -> None:
    (root,) = query(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'by_customer'")[0]
    with path.open("r+b") as file:
        file.seek((int(str(root)) - 1) * 4096 + 8)
        file.write(bytes(2000))


def test_a_damaged_database_is_kept_as_a_partial_snapshot(app: Path, new_scratch: NewScratch) -> None:
    damage_an_index(app)
    streams, captured = capture(app, new_scratch())
    assert len(captured.problems) == 1
    assert captured.problems[0].startswith("the database is damaged: ")
    assert captured.facts.details["integrity_check"] != "ok"
    assert rows(captured.facts) == ROWS
    target = app.with_name("restored.db")
    restore(streams, target, new_scratch(), facts=captured.facts)
    assert target.stat().st_size == app.stat().st_size


def test_a_table_that_cannot_be_read_is_a_problem_and_the_others_are_counted(
    app: Path, new_scratch: NewScratch
) -> None:
    (root,) = query(app, "SELECT rootpage FROM sqlite_schema WHERE name = 'orders'")[0]
    with app.open("r+b") as file:
        file.seek((int(str(root)) - 1) * 4096)
        file.write(b"\xff" * 4096)
    _, captured = capture(app, new_scratch())
    assert "main.orders cannot be read" in captured.problems[0]
    assert rows(captured.facts) == {"main.customers": 500, "main.empty": 0}


def test_a_database_that_was_damaged_on_the_way_back_is_not_moved_into_place(
    app: Path, new_scratch: NewScratch
) -> None:
    good = capture(app, new_scratch())[1].facts
    damage_an_index(app)
    streams, _ = capture(app, new_scratch())
    target = app.with_name("restored.db")
    with pytest.raises(SourceError, match="the restored database is damaged"):
        restore(streams, target, new_scratch(), facts=good)
    assert names_in(app.parent) == ["app.db"]


# Deduplication


def chunks(streams: list[Stream]) -> dict[int, bytes]:
    content = {extent.offset: bytes(extent.data) for extent in streams[0].extents}
    whole = b"".join(content[offset] for offset in sorted(content))
    return {at: whole[at : at + 65536] for at in range(0, len(whole), 65536)}


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_what_did_not_change_is_not_stored_again(mode: str, app: Path, new_scratch: NewScratch) -> None:
    run_sqlite(
        app,
        f"PRAGMA journal_mode = {mode}; "
        "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 200000) "
        "INSERT INTO orders SELECT i % 500 + 1, i / 4.0, hex(randomblob(40)) FROM r",
    )
    with Application(app, "SELECT count(*) FROM empty") as application:
        first = chunks(capture(app, new_scratch())[0])
        assert chunks(capture(app, new_scratch())[0]) == first
        for number in range(20):
            application.execute(f"UPDATE orders SET price = -1 WHERE rowid = {number * 10_000 + 1}")
        second = chunks(capture(app, new_scratch())[0])
    shared = len(set(first.values()) & set(second.values()))
    assert len(second) - shared <= 21 + 1, (len(first), len(second), shared)


# Restoring


def test_a_stale_log_beside_the_target_does_no_harm(tmp_path: Path, wal_app: Path, new_scratch: NewScratch) -> None:
    """It belongs to an older state of the very same database: SQLite would believe it."""
    streams, captured = capture(wal_app, new_scratch())
    target = tmp_path / "target" / "app.db"
    target.parent.mkdir()
    shutil.copy(wal_app, target)
    with Application(target, "DELETE FROM orders", "DELETE FROM customers") as application:
        application.crash()
    # What happens without care.
    careless = tmp_path / "careless"
    shutil.copytree(target.parent, careless)
    shutil.copy(wal_app, careless / "app.db")
    assert run_sqlite(careless / "app.db", "", "SELECT count(*) FROM orders") == [[0]]

    target.unlink()
    assert names_in(target.parent) == ["app.db-shm", "app.db-wal"]
    restore(streams, target, new_scratch(), facts=captured.facts)
    assert run_sqlite(target, "", "SELECT count(*) FROM orders") == [[20000]]


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_replacing_takes_the_old_logs_aside_and_the_undo_brings_them_back(
    mode: str, app: Path, tmp_path: Path, new_scratch: NewScratch
) -> None:
    streams, captured = capture(app, new_scratch())
    target = tmp_path / "target" / "app.db"
    target.parent.mkdir()
    run_sqlite(target, f"PRAGMA journal_mode = {mode}; {POPULATE}")
    if mode == "WAL":
        with Application(target, "DELETE FROM orders") as application:
            application.crash()
    else:
        crash_in_a_transaction(target)
    before = {path.name: path.read_bytes() for path in target.parent.iterdir()}
    sentences = restore(streams, target, new_scratch(), replace=True, facts=captured.facts)
    assert run_sqlite(target, "INSERT INTO empty VALUES (1)", "SELECT count(*) FROM orders") == [[20000]]
    undo = next(each.split(": ", 1)[1] for each in sentences if each.startswith("To undo"))
    assert os.system(undo) == 0
    assert {path.name: path.read_bytes() for path in target.parent.iterdir() if path.is_file()} == before
    assert run_sqlite(target, "", "SELECT count(*) FROM orders") == [[0 if mode == "WAL" else 20000]]


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_target_in_use_is_seen_by_its_locks_alone(
    mode: str, app: Path, tmp_path: Path, new_scratch: NewScratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in another container, whose open files cannot be seen."""
    streams, _ = capture(app, new_scratch())
    run_sqlite(app, f"PRAGMA journal_mode = {mode}")
    monkeypatch.setattr(holders, "openers", lambda _: iter(()))
    with (
        Application(app, "BEGIN IMMEDIATE") as application,
        pytest.raises(RefusedError, match=f"in use by process {application.pid}"),
    ):
        restore(streams, app, new_scratch(), replace=True)


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_single_tables_keep_rowids_and_what_the_file_says_of_itself(
    mode: str, tmp_path: Path, new_scratch: NewScratch
) -> None:
    path = tmp_path / "app.db"
    run_sqlite(
        path,
        f"PRAGMA page_size = 1024; PRAGMA encoding = 'UTF-16le'; PRAGMA auto_vacuum = FULL; "
        f"PRAGMA journal_mode = {mode}; {POPULATE} {RICH} DELETE FROM orders WHERE rowid % 3 = 0;"
        "CREATE TABLE bare (a); INSERT INTO bare (rowid, a) VALUES (-5, 'x'), (700, 'y')",
    )
    streams, captured = capture(path, new_scratch(), checksums=True)
    target = tmp_path / "some.db"
    names = ["main.orders", "bare", "docs"]
    options = RestoreOptions(tables=names, facts=captured.facts)
    with SqliteSource(target).restore(iter(streams), options, new_scratch()) as restoration:
        found = restoration.probe(checksums=True)
        restoration.publish()
    wanted = {key: captured.facts.tables[key] for key in ("main.orders", "main.bare", "main.docs")}
    assert found.tables == wanted
    kept = {"page_size", "journal_mode", "encoding", "user_version", "application_id"}
    assert {key: found.details[key] for key in kept} == {key: captured.facts.details[key] for key in kept}
    for sql in ("SELECT rowid, * FROM bare", "SELECT rowid, * FROM orders"):
        assert query(target, sql) == query(path, sql)
    names_there = {str(name) for (name,) in query(target, "SELECT name FROM sqlite_schema")}
    shadows = {f"docs_{each}" for each in ("data", "idx", "content", "docsize", "config")}
    assert {n for n in names_there if not n.startswith("sqlite_")} == {
        "orders",
        "bare",
        "docs",
        "by_customer",
    } | shadows
    assert run_sqlite(target, "", "SELECT count(*) FROM docs WHERE docs MATCH 'words'") == [[2]]
    assert names_in(tmp_path) == ["app.db", "some.db"]


# By the command line


def test_the_whole_story(ready: Program, app: Path, tmp_path: Path) -> None:
    with Application(app, "SELECT count(*) FROM empty") as application:
        (first,) = ready.json("backup", app)["snapshots"]
        assert (first["kind"], first["source"], first["status"]) == ("sqlite", "app", "complete")
        application.execute("INSERT INTO empty VALUES (1)")
        (second,) = ready.json("backup", app)["snapshots"]
        assert 0 < second["summary"]["bytes_new"] <= 3 * 65536
    assert ready.json("verify", "app", app)["verified"]
    target = tmp_path / "restored.db"
    restored = ready.json("restore", "app", "--to", target)
    assert restored["verified"]
    assert {each["name"]: each["actual"] for each in restored["tables"]} == {**ROWS, "main.empty": 1}
    assert dump(target) == dump(app)
    with Application(app, "BEGIN IMMEDIATE"):
        ready.run("restore", first["id"], "--to", app, "--replace", code=24)
    told = ready.run("restore", first["id"], "--to", app, "--replace").stdout
    assert "To undo" in told
    assert query(app, "SELECT count(*) FROM empty") == [(0,)]
    one = tmp_path / "one.db"
    assert ready.json("restore", "app", "--to", one, "--table", "customers")["verified"]


def test_a_configured_source_and_what_is_wrong_with_it(ready: Program, app: Path, tmp_path: Path) -> None:
    config = tmp_path / "flybackup.toml"
    config.write_text(
        f'[sources.shop]\ntype = "sqlite"\npath = {json.dumps(str(app))}\nverify = "checksums"\n'
        f'[sources.gone]\ntype = "sqlite"\npath = {json.dumps(str(tmp_path / "gone.db"))}\n'
    )
    assert ready.json("config", "show")["sources"]["shop"]["type"] == "sqlite"
    findings = ready.json("doctor", code=1)["findings"]
    assert any("is a SQLite database with a rollback journal" in each["what"] for each in findings)
    assert any(each["subject"] == "gone" and each["level"] == "error" for each in findings)
    done = ready.json("backup", code=3)
    assert [each["source"] for each in done["failed"]] == ["gone"]
    assert not (tmp_path / "gone.db").exists()
    (snapshot,) = done["snapshots"]
    assert all(table["checksum"] for table in snapshot["facts"]["tables"].values())
    assert ready.json("restore", "shop", "--to", tmp_path / "back.db")["verified"]


def test_a_damaged_database_makes_a_partial_snapshot_that_restores(ready: Program, app: Path, tmp_path: Path) -> None:
    damage_an_index(app)
    (snapshot,) = ready.json("backup", app, code=3)["snapshots"]
    assert snapshot["status"] == "partial"
    assert "damaged" in ready.run("show", "app").stdout
    assert ready.json("restore", "app", "--to", tmp_path / "back.db")["verified"]


# For other kinds of sources


def test_a_database_is_told_by_its_first_bytes(app: Path, tmp_path: Path) -> None:
    assert is_sqlite_file(app)
    (tmp_path / "empty").touch()
    assert not is_sqlite_file(tmp_path / "empty")
    header = parse_header(app.read_bytes()[:HEADER_BYTES])
    assert header is not None
    assert (header.page_bytes, header.user_version, header.application_id) == (4096, 41, -77)


def test_leaving_a_capture_stops_the_measuring(tmp_path: Path, new_scratch: NewScratch) -> None:
    """A signal must not wait for an integrity check of a large database."""
    path = tmp_path / "large.db"
    run_sqlite(
        path,
        "CREATE TABLE t (a, b); WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 200000) "
        "INSERT INTO t SELECT random(), random() FROM r; CREATE INDEX i ON t (a); CREATE INDEX j ON t (b)",
    )
    with SqliteSource(path, checksums=True).capture(new_scratch()) as captured:
        streams = captured.streams()
        next(streams)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("measure")]
    _unused: Iterator[Stream] = streams
