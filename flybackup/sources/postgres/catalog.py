"""What a database holds, read from its catalog: relations, sequences, and what a restore has to know beforehand.

Left out everywhere, as pg_dump leaves it out: system schemas, temporary tables, and what belongs to an extension
(`CREATE EXTENSION` makes it again).
"""

import json
from dataclasses import dataclass
from typing import Any, Final, Literal

from psycopg import sql
from psycopg.rows import class_row

from flybackup.model import table_key
from flybackup.sources.postgres.connection import Connection

Kind = Literal["r", "p", "m", "f", "v", "S"]

USER_OBJECT: Final = """
    n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = '{catalog}'::pg_catalog.regclass AND d.objid = o.oid AND d.deptype = 'e')
"""

_RELATIONS: Final = f"""
    SELECT o.oid::bigint, n.nspname AS schema, o.relname AS name, o.relkind::text AS kind,
           o.relpersistence = 'u' AS unlogged, o.relispopulated AS populated, i.inhparent::bigint AS parent
    FROM pg_catalog.pg_class o
    JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace
    LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = o.oid AND o.relispartition
    WHERE o.relkind IN ('r', 'p', 'm', 'f') AND o.relpersistence <> 't' AND {USER_OBJECT.format(catalog="pg_class")}
    ORDER BY n.nspname, o.relname
"""  # noqa: S608  # constants only

# Ascending ones only: the check is that the restored value is not lower. Values are outside every snapshot.
_SEQUENCES: Final = f"""
    SELECT n.nspname, o.relname, pg_catalog.pg_sequence_last_value(o.oid::pg_catalog.regclass)
    FROM pg_catalog.pg_class o
    JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace
    JOIN pg_catalog.pg_sequence s ON s.seqrelid = o.oid
    WHERE s.seqincrement > 0 AND NOT s.seqcycle AND o.relpersistence <> 't'
      AND {USER_OBJECT.format(catalog="pg_class")}
      AND NOT (o.relpersistence = 'u' AND pg_catalog.pg_is_in_recovery())
"""  # noqa: S608  # constants only

# Of PostgreSQL 13 to 18: the provider came with 15, the locale's column was renamed with 17.
_DATABASE: Final = """
    SELECT pg_catalog.json_build_object(
        'owner', pg_catalog.pg_get_userbyid(d.datdba), 'encoding', pg_catalog.pg_encoding_to_char(d.encoding),
        'collate', d.datcollate, 'ctype', d.datctype,
        'provider', pg_catalog.to_jsonb(d) ->> 'datlocprovider',
        'locale', coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale'),
        'icu_rules', pg_catalog.to_jsonb(d) ->> 'daticurules')
    FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
"""

# Who owns or may use something here: pg_shdepend knows all but the bootstrap superuser (oid 10), who is pinned.
_ROLES: Final = """
    SELECT DISTINCT r.rolname FROM pg_catalog.pg_roles r
    LEFT JOIN pg_catalog.pg_shdepend s ON s.refobjid = r.oid AND s.refclassid = 'pg_authid'::pg_catalog.regclass
    WHERE (s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
           OR r.oid = 10) AND r.rolname !~ '^pg_'
    ORDER BY 1
"""

_EXTENSIONS: Final = "SELECT extname, extversion FROM pg_catalog.pg_extension ORDER BY extname"

_TABLESPACES: Final = """
    SELECT DISTINCT t.spcname FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_tablespace t ON t.oid = c.reltablespace WHERE t.spcname <> 'pg_global' ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Relation:
    """A table (`r`), partitioned table (`p`), materialized view (`m`) or foreign table (`f`).

    `parent` is the table it is a partition of, None when it is none.
    """

    oid: int
    schema: str
    name: str
    kind: Kind
    unlogged: bool
    populated: bool
    parent: int | None

    @property
    def key(self) -> str:
        return table_key(self.schema, self.name)

    @property
    def sql(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class Server:
    """The server behind a session."""

    number: int
    standby: bool

    @property
    def major(self) -> int:
        return self.number // 10_000

    @property
    def version(self) -> str:
        return f"{self.major}.{self.number % 10_000}"


def server(connection: Connection) -> Server:
    (standby,) = one(connection, "SELECT pg_catalog.pg_is_in_recovery()")
    return Server(connection.info.server_version, bool(standby))


def relations(connection: Connection) -> list[Relation]:
    """Return all relations that hold rows or stand for some, ordered by name."""
    with connection.cursor(row_factory=class_row(Relation)) as cursor:
        return cursor.execute(_RELATIONS).fetchall()


def sequences(connection: Connection) -> dict[str, int]:
    """Return the last value of every ascending sequence that was ever used."""
    rows = connection.execute(_SEQUENCES).fetchall()
    return {table_key(schema, name): int(value) for schema, name, value in rows if value is not None}


def details(connection: Connection) -> dict[str, str]:
    """Return what a restore needs to know, as text; lists of names as JSON."""
    (database,) = one(connection, _DATABASE)
    known: dict[str, str] = {name: value for name, value in database.items() if value is not None}
    extensions = [f"{name}={version}" for name, version in connection.execute(_EXTENSIONS)]
    return known | {
        "database": connection.info.dbname,
        "server_version_num": str(connection.info.server_version),
        "extensions": ", ".join(extensions),
        "roles": json.dumps([name for (name,) in connection.execute(_ROLES)]),
        "tablespaces": json.dumps([name for (name,) in connection.execute(_TABLESPACES)]),
    }


def one(connection: Connection, query: str, parameters: tuple[object, ...] = ()) -> tuple[Any, ...]:
    """Return the single row of a query that always has one."""
    row = connection.execute(query.encode(), parameters or None).fetchone()
    assert row is not None, query
    return row
