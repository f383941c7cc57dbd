"""What a restore to a PostgreSQL server promises, between the versions that are here."""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest
from rigs import stored
from servers.postgres import PASSWORD, VERSIONS, PostgresServer, command_lines, server, until

from flybackup.chunking import Extent
from flybackup.errors import RefusedError, SourceError
from flybackup.model import Facts
from flybackup.sources import RestoreOptions, Stream
from flybackup.sources.postgres import PostgresSource, preflight_restore

EVERYTHING = (
    'CREATE SCHEMA "Odd ""Schema."',
    "CREATE TYPE mood AS ENUM ('sad', 'Ünïcode \u2028', 'ha''ppy')",
    "CREATE DOMAIN positive AS numeric(12, 4) CHECK (value > 0)",
    "CREATE TYPE pair AS (a int, b text)",
    """CREATE TABLE "Odd ""Schema."."T.able" (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, mood mood, amount positive, both_parts pair, sealed bytea,
        doc jsonb, at timestamptz, during tstzrange, took interval, f4 real, f8 float8, tags text[], uid uuid,
        double_amount numeric GENERATED ALWAYS AS (amount * 2) STORED, UNIQUE (uid))""",
    """INSERT INTO "Odd ""Schema."."T.able" (mood, amount, both_parts, sealed, doc, at, during, took, f4, f8, tags, uid)
       SELECT (enum_range(NULL::mood))[1 + i % 3], i + 0.125,
              (i, E'tab\\t"nl\\n\\\\'::text)::pair, decode(md5(i::text), 'hex'),
              jsonb_build_object('k', i, 'n', 1e300),
              '2026-03-08 02:30 America/New_York'::timestamptz + i * '1 h'::interval, tstzrange('2026-01-01', NULL),
              i * '1 month 2 days 3.000001 s'::interval, i / 3.0::real, 1 / (i + 0.1::float8),
              ARRAY[i::text, NULL, 'a,"b'], md5(i::text)::uuid
       FROM generate_series(1, 2000) i""",
    "CREATE TABLE events (at date NOT NULL, kind int, note text) PARTITION BY RANGE (at)",
    """CREATE TABLE events_2025 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')
       PARTITION BY LIST (kind)""",
    "CREATE TABLE events_2025_1 PARTITION OF events_2025 FOR VALUES IN (1)",
    "CREATE TABLE events_2025_rest PARTITION OF events_2025 DEFAULT",
    "CREATE TABLE events_rest PARTITION OF events DEFAULT",
    "CREATE INDEX ON events (kind)",
    "INSERT INTO events SELECT '2025-06-01'::date + i, i % 3, repeat('n', i) FROM generate_series(1, 500) i",
    "CREATE TABLE parent (i int)",
    "CREATE TABLE child (j int) INHERITS (parent)",
    "INSERT INTO parent VALUES (1)",
    "INSERT INTO child VALUES (2, 3), (4, 5)",
    """CREATE TABLE lines (id serial, t bigint REFERENCES "Odd ""Schema."."T.able", PRIMARY KEY (id))""",
    "INSERT INTO lines (t) SELECT 1 FROM generate_series(1, 10)",
    "CREATE MATERIALIZED VIEW by_kind AS SELECT kind, count(*) FROM events GROUP BY kind",
    "CREATE UNIQUE INDEX ON by_kind (kind)",
    "CREATE VIEW v AS SELECT * FROM lines",
    "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "CREATE TRIGGER noted BEFORE INSERT ON lines FOR EACH ROW EXECUTE FUNCTION noted()",
    "CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS i",
    "CREATE TABLE empty ()",
    "SELECT lo_from_bytea(0, decode(repeat('00ff', 5000), 'hex'))",
    "COMMENT ON TABLE lines IS 'it''s'",
)
PAIRS = [(a, b) for a in VERSIONS for b in VERSIONS if b == a or (a, b) in ((15, 18), (16, 17), (15, 16), (17, 18))]


@dataclasses.dataclass
class Taken:
    """A capture that can be restored several times."""

    parts: list[tuple[Stream, list[Extent]]]
    facts: Facts

    def streams(self) -> Iterator[Stream]:
        for stream, extents in self.parts:
            yield stream._replace(extents=iter(extents))


def take(url: str, scratch: Path, *, checksums: bool = False) -> Taken:
    with PostgresSource(url, checksums=checksums).capture(scratch) as capture:
        streams = stored(capture)
        return Taken([(stream, list(stream.extents)) for stream in streams], capture.finish().facts)


def bring(taken: Taken, url: str, scratch: Path, **options: object) -> tuple[Facts, tuple[str, ...]]:
    """Restore *taken* to *url* and publish it; return the probe before that, and what publishing said."""
    chosen = RestoreOptions(**{"facts": taken.facts, **options})  # type: ignore[arg-type]  # as the options take them
    with PostgresSource(url).restore(taken.streams(), chosen, scratch) as restoration:
        return restoration.probe(checksums=True), restoration.publish()


def role(on: PostgresServer, options: str = "LOGIN") -> str:
    name = on.new_name("role")
    on.run("postgres", f"CREATE ROLE {name} PASSWORD 'pw' {options}")
    return name


@pytest.mark.parametrize(("origin", "target"), PAIRS)
@pytest.mark.parametrize("jobs", [1, 4])
def test_everything_comes_back(origin: int, target: int, jobs: int, tmp_path: Path) -> None:
    name = server(origin).new_database("everything", *EVERYTHING)
    taken = take(server(origin).url(name), tmp_path, checksums=True)
    assert len(taken.facts.tables) == 13
    url = server(target).url(server(target).new_name("again"))
    found, sentences = bring(taken, url, tmp_path, jobs=jobs)
    assert found.tables == taken.facts.tables
    assert found.sequences == taken.facts.sequences
    assert sentences == ()
    assert [path.name for path in tmp_path.iterdir() if path.stat().st_size] == []
    assert PostgresSource(url).probe(checksums=True, scratch=tmp_path).tables == taken.facts.tables
    statistics = "SELECT reltuples FROM pg_class WHERE relname = 'events_2025_1'"
    assert server(target).rows(url.rsplit("/", 1)[1], statistics) != [(-1.0,)]


def test_an_older_server_is_refused(postgres15: PostgresServer, postgres18: PostgresServer, tmp_path: Path) -> None:
    taken = take(postgres18.url(postgres18.new_database("newer", "CREATE TABLE t ()")), tmp_path)
    url = postgres15.url(postgres15.new_name("older"))
    with pytest.raises(SourceError, match="older 15"):
        bring(taken, url, tmp_path)
    assert "older 15" in preflight_restore(url, taken.facts)[0].what


def test_a_missing_extension_is_told_before_anything_is_read(postgres18: PostgresServer, tmp_path: Path) -> None:
    facts = Facts(details={"client_version": "18.0", "extensions": "plpgsql=1.0, from_mars=2.1"})
    unread: Iterator[Stream] = (pytest.fail("the snapshot was read") for _ in [0])
    url = postgres18.url(postgres18.new_name("target"))
    restoring = PostgresSource(url).restore(unread, RestoreOptions(facts=facts), tmp_path)
    with pytest.raises(SourceError, match="from_mars") as refused:
        restoring.__enter__()
    # Another test's restore may have left something on the shared server, of which a warning tells.
    (error,) = (finding for finding in preflight_restore(url, facts) if finding.level == "error")
    assert error.what in str(refused.value)


def test_an_unknown_locale_is_replaced_and_said(postgres18: PostgresServer, tmp_path: Path) -> None:
    taken = take(postgres18.url(postgres18.new_database("local", "CREATE TABLE t ()")), tmp_path)
    facts = dataclasses.replace(taken.facts, details={**taken.facts.details, "collate": "xx_YY", "ctype": "xx_YY"})
    name = postgres18.new_name("plain")
    _, sentences = bring(taken, postgres18.url(name), tmp_path, facts=facts)
    assert "original locale" in sentences[0]
    assert postgres18.rows(name, "SELECT datcollate FROM pg_database WHERE datname = current_database()") == [("C",)]


class TestReplacing:
    def test_the_old_database_is_kept_and_the_undo_works(
        self, postgres: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        reader = role(postgres)
        taken = take(postgres.url(postgres.new_database("source", "CREATE TABLE t AS SELECT 1 AS i")), tmp_path)
        name = postgres.new_database("live", "CREATE TABLE t AS SELECT generate_series(1, 5) AS i")
        postgres.run(
            "postgres", f"ALTER DATABASE {name} SET work_mem = '7MB'", f"ALTER DATABASE {name} OWNER TO {reader}"
        )
        postgres.run("postgres", f"ALTER ROLE {reader} IN DATABASE {name} SET my.own = 'x''y'")
        postgres.run("postgres", f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")
        rights = "SELECT ARRAY(SELECT unnest(datacl)::text ORDER BY 1), datdba, datallowconn FROM pg_database"
        rights += f" WHERE datname = '{name}'"
        before = postgres.rows("postgres", rights)
        with postgres.connect(name) as application, caplog.at_level(logging.WARNING, "flybackup"):
            _, sentences = bring(taken, postgres.url(name), tmp_path, replace=True)
            with pytest.raises(psycopg.OperationalError):
                application.execute("SELECT 1")
        assert postgres.rows(name, "SELECT count(*) FROM t") == [(1,)]
        assert postgres.rows(name, "SHOW work_mem") == [("7MB",)]
        assert postgres.rows("postgres", rights) == before
        with postgres.connect(name, reader, "pw") as session:
            assert session.execute("SHOW my.own").fetchone() == ("x'y",)
        (undo,) = (sentence.split("run: ")[1] for sentence in sentences if sentence.startswith("to undo"))
        assert undo in caplog.text
        postgres.run("postgres", *undo.rstrip(";").split(";"))
        assert postgres.rows(name, "SELECT count(*) FROM t") == [(5,)]
        assert postgres.rows("postgres", rights) == before

    def test_without_being_told_it_is_refused(self, postgres: PostgresServer, tmp_path: Path) -> None:
        name = postgres.new_database("live", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        with pytest.raises(RefusedError, match="not empty") as refused:
            bring(Taken([], Facts()), postgres.url(name), tmp_path)
        assert refused.value.exit_code == 24
        assert "--replace" in refused.value.hint

    def test_a_swap_that_fails_changes_nothing(self, postgres: PostgresServer, tmp_path: Path) -> None:
        taken = take(postgres.url(postgres.new_database("source", "CREATE TABLE t AS SELECT 1 AS i")), tmp_path)
        name = postgres.new_database("live", "CREATE TABLE t (i int)")
        there = postgres.databases()
        options = RestoreOptions(facts=taken.facts, replace=True)
        with PostgresSource(postgres.url(name)).restore(taken.streams(), options, tmp_path) as restoration:
            postgres.run(name, "BEGIN", "INSERT INTO t VALUES (1)", f"PREPARE TRANSACTION '{name}'")
            with pytest.raises(RefusedError, match="prepared transaction"):
                restoration.publish()
        postgres.run(name, f"COMMIT PREPARED '{name}'")
        assert postgres.rows(name, "SELECT count(*) FROM t") == [(1,)]
        assert postgres.databases() == there

    def test_a_session_that_may_not_be_ended_stops_the_swap(self, postgres18: PostgresServer, tmp_path: Path) -> None:
        postgres = postgres18
        creator = role(postgres, "LOGIN CREATEDB")
        taken = take(postgres.url(postgres.new_database("source", "CREATE TABLE t AS SELECT 1 AS i")), tmp_path)
        name = postgres.new_database("live", "CREATE TABLE t (i int)")
        postgres.run("postgres", f"ALTER DATABASE {name} OWNER TO {creator}")
        there = postgres.databases()
        with postgres.connect(name) as superuser:
            with pytest.raises(RefusedError, match="1 other session"):
                bring(taken, postgres.url(name, creator, "pw"), tmp_path, replace=True)
            assert superuser.execute("SELECT count(*) FROM t").fetchone() == (0,)
        assert postgres.rows(name, "SELECT count(*) FROM t") == [(0,)]
        assert postgres.databases() == there

    def test_an_empty_database_is_replaced_without_being_told(self, postgres: PostgresServer, tmp_path: Path) -> None:
        taken = take(postgres.url(postgres.new_database("source", "CREATE TABLE t AS SELECT 1 AS i")), tmp_path)
        name = postgres.new_database("empty")
        there = postgres.databases()
        assert bring(taken, postgres.url(name), tmp_path)[1] == ()
        assert postgres.rows(name, "SELECT count(*) FROM t") == [(1,)]
        assert postgres.databases() == there


class TestInside:
    """Where databases may not be created."""

    @pytest.fixture
    def place(self, postgres: PostgresServer) -> str:
        owner = role(postgres)
        name = postgres.new_database("managed")
        postgres.run("postgres", f"ALTER DATABASE {name} OWNER TO {owner}")
        postgres.run(name, f"GRANT CREATE ON SCHEMA public TO {owner}")
        return postgres.url(name, owner, "pw")

    @pytest.fixture
    def taken(self, postgres: PostgresServer, tmp_path: Path) -> Taken:
        return take(postgres.url(postgres.new_database("everything", *EVERYTHING)), tmp_path, checksums=True)

    @pytest.mark.parametrize("jobs", [1, 4])
    def test_an_empty_database_is_filled(self, place: str, taken: Taken, tmp_path: Path, jobs: int) -> None:
        found, sentences = bring(taken, place, tmp_path, jobs=jobs)
        assert found.tables == taken.facts.tables
        assert any("owners and grants were not restored" in sentence for sentence in sentences)
        assert PostgresSource(place).probe(checksums=True, scratch=tmp_path).tables == taken.facts.tables
        with pytest.raises(RefusedError, match="not empty"):
            bring(taken, place, tmp_path)
        with pytest.raises(RefusedError, match="may not create databases"):
            bring(taken, place, tmp_path, replace=True)

    def test_what_is_not_published_is_removed_again(self, place: str, taken: Taken, tmp_path: Path) -> None:
        for _ in range(2):  # it is empty again, so the second time works as the first
            with PostgresSource(place).restore(
                taken.streams(), RestoreOptions(facts=taken.facts), tmp_path
            ) as restoration:
                assert restoration.probe(checksums=False).tables.keys() == taken.facts.tables.keys()
        assert PostgresSource(place).probe(checksums=False, scratch=tmp_path).tables == {}

    @pytest.mark.parametrize("jobs", [1, 2])
    def test_half_a_dump_leaves_nothing(self, place: str, taken: Taken, tmp_path: Path, jobs: int) -> None:
        with pytest.raises(SourceError):
            bring(halved(taken), place, tmp_path, jobs=jobs)
        assert PostgresSource(place).probe(checksums=False, scratch=tmp_path).tables == {}

    def test_a_database_that_is_not_there_is_asked_for(self, place: str, taken: Taken, tmp_path: Path) -> None:
        with pytest.raises(RefusedError, match="does not exist"):
            bring(taken, place + "_elsewhere", tmp_path)


def halved(taken: Taken) -> Taken:
    *others, (dump, extents) = taken.parts
    content = b"".join(extent.data for extent in extents)
    half = content[: len(content) // 2]
    return Taken(
        [*others, (dump._replace(entry=msgspec.structs.replace(dump.entry, size=len(half))), [Extent(0, half)])],
        taken.facts,
    )


@pytest.mark.parametrize("jobs", [1, 2])
def test_half_a_dump_is_an_error_and_leaves_nothing(postgres: PostgresServer, tmp_path: Path, jobs: int) -> None:
    taken = take(postgres.url(postgres.new_database("everything", *EVERYTHING)), tmp_path)
    there = postgres.databases()
    with pytest.raises(SourceError, match="pg_restore"):
        bring(halved(taken), postgres.url(postgres.new_name("half")), tmp_path, jobs=jobs)
    assert postgres.databases() == there


def test_nothing_secret_is_on_a_command_line(postgres18: PostgresServer, tmp_path: Path) -> None:
    taken = take(postgres18.url(postgres18.new_database("source", "CREATE TABLE t AS SELECT 1 AS i")), tmp_path)
    seen: list[str] = []

    def watched() -> Iterator[Stream]:
        globals_stream, dump = taken.streams()
        yield globals_stream

        def extents() -> Iterator[Extent]:
            (whole,) = dump.extents
            yield Extent(0, whole.data[:100])
            # A program that was just started has no command line yet, for a moment.
            until(lambda: any("pg_restore" in line for line in command_lines()))
            seen.extend(command_lines())
            yield Extent(100, whole.data[100:])

        yield dump._replace(extents=extents())

    with PostgresSource(postgres18.url(postgres18.new_name("new"))).restore(
        watched(), RestoreOptions(facts=taken.facts), tmp_path
    ) as restoration:
        assert restoration.probe(checksums=False).tables["public.t"].rows == 1
    assert any("pg_restore" in line for line in seen)
    assert not any(PASSWORD in line for line in seen)


class TestRoles:
    def test_missing_roles_are_made_with_all_they_had(
        self, postgres15: PostgresServer, postgres18: PostgresServer, tmp_path: Path
    ) -> None:
        group, owner = (
            role(postgres15, "NOLOGIN"),
            role(postgres15, "LOGIN CREATEDB CONNECTION LIMIT 7 VALID UNTIL '2099-01-01'"),
        )
        postgres15.run(
            "postgres",
            f"GRANT {group} TO {owner}",
            f"ALTER ROLE {owner} SET search_path = 'a', \"B c\"",
            f"COMMENT ON ROLE {owner} IS 'two\nlines'",
        )
        name = postgres15.new_database("owned", "CREATE TABLE t (i int)", f"ALTER TABLE t OWNER TO {owner}")
        postgres15.run(name, f"GRANT SELECT ON t TO {group}")
        postgres15.run(
            "postgres",
            f"ALTER DATABASE {name} OWNER TO {owner}",
            f"GRANT CREATE ON DATABASE {name} TO {group} WITH GRANT OPTION",
            f"COMMENT ON DATABASE {name} IS 'main'",
        )
        taken = take(postgres15.url(name), tmp_path)
        assert any(owner in finding.what for finding in preflight_restore(postgres18.url(name), taken.facts))
        _, sentences = bring(taken, postgres18.url(name), tmp_path)
        assert [sentence for sentence in sentences if owner in sentence and group in sentence]
        assert not any("no password" in sentence for sentence in sentences if owner in sentence)
        with postgres18.connect(name, owner, "pw") as session:
            assert session.execute("SHOW search_path").fetchone() == ('a, "B c"',)
            assert session.execute(f"SELECT pg_has_role('{group}', 'MEMBER')").fetchone() == (True,)
        rights = (
            "SELECT relowner::regrole::text, has_table_privilege('{}', oid, 'SELECT') FROM pg_class WHERE relname = 't'"
        )
        assert postgres18.rows(name, rights.format(group)) == [(owner, True)]
        assert postgres18.rows(
            name,
            "SELECT datdba::regrole::text, shobj_description(oid, 'pg_database'),"
            f" has_database_privilege('{group}', oid, 'CREATE WITH GRANT OPTION')"
            f" FROM pg_database WHERE datname = '{name}'",
        ) == [(owner, "main", True)]
        kept = (
            "SELECT rolcreatedb, rolconnlimit, shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = '{}'"
        )
        assert postgres18.rows("postgres", kept.format(owner)) == [(True, 7, "two\nlines")]

    def test_existing_roles_are_never_touched(
        self, postgres15: PostgresServer, postgres18: PostgresServer, tmp_path: Path
    ) -> None:
        name = role(postgres15, "LOGIN CREATEDB SUPERUSER")
        postgres18.run("postgres", f"CREATE ROLE {name} LOGIN PASSWORD 'other'")
        taken = take(postgres15.url(postgres15.new_database("db", "CREATE TABLE t ()")), tmp_path)
        _, sentences = bring(taken, postgres18.url(postgres18.new_name("db")), tmp_path)
        assert not any(name in sentence for sentence in sentences)
        state = f"SELECT rolcreatedb, rolsuper FROM pg_roles WHERE rolname = '{name}'"
        assert postgres18.rows("postgres", state) == [(False, False)]
        with postgres18.connect("postgres", name, "other"):
            pass

    def test_roles_without_passwords_are_named(
        self, postgres15: PostgresServer, postgres18: PostgresServer, tmp_path: Path
    ) -> None:
        owner = role(postgres15)
        name = postgres15.new_database("db")
        postgres15.run("postgres", f"ALTER DATABASE {name} OWNER TO {owner}")
        taken = take(postgres15.url(name, owner, "pw"), tmp_path)
        _, sentences = bring(taken, postgres18.url(name), tmp_path)
        assert any("no password" in sentence and owner in sentence for sentence in sentences)

    def test_who_is_no_superuser_owns_what_is_restored(self, postgres: PostgresServer, tmp_path: Path) -> None:
        other, creator = role(postgres), role(postgres, "LOGIN CREATEDB")
        name = postgres.new_database("db", "CREATE TABLE t (i int)", f"ALTER TABLE t OWNER TO {other}")
        taken = take(postgres.url(name), tmp_path)
        target = postgres.new_name("mine")
        _, sentences = bring(taken, postgres.url(target, creator, "pw"), tmp_path)
        assert any(f"{creator} owns everything" in sentence for sentence in sentences)
        assert postgres.rows(target, "SELECT relowner::regrole::text FROM pg_class WHERE relname = 't'") == [(creator,)]


class TestTables:
    @pytest.fixture
    def taken(self, postgres: PostgresServer, tmp_path: Path) -> Taken:
        return take(postgres.url(postgres.new_database("everything", *EVERYTHING)), tmp_path, checksums=True)

    @pytest.mark.parametrize("jobs", [1, 3])
    def test_beside_the_live_ones(self, postgres: PostgresServer, taken: Taken, tmp_path: Path, jobs: int) -> None:
        name = postgres.new_database("live", *EVERYTHING, "DELETE FROM lines", "DELETE FROM events")
        there = postgres.databases()
        found, sentences = bring(taken, postgres.url(name), tmp_path, tables=["lines", "public.events"], jobs=jobs)
        family = {"public.lines", "public.events", "public.events_2025", "public.events_2025_1"}
        family |= {"public.events_2025_rest", "public.events_rest"}
        assert found.tables == {key: taken.facts.tables[key] for key in family}
        assert found.sequences == {"public.lines_id_seq": 10}
        assert postgres.databases() == there
        (schema,) = (
            n for (n,) in postgres.rows(name, "SELECT nspname FROM pg_namespace") if n.startswith("flybackup_")
        )
        assert any(f"public.lines is {schema}.lines" in sentence for sentence in sentences)
        assert postgres.rows(
            name, f"SELECT (SELECT count(*) FROM {schema}.lines), (SELECT count(*) FROM public.lines)"
        ) == [(10, 0)]
        assert postgres.rows(name, f"INSERT INTO {schema}.lines (t) VALUES (999) RETURNING id") == [(11,)]
        assert postgres.rows(name, f"SELECT count(*) FROM {schema}.events") == [(500,)]
        indexes = f"SELECT count(*) FROM pg_indexes WHERE schemaname = '{schema}'"
        assert postgres.rows(name, indexes) == [(1 + 5,)]
        (undo,) = (sentence.split("run: ")[1] for sentence in sentences if sentence.startswith("to undo"))
        postgres.run(name, undo)
        assert not postgres.rows(name, "SELECT 1 FROM pg_namespace WHERE nspname LIKE 'flybackup%'")

    def test_of_several_schemas_with_odd_names_and_own_types(
        self, postgres: PostgresServer, taken: Taken, tmp_path: Path
    ) -> None:
        name = postgres.new_database("live", *EVERYTHING)
        odd = '"Odd ""Schema."."T.able"'
        bring(taken, postgres.url(name), tmp_path, tables=[odd, "lines"])
        schemas = {n for (n,) in postgres.rows(name, "SELECT nspname FROM pg_namespace") if n.startswith("flybackup_")}
        assert {schema.split("_", 4)[4] for schema in schemas} == {"public", 'Odd "Schema.'}
        restored = next(schema for schema in schemas if schema.endswith("."))
        quoted = '"' + restored.replace('"', '""') + '"'
        columns = "id, mood::text, amount, sealed, doc, f4, f8, tags, double_amount"
        ours = postgres.rows(name, f'SELECT {columns} FROM {quoted}."T.able" ORDER BY id')
        assert ours == postgres.rows(name, f"SELECT {columns} FROM {odd} ORDER BY id")

    def test_into_a_new_database(self, postgres: PostgresServer, taken: Taken, tmp_path: Path) -> None:
        name = postgres.new_name("part")
        bring(taken, postgres.url(name), tmp_path, tables=["lines"])
        found = PostgresSource(postgres.url(name)).probe(checksums=True, scratch=tmp_path)
        assert found.tables == {"public.lines": taken.facts.tables["public.lines"]}

    def test_a_failed_copy_leaves_the_target_as_it_was(
        self, postgres: PostgresServer, taken: Taken, tmp_path: Path
    ) -> None:
        # Its types are in a schema that this target does not have.
        name = postgres.new_database("other", "CREATE TABLE mine (i int)")
        there = postgres.databases()
        with pytest.raises(SourceError, match="pg_restore"):
            bring(taken, postgres.url(name), tmp_path, tables=['"Odd ""Schema."."T.able"'])
        assert not postgres.rows(name, "SELECT 1 FROM pg_namespace WHERE nspname LIKE 'flybackup%'")
        assert postgres.databases() == there

    def test_views_cannot_be_chosen(self, postgres18: PostgresServer, tmp_path: Path) -> None:
        taken = take(postgres18.url(postgres18.new_database("everything", *EVERYTHING)), tmp_path)
        with pytest.raises(SourceError, match=r"no table public\.by_kind"):
            bring(taken, postgres18.url(postgres18.new_name("part")), tmp_path, tables=["by_kind"])
