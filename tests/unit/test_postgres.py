from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, strategies as st

from flybackup.chunking import Extent
from flybackup.errors import ConfigError, RefusedError, SourceError
from flybackup.model import Entry, Facts, TableFacts, table_key
from flybackup.sources import Stream
from flybackup.sources.postgres import clients, facts, globals as cluster, obstacles, pooler, selection, swap, target
from flybackup.sources.postgres.capture import archive_version
from flybackup.sources.postgres.catalog import Kind, Relation, Server
from flybackup.sources.postgres.clients import Client
from flybackup.sources.postgres.connection import parse, redact
from flybackup.sources.postgres.facts import Tally
from flybackup.sources.postgres.obstacles import Measured, Target
from flybackup.sources.postgres.quoting import identifier, list_items, literal, name_beside, setting_value
from flybackup.sources.postgres.target import State
from flybackup.sources.programs.arrival import in_order, spooled


def installed(tmp_path: Path, *majors: int) -> list[Client]:
    return [Client(major, 1, tmp_path / str(major)) for major in majors]


class TestClients:
    def test_a_dump_is_made_by_the_servers_own_version(self, tmp_path: Path) -> None:
        assert clients.for_dump(16, installed(tmp_path, 18, 16, 15)).major == 16

    @pytest.mark.parametrize("others", [(17, 18), (15,), ()])
    def test_any_other_version_is_refused_and_the_right_one_named(
        self, tmp_path: Path, others: tuple[int, ...]
    ) -> None:
        with pytest.raises(SourceError, match="version 16") as refused:
            clients.for_dump(16, installed(tmp_path, *others))
        assert "postgresql-client-16" in refused.value.hint

    @pytest.mark.parametrize(
        ("dump", "server", "there", "chosen"),
        [(15, 18, (18, 17, 15), 15), (15, 18, (18, 17, 14), 17), (18, 18, (18,), 18)],
    )
    def test_a_restore_takes_the_oldest_that_reads_the_dump(
        self, tmp_path: Path, dump: int, server: int, there: tuple[int, ...], chosen: int
    ) -> None:
        assert clients.for_restore(dump, server, installed(tmp_path, *there)).major == chosen

    @pytest.mark.parametrize("there", [(14, 18), ()])
    def test_a_restore_never_takes_one_newer_than_the_server(self, tmp_path: Path, there: tuple[int, ...]) -> None:
        with pytest.raises(SourceError, match="from version 15 to 17"):
            clients.for_restore(15, 17, installed(tmp_path, *there))

    def test_an_older_server_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="older 15"):
            clients.for_restore(18, 15, installed(tmp_path, 15, 18))

    def test_a_directory_of_two_versions_or_broken_programs_is_none(self, tmp_path: Path) -> None:
        for name, version in (("pg_dump", "18.1"), ("pg_restore", "17.1")):
            (tmp_path / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
            (tmp_path / name).chmod(0o755)
        assert tmp_path not in [client.directory for client in clients.installed([tmp_path])]

    def test_named_directories_come_first(self, tmp_path: Path) -> None:
        for name in ("pg_dump", "pg_restore"):
            (tmp_path / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) 18.0 (Debian)'\n")
            (tmp_path / name).chmod(0o755)
        assert clients.for_dump(18, clients.installed([tmp_path])).directory == tmp_path


class TestAddress:
    SECRET = "pä/ss@w%rd"
    URL = "postgresql://app:p%C3%A4%2Fss%40w%25rd@db.internal:5433/main?sslmode=require&keepalives_idle=30"

    def test_the_password_is_in_nothing_that_is_shown(self) -> None:
        address = parse(self.URL)
        assert address.parameters["password"] == self.SECRET
        shown = [address.url, redact(self.URL), repr(address), address.argument(), str(address)]
        assert not any(part in text for text in shown for part in ("pä", "w%", "%C3")), shown
        assert address.url == "postgresql://app@db.internal:5433/main"
        assert address.scrub(f"no: {self.SECRET}, p%C3%A4%2Fss%40w%25rd") == "no: ***, ***"

    def test_programs_get_it_in_their_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FLYBACKUP_PASSPHRASE", "not for others")
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
        environment = parse(self.URL).environment()
        assert environment["PGPASSWORD"] == self.SECRET
        assert (environment["PGHOST"], environment["PGPORT"], environment["PGSSLMODE"]) == (
            "db.internal",
            "5433",
            "require",
        )
        assert not {"FLYBACKUP_PASSPHRASE", "PGCLIENTENCODING"} & set(environment)
        assert parse(self.URL).argument() == "dbname=main keepalives_idle=30"

    def test_a_database_that_looks_like_a_connection_string_is_a_name(self) -> None:
        name = "x=1 host=evil 'y"
        assert parse(parse(f"postgresql://h/{'x%3D1%20host%3Devil%20%27y'}").url).database == name
        assert parse("postgresql://h/db").naming(name).argument() == r"dbname='x=1 host=evil \'y'"

    @pytest.mark.parametrize(
        "url", ["mysql://x/y", "host=x dbname=y", "postgresql://u:se%zzcret@h/d", "postgresql://h?sslpassword=secret"]
    )
    def test_what_cannot_be_is_refused_without_quoting_it(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PGDATABASE", raising=False)
        with pytest.raises(ConfigError) as refused:
            parse(url)
        assert "cret" not in f"{refused.value} {refused.value.hint}"
        assert refused.value.__suppress_context__ or refused.value.__context__ is None
        assert "cret" not in redact(url)

    def test_the_database_must_be_named_somewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("PGDATABASE", "PGUSER"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(ConfigError, match="names no database"):
            parse("postgresql://host")
        monkeypatch.setenv("PGDATABASE", "main")
        assert parse("postgresql://host").database == "main"


class TestPreflight:
    SERVER = Server(150_004, standby=False)

    def test_a_good_database_gives_no_findings(self) -> None:
        assert obstacles.judge(Measured(server=self.SERVER, role="r")) == []

    @pytest.mark.parametrize(
        ("field", "value", "level", "word"),
        [
            ("row_security", ["a.b"], "error", "BYPASSRLS"),
            ("unreadable", ["a.b"], "error", "pg_read_all_data"),
            ("large_objects_unreadable", 3, "error", "LARGE OBJECT"),
            ("foreign", ["a.b"], "warning", "that server"),
            ("server", Server(120_001, standby=False), "error", "13"),
        ],
    )
    def test_each_obstacle_is_named_with_its_remedy(self, field: str, value: Any, level: str, word: str) -> None:
        (finding,) = obstacles.judge(Measured(**{"server": self.SERVER, "role": "r", field: value}))
        assert finding.level == level
        assert word in finding.do

    def test_unlogged_tables_matter_on_a_standby_only(self) -> None:
        assert obstacles.judge(Measured(server=self.SERVER, role="r", unlogged=["a.b"])) == []
        assert obstacles.judge(Measured(server=Server(150_004, standby=True), role="r", unlogged=["a.b"]))

    def test_long_lists_are_cut(self) -> None:
        (finding,) = obstacles.judge(Measured(server=self.SERVER, role="r", unreadable=[f"t{i}" for i in range(9)]))
        assert "t4 and 4 more" in finding.what

    def target(self, **changes: Any) -> Target:
        values = {
            "superuser": True,
            "can_create_databases": True,
            "extensions": frozenset({"plpgsql"}),
            "roles": frozenset({"app"}),
        }
        return Target(**{"server": self.SERVER, "role": "me", **values, **changes})

    def test_a_target_is_judged_by_the_facts_of_the_snapshot(self) -> None:
        details = {"client_version": "15.4", "extensions": "plpgsql=1.0", "roles": '["app"]'}
        assert obstacles.judge_target(self.target(), Facts(details=details)) == []
        lacking = details | {
            "client_version": "18.0",
            "extensions": "plpgsql=1.0, vector=0.8.0",
            "roles": '["app", "x"]',
        }
        found = obstacles.judge_target(self.target(can_create_databases=False), Facts(details=lacking))
        assert [finding.level for finding in found] == ["error", "error", "warning", "warning"]
        assert ["18" in found[0].what, "vector" in found[1].what, "x" in found[3].what] == [True, True, True]

    def test_what_a_killed_restore_left_is_named(self) -> None:
        (finding,) = obstacles.judge_target(self.target(unfinished=["app__flybackup_0badcafe"]), Facts())
        assert finding.level == "warning"
        assert "app__flybackup_0badcafe" in finding.what

    def test_ownership_needs_a_superuser_and_the_roles(self) -> None:
        wants = Facts(details={"roles": '["app", "x"]'})
        assert "no superuser" in obstacles.why_no_owners(self.target(superuser=False), wants)
        assert "x" in obstacles.why_no_owners(self.target(), wants)
        assert obstacles.why_no_owners(self.target(roles=frozenset({"app", "x"})), wants) == ""


class TestPooler:
    @pytest.mark.parametrize(("seen", "pooled"), [([1, 2, 1], False), ([1, 1, 1], True), ([1, 2, 3], True)])
    def test_two_clients_must_keep_a_server_process_each(self, seen: list[int], pooled: bool) -> None:
        assert pooler.pooled(seen) is pooled

    @pytest.mark.parametrize(
        ("host", "port", "word"),
        [
            ("pgbouncer.abc.flympg.net", 5432, "direct.abc.flympg.net"),
            ("ep-x-pooler.eu.neon.tech", 5432, "ep-x.eu.neon.tech"),
            ("db.internal", 6432, "5432"),
            ("db.internal", 5432, "session mode"),
        ],
    )
    def test_advice_speaks_the_services_language(self, host: str, port: int, word: str) -> None:
        assert word in pooler.advice(host, port)


class TestTarget:
    def state(self, *, exists: bool = True, empty: bool = False, owned: bool = True, create: bool = True) -> State:
        server = Target(
            server=Server(180_000, standby=False),
            role="me",
            superuser=False,
            can_create_databases=create,
            extensions=frozenset(),
            roles=frozenset(),
        )
        return State(server=server, exists=exists, empty=empty, owned=owned)

    @pytest.mark.parametrize(
        ("state", "options", "place"),
        [
            ({"exists": False}, {}, "new"),
            ({"exists": False}, {"tables": ["t"]}, "new"),
            ({"empty": True}, {}, "swap"),
            ({"empty": True, "create": False}, {}, "inside"),
            ({"empty": True, "owned": False}, {}, "inside"),
            ({}, {"replace": True}, "swap"),
            ({}, {"tables": ["t"]}, "schema"),
        ],
    )
    def test_where_a_restore_goes(self, state: dict[str, bool], options: dict[str, Any], place: str) -> None:
        assert target.decide(self.state(**state), "app", **{"replace": False, "tables": (), **options}) == place

    @pytest.mark.parametrize(
        ("state", "options"),
        [
            ({"exists": False, "create": False}, {}),
            ({}, {}),
            ({"create": False}, {"replace": True}),
            ({"owned": False}, {"replace": True}),
            ({"create": False}, {"tables": ["t"]}),
        ],
    )
    def test_what_could_destroy_something_is_refused(self, state: dict[str, bool], options: dict[str, Any]) -> None:
        with pytest.raises(RefusedError) as refused:
            target.decide(self.state(**state), "app", **{"replace": False, "tables": (), **options})
        assert refused.value.hint

    def test_a_name_beside_fits_and_splits_no_character(self) -> None:
        name = name_beside("ü" * 31, "restore_1")
        assert len(name.encode()) <= 63
        assert name.endswith("ü__restore_1")

    def test_the_locale_is_kept_where_the_server_has_it(self) -> None:
        details = {
            "encoding": "UTF8",
            "collate": "de_DE.utf8",
            "ctype": "de_DE.utf8",
            "provider": "i",
            "locale": "de'x",
        }
        faithful, plain = swap.creations("a", details, 18)
        assert "LOCALE_PROVIDER icu" in faithful
        assert "ICU_LOCALE 'de''x'" in faithful
        assert plain.endswith("LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'")
        assert "PROVIDER" not in swap.creations("a", {"encoding": "UTF8"}, 14)[0]


class TestFacts:
    def relation(self, oid: int, kind: Kind = "r", parent: int | None = None) -> Relation:
        return Relation(oid=oid, schema="s", name=f"t{oid}", kind=kind, unlogged=False, populated=True, parent=parent)

    def test_a_partitioned_table_has_the_rows_of_all_below(self) -> None:
        tree = [self.relation(1, "p"), self.relation(2, "p", 1), self.relation(3, "r", 2), self.relation(4, "r", 1)]
        totals = facts.sum_by_parent(tree, {3: Tally(10, 1, 2), 4: Tally(5, 7, 8)})
        assert totals == {1: Tally(15, 8, 10), 2: Tally(10, 1, 2)}

    def test_a_checksum_has_one_length(self) -> None:
        assert facts.digest(-1, 2**70 + 5) == "h1:ffffffffffffffff0000000000000005"

    def test_a_standby_does_not_count_unlogged_tables(self) -> None:
        unlogged = Relation(oid=1, schema="s", name="t", kind="r", unlogged=True, populated=True, parent=None)
        assert facts.countable([unlogged, self.relation(2, "f")], standby=False) == [unlogged]
        assert facts.countable([unlogged], standby=True) == []


class TestQuoting:
    def test_names_and_values_stay_on_one_line(self) -> None:
        assert identifier('a"b') == '"a""b"'
        assert identifier("a\nb\\") == 'U&"a\\000ab\\\\"'
        assert identifier("my.setting", dotted=True) == '"my"."setting"'
        assert literal("it's") == "'it''s'"
        assert literal("a\n\\") == "E'a\\x0a\\\\'"

    def test_lists_become_a_literal_each(self) -> None:
        assert list_items('"$user", public,"a,""b"') == ["$user", "public", 'a,"b']
        assert setting_value("search_path", '"$user", public') == "'$user', 'public'"
        assert setting_value("search_path", "") == "''"
        assert setting_value("work_mem", "1, 2") == "'1, 2'"

    @given(st.lists(st.text(st.characters(exclude_characters="\x00"), min_size=1), max_size=5))
    def test_a_stored_list_is_read_back(self, names: list[str]) -> None:
        stored = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
        assert list_items(stored) == names


class TestGlobals:
    ROLE = cluster.Role(
        name="app",
        superuser=False,
        inherit=True,
        createrole=False,
        createdb=True,
        login=True,
        replication=False,
        bypassrls=False,
        password="SCRAM-SHA-256$x",
        comment="two\nlines",
    )
    ALL = cluster.Globals(
        roles=[ROLE],
        memberships=[cluster.Membership(role="readers", member="app", admin=True, inherit=True, set=False)],
        settings=[
            cluster.Setting(role=None, here=True, name="work_mem", value="8MB"),
            cluster.Setting(role="app", here=True, name="search_path", value="a, b"),
            cluster.Setting(role="app", here=False, name="my.own", value="x'y"),
        ],
        database=cluster.Database(
            name="main", owner="app", grants=[cluster.Grant(grantee=None, privilege="CONNECT", grantable=False)]
        ),
        passwords=True,
    )

    def test_the_file_is_sql_and_is_read_back(self) -> None:
        content = cluster.dump(self.ALL)
        assert cluster.load(content) == self.ALL
        statements = [line for line in content.decode().splitlines() if not line.startswith("--")]
        assert statements == [
            """CREATE ROLE "app" CREATEDB LOGIN PASSWORD 'SCRAM-SHA-256$x';""",
            """COMMENT ON ROLE "app" IS E'two\\x0alines';""",
            'GRANT "readers" TO "app" WITH ADMIN TRUE, INHERIT TRUE, SET FALSE;',
            """ALTER ROLE "app" SET "my"."own" TO 'x''y';""",
            'ALTER DATABASE "main" OWNER TO "app";',
            """ALTER DATABASE "main" SET "work_mem" TO '8MB';""",
            """ALTER ROLE "app" IN DATABASE "main" SET "search_path" TO 'a', 'b';""",
            'REVOKE ALL ON DATABASE "main" FROM PUBLIC;',
            'GRANT CONNECT ON DATABASE "main" TO PUBLIC;',
        ]

    @pytest.mark.parametrize(
        "content", [b"", b"-- flybackup globals 2 {}", b"-- flybackup globals 1 {", b"DROP ROLE x;"]
    )
    def test_anything_else_is_refused(self, content: bytes) -> None:
        with pytest.raises(SourceError):
            cluster.load(content)


def stream(*extents: tuple[int, bytes], size: int) -> Stream:
    return Stream(Entry(path="dump", kind="dump", size=size), iter([Extent(*extent) for extent in extents]))


class TestArrival:
    @given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10), st.randoms(use_true_random=False))
    def test_any_order_gives_the_bytes_in_order(
        self, tmp_path_factory: pytest.TempPathFactory, content: bytes, cuts: list[int], random: Random
    ) -> None:
        bounds = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
        pieces = [(a, content[a:b]) for a, b in pairwise(bounds)]
        random.shuffle(pieces)
        directory = tmp_path_factory.mktemp("arrival")
        assert b"".join(in_order(stream(*pieces, size=len(content)), directory)) == content
        assert spooled(stream(*pieces, size=len(content)), directory / "file").read_bytes() == content

    def test_holes_are_zeros(self, tmp_path: Path) -> None:
        given = [(6, b"b"), (0, b"a")]
        assert b"".join(in_order(stream(*given, size=9), tmp_path)) == b"a\0\0\0\0\0b\0\0"
        assert spooled(stream(*given, size=9), tmp_path / "file").read_bytes() == b"a\0\0\0\0\0b\0\0"

    def test_bytes_given_twice_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="twice"):
            list(in_order(stream((0, b"ab"), (1, b"b"), size=2), tmp_path))

    def test_the_spool_is_private(self, tmp_path: Path) -> None:
        assert spooled(stream((0, b"x"), size=1), tmp_path / "file").stat().st_mode & 0o777 == 0o600


class TestSelection:
    FACTS = Facts(tables={key: TableFacts(rows=1) for key in ("public.users", "public.logs", "old.logs", 'old."a.b"')})

    def test_a_table_is_named_fully_or_by_a_name_that_one_schema_has(self) -> None:
        assert selection.resolve(["users", "old.logs", 'old."a.b"'], self.FACTS) == [
            ("public", "users"),
            ("old", "logs"),
            ("old", "a.b"),
        ]

    @pytest.mark.parametrize(("name", "word"), [("logs", "old.logs"), ("nope", "public.users")])
    def test_anything_else_is_refused_with_the_names_there_are(self, name: str, word: str) -> None:
        with pytest.raises(ConfigError) as refused:
            selection.resolve([name], self.FACTS)
        assert word in refused.value.hint

    @given(st.text(min_size=1), st.text(min_size=1))
    def test_a_key_is_parsed_back(self, schema: str, table: str) -> None:
        assert selection.parse_key(table_key(schema, table)) == (schema, table)

    def test_entries_that_need_what_is_not_there_are_left_out(self) -> None:
        lines = [
            ";\n",
            "4; 2606 16 FK CONSTRAINT public lines lines_fkey postgres\n",
            "5; 1259 17 INDEX public FK CONSTRAINT postgres\n",
            "6; 0 18 MATERIALIZED VIEW DATA public mv postgres\n",
            "7; 1259 18 MATERIALIZED VIEW public mv postgres\n",
        ]
        assert selection.keep(lines) == [lines[0], lines[2], lines[4]]

    def test_one_schema_becomes_one_and_several_keep_their_names(self) -> None:
        assert selection.new_schemas({"public"}, "1") == {"public": "flybackup_restore_1"}
        assert selection.new_schemas({"a", "b"}, "1") == {"a": "flybackup_restore_1_a", "b": "flybackup_restore_1_b"}


def test_an_archive_says_its_version() -> None:
    assert archive_version(b"PGDMP\x01\x10\x00") == "1.16"
    with pytest.raises(SourceError):
        archive_version(b"Usage: pg_dump")
