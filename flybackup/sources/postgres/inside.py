"""Restore into the empty target itself, where the role may not create databases (managed services).

With one job it is one transaction, so a failure leaves nothing. What was restored but not wanted is removed again.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Final, Literal

from psycopg import sql

from flybackup.model import Facts
from flybackup.sources import Stream
from flybackup.sources.postgres import facts
from flybackup.sources.postgres.catalog import USER_OBJECT
from flybackup.sources.postgres.connection import Connection, connected
from flybackup.sources.postgres.loading import Work, receive

_EXTENSIONS: Final = "SELECT extname::text FROM pg_catalog.pg_extension"
_SCHEMAS: Final = """
    SELECT nspname::text FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
"""
# In this order: relations take their row types and dependents along, so the later statements find less.
_DROPS: Final = (
    f"""
    SELECT format('DROP %s IF EXISTS %s CASCADE', CASE o.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
           WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, o.oid::pg_catalog.regclass)
    FROM pg_catalog.pg_class o JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace
    WHERE o.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND {USER_OBJECT.format(catalog="pg_class")}
    """,  # noqa: S608  # constants only
    f"""
    SELECT format('DROP ROUTINE IF EXISTS %s CASCADE', o.oid::pg_catalog.regprocedure)
    FROM pg_catalog.pg_proc o JOIN pg_catalog.pg_namespace n ON n.oid = o.pronamespace
    WHERE o.prokind <> 'a' AND {USER_OBJECT.format(catalog="pg_proc")}
    """,  # noqa: S608  # constants only
    f"""
    SELECT format('DROP TYPE IF EXISTS %s CASCADE', o.oid::pg_catalog.regtype)
    FROM pg_catalog.pg_type o JOIN pg_catalog.pg_namespace n ON n.oid = o.typnamespace
    WHERE o.typelem = 0 AND {USER_OBJECT.format(catalog="pg_type")}
    """,  # noqa: S608  # constants only
    "SELECT format('SELECT pg_catalog.lo_unlink(%s)', oid) FROM pg_catalog.pg_largeobject_metadata",
)


class Inside:
    """Data restored into the target, which was empty."""

    in_target: Literal[True] = True

    def __init__(self, work: Work) -> None:
        self._work = work
        self.settled = False

    def probe(self, *, checksums: bool) -> Facts:
        with connected(self._work.address) as session:
            return facts.measure(session, checksums=checksums)

    def publish(self) -> tuple[str, ...]:
        self.settled = True
        return tuple(self._work.notes)

    def keep(self) -> str:
        self.settled = True
        return f"the restored data is left in {self._work.address.url}"


@contextmanager
def inside(work: Work, streams: Iterator[Stream]) -> Generator[Inside]:
    """Restore *streams* into the target; empty it again unless the result was published or kept."""
    restoration = Inside(work)
    with connected(work.address) as session:
        extensions, schemas = _names(session, _EXTENSIONS), _names(session, _SCHEMAS)
    try:
        receive(work, streams, work.address, one_transaction=True)
        yield restoration
    finally:
        if not restoration.settled:
            with connected(work.address) as session:
                _empty(session, extensions, schemas)


def _empty(session: Connection, extensions: set[str], schemas: set[str]) -> None:
    for kind, query, there_before in (("EXTENSION", _EXTENSIONS, extensions), ("SCHEMA", _SCHEMAS, schemas)):
        for name in sorted(_names(session, query) - there_before):
            drop = sql.SQL("DROP {} IF EXISTS {} CASCADE").format(sql.SQL(kind), sql.Identifier(name))
            session.execute(drop)
    for query in _DROPS:
        for statement in _names(session, query):
            session.execute(statement.encode())


def _names(session: Connection, query: str) -> set[str]:
    return {name for (name,) in session.execute(query.encode())}
