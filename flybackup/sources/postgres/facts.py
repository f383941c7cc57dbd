"""Count and digest what a session sees: the same measurement for a capture, a restored target and a live database.

Rows of a table are counted with `ONLY`, so partitions and inheriting tables count for themselves; a partitioned table
is given the sum of its partitions.

Rows of materialized views are not in a dump: `REFRESH` makes them anew at the restore, from the tables of the snapshot.
So they are counted by running the view's definition, which tells what a restore will give even when the view is stale
now. Left out are those whose definition depends on the moment or on another materialized view, and those that take
longer than a minute.

The checksum of a table does not depend on the order of rows: it is the sum of each row's 64-bit hash
(`hashtextextended`) under two seeds, over the row's text as the fixed session settings make it (see `connection`), so
it is the same on another server, version or collation. It does depend on the database's encoding and, as every
textual form of a row, on the order of the columns.
"""

import re
import threading
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import psycopg
from psycopg import sql

from flybackup.model import Facts, TableFacts
from flybackup.sources.postgres import catalog
from flybackup.sources.postgres.catalog import Relation
from flybackup.sources.postgres.connection import Connection

LARGE_OBJECTS: Final = "pg_catalog.pg_largeobject_metadata"
"""The key under which large objects are counted, where there are any."""

_MATVIEW_TIMEOUT_MS: Final = 60_000
_COUNT: Final = sql.SQL("SELECT count(*) FROM {} t")
# The whole row, so that every column is computed as REFRESH will; a row is never null, even one of nulls.
_COUNT_COMPUTED: Final = sql.SQL("SELECT count(t) FROM {} t")
_DIGEST: Final = sql.SQL("""
    SELECT count(*), coalesce(sum(pg_catalog.hashtextextended(x.v COLLATE "C", 0)), 0)::text,
           coalesce(sum(pg_catalog.hashtextextended(x.v COLLATE "C", 1)), 0)::text
    FROM (SELECT t::text AS v FROM {} t) x
""")
# The rules of the view and of all views it reads, for what they call decides whether the result lasts.
_DEFINITION: Final = """
    WITH RECURSIVE seen (view) AS (
        SELECT %s::pg_catalog.oid
        UNION SELECT c.oid FROM seen
        JOIN pg_catalog.pg_rewrite r ON r.ev_class = seen.view AND r.rulename = '_RETURN'
        JOIN pg_catalog.pg_depend d ON d.classid = 'pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
                                   AND d.refclassid = 'pg_class'::pg_catalog.regclass
        JOIN pg_catalog.pg_class c ON c.oid = d.refobjid AND c.relkind IN ('v', 'm'))
    SELECT pg_catalog.pg_get_viewdef(%s::pg_catalog.oid), string_agg(r.ev_action::text, ' '),
           count(*) FILTER (WHERE c.relkind = 'm')
    FROM seen JOIN pg_catalog.pg_class c ON c.oid = seen.view
    JOIN pg_catalog.pg_rewrite r ON r.ev_class = seen.view AND r.rulename = '_RETURN'
"""
_FUNCTIONS: Final = re.compile(r":(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)")
_MOMENTARY: Final = """
    SELECT EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.oid = ANY (%s::pg_catalog.oid[])
        AND (p.provolatile = 'v' OR p.proname IN ('now', 'transaction_timestamp', 'statement_timestamp')))
"""


class Tally(NamedTuple):
    """The rows of a relation and the sums of their hashes, which are 0 where none were asked for."""

    rows: int
    first: int = 0
    second: int = 0

    def facts(self, *, checksums: bool) -> TableFacts:
        return TableFacts(rows=self.rows, checksum=digest(self.first, self.second) if checksums else None)


class Measurement:
    """Facts in the making: filled table by table, so that a thread may count while the dump runs."""

    def __init__(self, connection: Connection, relations: Iterable[Relation], *, checksums: bool) -> None:
        self._connection = connection
        self._relations = list(relations)
        self._checksums = checksums
        self._tallies: dict[int, Tally] = {}
        self.tables: dict[str, TableFacts] = {}
        self.warnings: list[str] = []
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let `run`, in another thread, end soon: the query under way is cancelled, no other begins."""
        self._stopped.set()
        self._connection.cancel_safe()

    def run(self) -> None:
        """Count everything. The session is in a transaction with one snapshot. Raise psycopg's errors."""
        for relation in self._relations:
            if relation.kind == "r":
                self._record(relation, self._tally(_COUNT, sql.SQL("ONLY {}").format(relation.sql)))
        self._sum_partitions()
        for relation in self._relations:
            if relation.kind == "m":
                self._measure_view(relation)
        self._count_large_objects()

    def _record(self, relation: Relation, tally: Tally) -> None:
        self._tallies[relation.oid] = tally
        self.tables[relation.key] = tally.facts(checksums=self._checksums)

    def _tally(self, count: sql.SQL, rows: sql.Composable) -> Tally:
        if self._stopped.is_set():
            raise psycopg.errors.AdminShutdown("the count was stopped")
        row = self._connection.execute((_DIGEST if self._checksums else count).format(rows)).fetchone()
        assert row is not None
        return Tally(*(int(number) for number in row))

    def _sum_partitions(self) -> None:
        totals = sum_by_parent(self._relations, self._tallies)
        for relation in self._relations:
            if relation.kind == "p":
                self._record(relation, totals[relation.oid])

    def _measure_view(self, relation: Relation) -> None:
        if not relation.populated:
            self.tables[relation.key] = TableFacts(rows=0)
            return
        definition, reason = self._definition(relation)
        if reason:
            self.warnings.append(f"the rows of materialized view {relation.key} are not compared: it {reason}")
            return
        try:
            with self._connection.transaction():
                self._connection.execute(f"SET LOCAL statement_timeout = {_MATVIEW_TIMEOUT_MS}")
                rows = sql.SQL("({})").format(sql.SQL(definition))  # the server's own words
                self._record(relation, self._tally(_COUNT_COMPUTED, rows))
        except psycopg.errors.QueryCanceled:
            self.warnings.append(
                f"the rows of materialized view {relation.key} are not compared: computing it takes over a minute"
            )
        except (psycopg.ProgrammingError, psycopg.DataError) as exc:
            self.warnings.append(
                f"materialized view {relation.key} cannot be computed with an empty search_path, so a restore would "
                f"stop at it ({str(exc).splitlines()[0]}): qualify the names in its functions"
            )

    def _definition(self, relation: Relation) -> tuple[str, str]:
        """Return the view's query, and why its result now need not be its result at the restore; empty when it is."""
        text, rules, views = catalog.one(self._connection, _DEFINITION, (relation.oid, relation.oid))
        functions = [int(oid) for oid in _FUNCTIONS.findall(rules)]
        (momentary,) = catalog.one(self._connection, _MOMENTARY, (functions,))
        if momentary or "{SQLVALUEFUNCTION" in rules:
            return "", "depends on the moment"
        if views > 1:
            return "", "reads another materialized view, which may be stale"
        return str(text).rstrip().removesuffix(";"), ""

    def _count_large_objects(self) -> None:
        (count,) = catalog.one(self._connection, "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata")
        if count:
            self.tables[LARGE_OBJECTS] = TableFacts(rows=count)


def digest(first: int, second: int) -> str:
    """Return the checksum of two sums of hashes: `h1:` and the low 64 bits of each, in hexadecimal."""
    return f"h1:{first & (2**64 - 1):016x}{second & (2**64 - 1):016x}"


def sum_by_parent(relations: Iterable[Relation], tallies: Mapping[int, Tally]) -> dict[int, Tally]:
    """Return the tally of every partitioned table: the sum over all its partitions, at any depth."""
    known = {relation.oid: relation for relation in relations}
    totals = {oid: Tally(0) for oid, relation in known.items() if relation.kind == "p"}
    for oid, tally in tallies.items():
        parent = known[oid].parent
        while parent in totals:
            totals[parent] = Tally(*map(sum, zip(totals[parent], tally, strict=True)))
            parent = known[parent].parent
    return totals


def measure(connection: Connection, *, checksums: bool) -> Facts:
    """Return the facts of what the session sees, in a snapshot of its own. Raise psycopg's errors."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        here = catalog.server(connection)
        relations = countable(catalog.relations(connection), standby=here.standby)
        measurement = Measurement(connection, relations, checksums=checksums)
        measurement.run()
        return Facts(
            tables=measurement.tables,
            engine=f"PostgreSQL {here.version}",
            sequences=catalog.sequences(connection),
            details=catalog.details(connection),
        )


def countable(relations: Iterable[Relation], *, standby: bool) -> list[Relation]:
    """Return those whose rows a dump has: no foreign tables, and on a standby no unlogged ones, unreadable there."""
    return [relation for relation in relations if relation.kind != "f" and not (standby and relation.unlogged)]
