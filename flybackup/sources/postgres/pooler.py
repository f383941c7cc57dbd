"""Recognise a connection pooler between us and the server, by what it does.

A pooler answers the start of a connection itself, so the process id it announces is not the one of the server process
that runs a query. In transaction mode, two idle clients share a server process, or one client is moved between
several: then settings of a session leak to the application (pgbouncer issues #396, #452), locks and snapshots are
lost, and neither `pg_dump` nor we may go through it.
"""

import psycopg
from psycopg.rows import TupleRow

from flybackup.errors import SourceError

_PID = "SELECT pg_catalog.pg_backend_pid()"


def refuse_transaction_pooling(connection: psycopg.Connection[TupleRow], again: psycopg.Connection[TupleRow]) -> None:
    """Raise `SourceError` when *connection* and *again*, idle sessions of one address, do not hold a server each."""
    seen = [_pid(session) for session in (connection, again, connection)]
    if pooled(seen):
        raise SourceError(
            "there is a pooler in transaction mode before this database; a consistent dump through it is impossible",
            hint=advice(connection.info.host, connection.info.port),
        )


def is_proxied(connection: psycopg.Connection[TupleRow]) -> bool:
    """Tell whether something other than the server announced the process id."""
    return connection.info.backend_pid != _pid(connection)


def pooled(seen: list[int]) -> bool:
    """Decide from the server processes that answered the first client, the second, and the first again."""
    first, second, first_again = seen
    return first == second or first != first_again


def advice(host: str, port: int) -> str:
    """Return what to do, in the terms of the service that the address looks like."""
    if host.startswith("pgbouncer."):
        return f"use the direct address: direct.{host.removeprefix('pgbouncer.')}"
    if "-pooler." in host:
        return f"use the direct address: {host.replace('-pooler.', '.')}"
    if port in (6432, 6543):
        return f"connect to the server itself (port 5432, or 5433 on Fly Postgres) instead of port {port}"
    return "connect to the server itself, or to a pool in session mode"


def _pid(connection: psycopg.Connection[TupleRow]) -> int:
    row = connection.execute(_PID).fetchone()
    assert row is not None
    return int(row[0])
