"""Restore single tables.

`pg_restore -t` brings a table without its indexes, keys and the types it uses, and cannot put it into another schema.
So the tables are brought up in a temporary database, where all definitions are at hand: first every definition, then
the rows of the chosen tables, then indexes, keys and triggers; what was not chosen is dropped again. Foreign keys are
left out, for the tables they point to are empty or gone.

When the target has data, the chosen tables go into a new schema of it. In the temporary database a schema is simply
renamed: every index, default and type follows, for the catalog knows them by number and not by name. Then that schema
is dumped and restored into the target, in one transaction.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from psycopg import sql

from flybackup.errors import ConfigError, SourceError
from flybackup.model import Facts, table_key
from flybackup.sources.postgres import clients, facts
from flybackup.sources.postgres.catalog import USER_OBJECT
from flybackup.sources.postgres.connection import Address, Connection, connected
from flybackup.sources.postgres.process import dump_command, restore_command, run, running
from flybackup.sources.postgres.quoting import identifier

if TYPE_CHECKING:
    from flybackup.sources.postgres.loading import Work

_KEY: Final = re.compile(r'^("(?:[^"]|"")*"|[^".]+)\.("(?:[^"]|"")*"|[^".]+)$')
_LISTED: Final = 10
_NO_RIGHTS: Final = ("--no-owner", "--no-acl")
# Entries of an archive's table of contents that concern what is not there or not wanted in a part of a database.
_LEFT_OUT: Final = re.compile(
    r"^\d+; \d+ \d+ (FK CONSTRAINT|MATERIALIZED VIEW DATA|EVENT TRIGGER|PUBLICATION|SUBSCRIPTION|DEFAULT ACL|ACL"
    r"|BLOBS?|BLOB METADATA|SECURITY LABEL|ROW SECURITY|POLICY|RULE) "
)
_FAMILY: Final = """
    WITH RECURSIVE family AS (
        SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
        UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN family f ON f.oid = i.inhparent)
    SELECT n.nspname::text AS schema, c.relname::text AS name
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid IN (SELECT oid FROM family)
       OR (c.relkind = 'S' AND c.oid IN (SELECT d.objid FROM pg_catalog.pg_depend d JOIN family f ON f.oid = d.refobjid
           WHERE d.classid = 'pg_class'::pg_catalog.regclass AND d.refclassid = 'pg_class'::pg_catalog.regclass
             AND d.deptype IN ('a', 'i')))
"""
_RELATIONS: Final = f"""
    SELECT n.nspname::text, o.relname::text, CASE o.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
           WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END
    FROM pg_catalog.pg_class o JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace
    WHERE o.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND {USER_OBJECT.format(catalog="pg_class")}
    ORDER BY o.relkind = 'S'
"""  # noqa: S608  # constants only


class Name(NamedTuple):
    schema: str
    table: str


def resolve(tables: Sequence[str], known: Facts) -> list[Name]:
    """Return the tables meant by *tables*, `schema.table` or a name that one schema has. Raise `ConfigError`."""
    return [_resolve(text, [parse_key(key) for key in known.tables]) for text in tables]


def _resolve(text: str, known: Sequence[Name]) -> Name:
    found = [name for name in known if text in (table_key(*name), name.table)]
    if len(found) == 1:
        return found[0]
    if not known and _KEY.match(text):
        return parse_key(text)
    if found:
        raise ConfigError(f"the table {text} is in several schemas", hint=f"say which: {_keys(found)}")
    raise ConfigError(f"the snapshot has no table {text}", hint=f"it has {_keys(known)}")


def parse_key(key: str) -> Name:
    """Return what `table_key` was made of."""
    match = _KEY.match(key)
    if match is None:
        raise ConfigError(f"not a table name: {key}", hint='write schema.table, or "sche.ma"."ta.ble"')
    return Name(_unquoted(match[1]), _unquoted(match[2]))


def _unquoted(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part


def _keys(names: Sequence[Name]) -> str:
    more = ", …" if len(names) > _LISTED else ""
    return ", ".join(table_key(*name) for name in names[:_LISTED]) + more


def load(work: "Work", archive: Path, into: Address) -> None:
    """Bring up the chosen tables of *archive* in the empty database at *into*. Raise `SourceError`."""
    start = restore_command(work.client, into, *_NO_RIGHTS, "--no-tablespaces")
    wanted = _without_left_out(work, archive, into)
    run([*start, "--section=pre-data", wanted, str(archive)], into)
    with connected(into) as session:
        family = _family(session, work.chosen)
    for schema in sorted({name.schema for name in family}):
        tables = [f"--table={name.table}" for name in family if name.schema == schema]
        data = ["--section=data", f"--schema={schema}", *tables, f"--jobs={work.options.jobs}", str(archive)]
        run([*start, *data], into)
    run([*start, "--section=post-data", f"--jobs={work.options.jobs}", wanted, str(archive)], into)
    archive.unlink()
    with connected(into) as session:
        _drop_others(session, family)
    work.notes.append("foreign keys, policies and rules of the tables were not restored: what they name is not here")


def _without_left_out(work: "Work", archive: Path, into: Address) -> str:
    listing = work.scratch / "list"
    run([work.client.program("pg_restore"), "--list", f"--file={listing}", str(archive)], into)
    # Bytes that are no UTF-8 may stand in names.
    lines = listing.read_text(encoding="utf-8", errors="surrogateescape").splitlines(keepends=True)
    listing.write_text("".join(keep(lines)), encoding="utf-8", errors="surrogateescape")
    return f"--use-list={listing}"


def keep(lines: Iterable[str]) -> list[str]:
    """Return the lines of an archive's table of contents whose entries can be restored into a part of a database."""
    return [line for line in lines if not _LEFT_OUT.match(line)]


def _family(session: Connection, chosen: Sequence[Name]) -> set[Name]:
    """Return the chosen tables with their partitions and the sequences that belong to them."""
    parameters = ([name.schema for name in chosen], [name.table for name in chosen])
    family = {Name(*row) for row in session.execute(_FAMILY, parameters)}
    if missing := [name for name in chosen if name not in family]:
        raise SourceError(f"the dump has no table {_keys(missing)}", hint="views and large objects cannot be chosen")
    return family


def _drop_others(session: Connection, family: set[Name]) -> None:
    for schema, name, kind in session.execute(_RELATIONS.encode()).fetchall():
        if Name(schema, name) not in family:
            drop = sql.SQL("DROP {} IF EXISTS {} CASCADE").format(sql.SQL(kind), sql.Identifier(schema, name))
            session.execute(drop)


class InSchema:
    """Chosen tables in a temporary database, to be copied into a new schema of a target that has data."""

    def __init__(self, work: "Work", into: Address) -> None:
        self._work = work
        self._into = into
        self.settled = False

    def probe(self, *, checksums: bool) -> Facts:
        with connected(self._into) as session:
            return facts.measure(session, checksums=checksums)

    def publish(self) -> tuple[str, ...]:
        """Copy the tables into the target, in one transaction. The temporary database is removed with the block."""
        renamed = new_schemas({name.schema for name in self._work.chosen}, self._work.stamp)
        with connected(self._into) as session:
            for old, new in renamed.items():
                rename = sql.SQL("ALTER SCHEMA {} RENAME TO {}")
                session.execute(rename.format(sql.Identifier(old), sql.Identifier(new)))
        self._copy(list(renamed.values()))
        places = ", ".join(
            f"{name.schema}.{name.table} is {renamed[name.schema]}.{name.table}" for name in self._work.chosen
        )
        undo = " ".join(f"DROP SCHEMA {identifier(schema)} CASCADE;" for schema in renamed.values())
        return (
            *self._work.notes,
            f"restored beside the live tables: {places}",
            f"to undo, connect to the database and run: {undo}",
        )

    def keep(self) -> str:
        self.settled = True
        return f"the restored tables are kept in the database {self._into.url}"

    def _copy(self, schemas: Sequence[str]) -> None:
        work = self._work
        client = clients.for_dump(work.state.server.server.major, clients.installed(work.first))
        # What pg_dump takes is a pattern: quoted, it means itself.
        only = [f"--schema={identifier(schema)}" for schema in schemas]
        dumping = dump_command(client, self._into, *only, *_NO_RIGHTS)
        loading = restore_command(client, work.address, "--single-transaction", *_NO_RIGHTS)
        with (
            running(dumping, self._into) as source,
            running(loading, work.address, feeding=True) as sink,
        ):
            sink.feed(extent.data for extent in source.output())


def new_schemas(schemas: set[str], stamp: str) -> dict[str, str]:
    """Return the schema each of *schemas* becomes in the target."""
    if len(schemas) == 1:
        return {next(iter(schemas)): f"flybackup_restore_{stamp}"}
    return {schema: f"flybackup_restore_{stamp}_{schema}" for schema in sorted(schemas)}
