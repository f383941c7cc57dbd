"""Export a snapshot in which every table is locked.

The order of the steps is what makes it right:

1. The tables are listed in a transaction of its own, for the listing takes a snapshot.
2. A new REPEATABLE READ transaction locks them all (ACCESS SHARE: readers and writers go on, TRUNCATE and DDL wait).
   LOCK TABLE takes no snapshot. Without the locks a TRUNCATE, which does not respect snapshots, could fall between
   the count and the dump.
3. Its first query takes the snapshot, which is exported. The tables are listed again, in it: one that is not locked
   appeared in between, and everything starts again.
4. Globals are read, and sequences: these are outside every snapshot, but what the dump reads later is not lower.
"""

from collections.abc import Iterable
from typing import Final

import psycopg
from psycopg import sql

from flybackup.errors import SourceError
from flybackup.sources.postgres import catalog, facts, globals as cluster
from flybackup.sources.postgres.catalog import Relation
from flybackup.sources.postgres.connection import Address, Connection

_ATTEMPTS: Final = 20
_LOCKS_PER_STATEMENT: Final = 500
_TRANSACTION_TIMEOUT_SINCE: Final = 17
# Dropped between the listing and its use; the internal error is how functions over a sequence's number say it.
_VANISHED: Final = (
    psycopg.errors.InternalError_,
    psycopg.errors.UndefinedTable,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.WrongObjectType,
)


class View:
    """What was read in the exported snapshot, before the dump begins."""

    def __init__(self, connection: Connection, snapshot: str, relations: list[Relation]) -> None:
        self.snapshot = snapshot
        self.relations = relations
        self.sequences = catalog.sequences(connection)
        self.details = catalog.details(connection)
        self.globals = cluster.read(connection)
        self.warnings: list[str] = []
        hidden = [role.name for role in self.globals.roles if role.login]
        if not self.globals.passwords and hidden:
            self.warnings.append(
                f"the passwords of roles cannot be read by {connection.info.user} and are not in the snapshot: "
                + ", ".join(hidden)
            )


def exported(connection: Connection, address: Address, *, lock_timeout_seconds: float) -> View:
    """Lock every table, then export a snapshot; leave the session in its transaction. Raise `SourceError`."""
    last: psycopg.Error | None = None
    for _ in range(_ATTEMPTS):
        before = _relations(connection)
        try:
            _lock(connection, before, lock_timeout_seconds)
            snapshot, after = _snapshot(connection)
            if _lockable(after) <= _lockable(before):
                connection.execute("SET LOCAL lock_timeout = 0")
                return View(connection, snapshot, after)
        except _VANISHED as exc:
            last = exc
        connection.execute("ROLLBACK")
    raise SourceError(
        f"{address.url}: tables appeared or vanished during {_ATTEMPTS} attempts to lock them all",
        hint="back up when no migration is running",
    ) from last


def _lock(connection: Connection, relations: Iterable[Relation], lock_timeout_seconds: float) -> None:
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    connection.execute(f"SET LOCAL lock_timeout = {round(lock_timeout_seconds * 1000)}")
    if connection.info.server_version >= _TRANSACTION_TIMEOUT_SINCE * 10_000:
        connection.execute("SET LOCAL transaction_timeout = 0")
    names = [sql.SQL("ONLY {}").format(relation.sql) for relation in relations if relation.kind in ("r", "p")]
    for start in range(0, len(names), _LOCKS_PER_STATEMENT):
        batch = sql.SQL(", ").join(names[start : start + _LOCKS_PER_STATEMENT])
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(batch))


def _snapshot(connection: Connection) -> tuple[str, list[Relation]]:
    (snapshot,) = catalog.one(connection, "SELECT pg_catalog.pg_export_snapshot()")
    return str(snapshot), _relations(connection)


def _relations(connection: Connection) -> list[Relation]:
    return facts.countable(catalog.relations(connection), standby=catalog.server(connection).standby)


def _lockable(relations: Iterable[Relation]) -> set[int]:
    return {relation.oid for relation in relations if relation.kind in ("r", "p")}
