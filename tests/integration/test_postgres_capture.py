"""What a capture of a live PostgreSQL database promises, on every version that is here."""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from rigs import stored
from servers.postgres import BINARIES, PASSWORD, PostgresServer, command_lines, replica, until
from servers.transaction_pooler import transaction_pooler

from flybackup.errors import SourceError
from flybackup.model import Facts
from flybackup.sources import Captured, RestoreOptions, Stream
from flybackup.sources.postgres import PostgresSource, clients, preflight
from flybackup.sources.postgres.capture import PostgresCapture

ROWS = 200_000
BIG = ("CREATE TABLE big AS SELECT i AS id, repeat(md5(i::text), 4) AS v FROM generate_series(1, 200000) i",)


def captured(url: str, scratch: Path, **options: object) -> tuple[list[Stream], Captured]:
    with PostgresSource(url, **options).capture(scratch) as capture:  # type: ignore[arg-type]  # as the source takes them
        return stored(capture), capture.finish()


def restored(url: str, streams: list[Stream], facts: Facts, scratch: Path) -> Facts:
    with PostgresSource(url).restore(iter(streams), RestoreOptions(facts=facts), scratch) as restoration:
        return restoration.probe(checksums=True)


@contextmanager
def repeating(action: Callable[[], None]) -> Iterator[list[int]]:
    """Run *action* in a thread again and again while the block runs; yields its count, a list of one."""
    stop, count, failures = threading.Event(), [0], []

    def loop() -> None:
        try:
            while not stop.is_set():
                action()
                count[0] += 1
        except psycopg.Error as exc:
            failures.append(exc)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield count
    finally:
        stop.set()
        thread.join()
    assert not failures


def test_the_counts_are_those_of_the_dump_while_others_write(every_postgres: PostgresServer, tmp_path: Path) -> None:
    name = every_postgres.new_database("busy", "CREATE TABLE log (id serial, v text)", *BIG)
    with every_postgres.connect(name) as writer, every_postgres.connect(name) as builder:

        def insert() -> None:
            writer.execute("INSERT INTO log (v) SELECT 'x' FROM generate_series(1, 100)")

        def build() -> None:
            builder.execute("CREATE TABLE passing AS SELECT generate_series(1, 10)")
            builder.execute("DROP TABLE passing")

        with repeating(insert) as inserts, repeating(build):
            until(lambda: inserts[0] > 3)
            streams, result = captured(every_postgres.url(name), tmp_path, checksums=True)
            before = inserts[0]
            until(lambda: inserts[0] > before)
    counts = {key: table.rows for key, table in result.facts.tables.items()}
    assert counts["public.big"] == ROWS
    assert 0 < counts["public.log"] < every_postgres.rows(name, "SELECT count(*) FROM log")[0][0]
    target = every_postgres.url(every_postgres.new_name("quiet"))
    assert restored(target, streams, result.facts, tmp_path).tables == result.facts.tables


def test_a_truncate_waits_for_the_dump(postgres: PostgresServer, tmp_path: Path) -> None:
    name = postgres.new_database("truncated", *BIG)
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'big'::regclass"
    with postgres.connect(name) as other:
        thread = threading.Thread(target=other.execute, args=("TRUNCATE big",))
        with PostgresSource(postgres.url(name)).capture(tmp_path) as capture:
            thread.start()
            until(lambda: postgres.rows(name, waiting))
            streams = stored(capture)
            result = capture.finish()
            assert postgres.rows(name, waiting)
        thread.join()
    assert postgres.rows(name, "SELECT count(*) FROM big") == [(0,)]
    assert result.facts.tables["public.big"].rows == ROWS
    target = postgres.url(postgres.new_name("whole"))
    assert restored(target, streams, result.facts, tmp_path).tables["public.big"].rows == ROWS


def test_a_migration_that_queues_before_pg_dump_is_let_through(postgres: PostgresServer, tmp_path: Path) -> None:
    name = postgres.new_database("migrated", *BIG)
    ours = "SELECT 1 FROM pg_locks WHERE granted AND relation = 'big'::regclass AND pid <> pg_backend_pid()"
    with postgres.connect(name) as migration, postgres.connect(name) as watcher:

        def migrate() -> None:
            until(lambda: watcher.execute(ours).fetchall())
            migration.execute("ALTER TABLE big ADD COLUMN added int DEFAULT 7")

        thread = threading.Thread(target=migrate)
        thread.start()
        began = time.monotonic()
        streams, result = captured(postgres.url(name), tmp_path, lock_timeout_seconds=60)
        assert time.monotonic() - began < 30
        thread.join()
    target = postgres.new_name("after")
    assert restored(postgres.url(target), streams, result.facts, tmp_path).tables["public.big"].rows == ROWS


def test_a_table_locked_for_long_is_an_error_that_says_so(postgres18: PostgresServer, tmp_path: Path) -> None:
    name = postgres18.new_database("locked", "CREATE TABLE t (i int)")
    with postgres18.connect(name) as other, other.transaction():
        other.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(SourceError, match="lock timeout") as refused:
            captured(postgres18.url(name), tmp_path, lock_timeout_seconds=0.2)
    assert "exclusive lock" in refused.value.hint


def test_materialized_views_have_the_rows_a_restore_will_give(postgres: PostgresServer, tmp_path: Path) -> None:
    name = postgres.new_database(
        "views",
        "CREATE TABLE t AS SELECT generate_series(1, 10) AS i",
        "CREATE MATERIALIZED VIEW stale AS SELECT i FROM t",
        "CREATE MATERIALIZED VIEW unpopulated AS SELECT i FROM t WITH NO DATA",
        "CREATE VIEW recent AS SELECT i FROM t WHERE now() > '2000-01-01'",
        "CREATE MATERIALIZED VIEW momentary AS SELECT * FROM recent",
        "CREATE MATERIALIZED VIEW nested AS SELECT * FROM stale",
        "INSERT INTO t SELECT generate_series(11, 15)",
    )
    streams, result = captured(postgres.url(name), tmp_path)
    assert {key: table.rows for key, table in result.facts.tables.items()} == {
        "public.t": 15,
        "public.stale": 15,
        "public.unpopulated": 0,
    }
    assert len([warning for warning in result.warnings if "are not compared" in warning]) == 2
    found = restored(postgres.url(postgres.new_name("fresh")), streams, result.facts, tmp_path).tables
    assert {key: table.rows for key, table in found.items()} == {
        key: table.rows for key, table in result.facts.tables.items()
    }


def test_a_view_that_would_stop_the_restore_is_reported(postgres15: PostgresServer, tmp_path: Path) -> None:
    # From version 17 on such a view cannot be made any more.
    name = postgres15.new_database(
        "views",
        "CREATE TABLE t (i int)",
        "CREATE FUNCTION f() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM t); END'",
        "CREATE MATERIALIZED VIEW unqualified AS SELECT f()",
    )
    _, result = captured(postgres15.url(name), tmp_path)
    assert any("would stop at it" in warning and "unqualified" in warning for warning in result.warnings)


def test_a_sequence_is_never_lower_after_a_restore(postgres: PostgresServer, tmp_path: Path) -> None:
    name = postgres.new_database("numbers", "CREATE SEQUENCE used", "CREATE SEQUENCE unused", "SELECT nextval('used')")
    with postgres.connect(name) as other, repeating(lambda: other.execute("SELECT nextval('used')") and None):
        streams, result = captured(postgres.url(name), tmp_path)
    assert set(result.facts.sequences) == {"public.used"}
    found = restored(postgres.url(postgres.new_name("fresh")), streams, result.facts, tmp_path)
    assert found.sequences["public.used"] >= result.facts.sequences["public.used"] >= 1


def test_many_tables_are_locked_in_batches(postgres18: PostgresServer, tmp_path: Path) -> None:
    name = postgres18.new_database(
        "many",
        "DO $$ BEGIN FOR i IN 1..1100 LOOP EXECUTE format('CREATE TABLE %I (i int)', 'T ' || i); END LOOP; END $$",
    )
    _, result = captured(postgres18.url(name), tmp_path)
    assert len(result.facts.tables) == 1100


class TestRefusals:
    def role(self, server: PostgresServer, *grants: str) -> str:
        name = server.new_name("reader")
        server.run("postgres", f"CREATE ROLE {name} LOGIN PASSWORD 'pw'", *(grant.format(name) for grant in grants))
        return name

    def refusal(self, server: PostgresServer, database: str, role: str, tmp_path: Path) -> SourceError:
        url = server.url(database, role, "pw")
        with pytest.raises(SourceError) as refused:
            captured(url, tmp_path)
        assert [finding.what in str(refused.value) for finding in preflight(url) if finding.level == "error"] == [True]
        return refused.value

    def test_row_level_security_that_would_hide_rows(self, postgres: PostgresServer, tmp_path: Path) -> None:
        name = postgres.new_database(
            "rls",
            "CREATE TABLE t (i int)",
            "INSERT INTO t VALUES (1), (2)",
            "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY one ON t USING (i = 1)",
        )
        role = self.role(postgres, "GRANT pg_read_all_data TO {}")
        assert "row-level security" in str(self.refusal(postgres, name, role, tmp_path))
        postgres.run("postgres", f"ALTER ROLE {role} BYPASSRLS")
        _, result = captured(postgres.url(name, role, "pw"), tmp_path)
        assert result.facts.tables["public.t"].rows == 2

    def test_tables_and_sequences_the_role_may_not_read(self, postgres: PostgresServer, tmp_path: Path) -> None:
        name = postgres.new_database("hidden", "CREATE TABLE open (i int)", "CREATE TABLE closed (i serial)")
        role = self.role(postgres)
        postgres.run(name, f"GRANT SELECT ON open TO {role}")
        error = self.refusal(postgres, name, role, tmp_path)
        assert "public.closed" in str(error)
        assert "public.closed_i_seq" in str(error)
        assert "pg_read_all_data" in error.hint

    def test_large_objects_the_role_may_not_read(self, postgres: PostgresServer, tmp_path: Path) -> None:
        name = postgres.new_database("large", "SELECT lo_from_bytea(4711, 'abc')")
        role = self.role(postgres, "GRANT pg_read_all_data TO {}")
        assert "1 large objects" in str(self.refusal(postgres, name, role, tmp_path))
        postgres.run(name, f"GRANT SELECT ON LARGE OBJECT 4711 TO {role}")
        _, result = captured(postgres.url(name, role, "pw"), tmp_path)
        assert result.facts.tables["pg_catalog.pg_largeobject_metadata"].rows == 1

    def test_a_role_that_cannot_read_passwords_is_told(self, postgres: PostgresServer, tmp_path: Path) -> None:
        role = self.role(postgres)
        name = postgres.new_database("own")
        postgres.run("postgres", f"ALTER DATABASE {name} OWNER TO {role}")
        streams, result = captured(postgres.url(name, role, "pw"), tmp_path)
        assert any("passwords" in warning and role in warning for warning in result.warnings)
        content = b"".join(extent.data for extent in streams[0].extents)
        assert streams[0].entry.path == "globals"
        assert f'CREATE ROLE "{role}" LOGIN;'.encode() in content

    def test_rows_of_foreign_tables_are_missed(self, postgres: PostgresServer, tmp_path: Path) -> None:
        name = postgres.new_database(
            "foreign",
            "CREATE FOREIGN DATA WRAPPER nothing",
            "CREATE SERVER far FOREIGN DATA WRAPPER nothing",
            "CREATE FOREIGN TABLE away (i int) SERVER far",
        )
        _, result = captured(postgres.url(name), tmp_path)
        assert result.facts.tables == {}
        assert "public.away" in result.warnings[0]

    @pytest.mark.parametrize("user", ["postgres", "nobody_of_that_name"])
    def test_a_wrong_password_is_an_error_without_it(
        self, postgres18: PostgresServer, tmp_path: Path, user: str
    ) -> None:
        wrong = "wr0ng-and-never-shown"
        with pytest.raises(SourceError, match="authentication") as refused:
            captured(postgres18.url("postgres", user, wrong), tmp_path)
        assert wrong not in "".join(traceback.format_exception(refused.value)) + refused.value.hint
        (finding,) = preflight(postgres18.url("postgres", user, wrong))
        assert "authentication" in finding.what
        assert wrong not in finding.what + finding.do

    def test_a_pooler_in_transaction_mode(self, postgres18: PostgresServer, tmp_path: Path) -> None:
        name = postgres18.new_database("pooled", "CREATE TABLE t (i int)")
        with transaction_pooler(postgres18.url(name)) as port:
            url = f"postgresql://postgres@127.0.0.1:{port}/{name}"
            with psycopg.connect(url, autocommit=True) as alive:
                assert alive.execute("SELECT 1").fetchone() == (1,)
            with pytest.raises(SourceError, match="pooler in transaction mode"):
                captured(url, tmp_path)
            with psycopg.connect(url, autocommit=True) as after:
                assert after.execute("SHOW search_path").fetchone() == ('"$user", public',)

    def test_clients_of_other_versions_only(
        self, postgres15: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(clients, "_PATTERNS", ())
        monkeypatch.setattr(clients, "_WHEELS", ())
        monkeypatch.setenv("PATH", str(BINARIES[18]))
        with pytest.raises(SourceError, match=r"no pg_dump of version 15.*found: 18") as refused:
            captured(postgres15.url("postgres"), tmp_path)
        assert "postgresql-client-15" in refused.value.hint
        captured(postgres15.url("postgres"), tmp_path, clients=[BINARIES[15]])


class TestProcesses:
    def test_pg_dump_that_dies_is_an_error(self, postgres: PostgresServer, tmp_path: Path) -> None:
        name = postgres.new_database("big", *BIG)
        with PostgresSource(postgres.url(name)).capture(tmp_path) as capture:
            extents = dump_of(capture)
            next(extents)
            os.kill(pid_of(capture), signal.SIGKILL)
            with pytest.raises(SourceError, match="pg_dump was killed by SIGKILL"):
                list(extents)
            with pytest.raises(SourceError, match="not read to its end"):
                capture.finish()

    def test_a_lost_server_process_is_an_error(self, postgres: PostgresServer, tmp_path: Path) -> None:
        name = postgres.new_database("big", *BIG)
        end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        with PostgresSource(postgres.url(name)).capture(tmp_path) as capture:
            extents = dump_of(capture)
            next(extents)
            postgres.run("postgres", end)
            with pytest.raises(SourceError) as failed:
                list(extents)
        assert PASSWORD not in "".join(traceback.format_exception(failed.value))

    def test_giving_up_ends_pg_dump_and_frees_the_locks(self, postgres: PostgresServer, tmp_path: Path) -> None:
        name = postgres.new_database("big", *BIG)
        with PostgresSource(postgres.url(name)).capture(tmp_path) as capture:
            extents = dump_of(capture)
            next(extents)
            pid = pid_of(capture)
        assert not Path(f"/proc/{pid}").exists()
        until(lambda: not postgres.rows("postgres", f"SELECT 1 FROM pg_stat_activity WHERE datname = '{name}'"))

    def test_nothing_secret_is_on_a_command_line(self, postgres: PostgresServer, tmp_path: Path) -> None:
        name = postgres.new_database("big", *BIG)
        with PostgresSource(postgres.url(name)).capture(tmp_path) as capture:
            extents = dump_of(capture)
            next(extents)
            lines = command_lines()
            assert any("pg_dump" in line and "--snapshot" in line for line in lines)
            assert not any(PASSWORD in line for line in lines)

    def test_no_pg_dump_outlives_us(self, postgres18: PostgresServer, tmp_path: Path) -> None:
        name = postgres18.new_database("big", *BIG)
        code = (
            "import pathlib, sys, time\n"
            "from flybackup.sources.postgres import PostgresSource\n"
            "with PostgresSource(sys.stdin.readline().strip()).capture(pathlib.Path(sys.argv[1])) as capture:\n"
            "    streams = capture.streams(); next(streams); extents = next(streams).extents; next(extents)\n"
            "    print(capture._begun.program.pid, flush=True)\n"
            "    time.sleep(600)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(postgres18.url(name) + "\n")
            process.stdin.flush()
            pid = int(process.stdout.readline())
            assert b"pg_dump" in Path(f"/proc/{pid}/cmdline").read_bytes()
            process.kill()
        until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes())


def test_a_standby_is_captured_without_its_unlogged_tables(postgres: PostgresServer, tmp_path: Path) -> None:
    name = postgres.new_database(
        "primary",
        "CREATE TABLE t (i serial)",
        "INSERT INTO t DEFAULT VALUES",
        "CREATE UNLOGGED TABLE fleeting (i serial)",
    )
    with replica(postgres) as standby:
        _, result = captured(standby.url(name), tmp_path)
    assert set(result.facts.tables) == {"public.t"}
    assert result.facts.sequences == {"public.t_i_seq": 1}
    assert any("public.fleeting" in warning for warning in result.warnings)


def dump_of(capture: object) -> Iterator[object]:
    assert isinstance(capture, PostgresCapture)
    (dump,) = (stream.extents for stream in capture.streams() if stream.entry.path == "dump")
    return dump


def pid_of(capture: object) -> int:
    assert isinstance(capture, PostgresCapture)
    return capture._begun.program.pid
