"""What is in a copy of a database that nobody writes: tables, counts, digests, and whether it is sound.

Measured in a thread of its own: SQLite answers no signal while it works, and lets go of Python meanwhile.
"""

import contextlib
import re
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

from flybackup.crypto import digest
from flybackup.model import TableFacts, table_key
from flybackup.sources.sqlite.connecting import error_name, frozen_connection, quoted, sqlite_errors

CHECKSUM = "sum of the BLAKE3 of each row as MessagePack"
_UNREADABLE = "Let the application open it: the file may be damaged. An older snapshot may be sound."
_SCHEMA = "main"
_FINDINGS = 10
_DIGEST_BITS = 256
_INTERRUPT_EVERY_SECONDS = 0.02
_NOT_TEXT = 1
"""The MessagePack extension that a text is encoded as when it is not the UTF-8 it should be."""

_VIRTUAL = re.compile(
    r"""CREATE\s+VIRTUAL\s+TABLE\s+(?:"(?:[^"]|"")*"|'(?:[^']|'')*'|`(?:[^`]|``)*`|\[[^]]*\]|[^\s"'`\[]+)\s*USING\s+"""
    r"""["'`\[]?(\w+)""",
    re.IGNORECASE,
)

_SHADOWS = {
    "fts3": ("content", "segments", "segdir"),
    "fts4": ("content", "segments", "segdir", "docsize", "stat"),
    "fts5": ("data", "idx", "content", "docsize", "config"),
    "rtree": ("node", "rowid", "parent"),
    "rtree_i32": ("node", "rowid", "parent"),
    "geopoly": ("node", "rowid", "parent"),
}
"""Virtual tables that hold rows of their own, and the tables in which they keep them. Others are not asked for rows:
what their modules do may reach outside of the file."""


class Table(NamedTuple):
    """`module` is that of a virtual table, "" where it cannot be told; None is an ordinary table."""

    name: str
    module: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """`findings` are what `integrity_check` found, or what stopped a count; empty when the database is sound."""

    tables: dict[str, TableFacts]
    integrity: str
    findings: tuple[str, ...]
    foreign_keys: str
    warnings: tuple[str, ...]


class Measuring:
    """Measures the database at *path*, whose content must not change and which messages call *name*.

    Use as a context manager.
    """

    def __init__(self, path: Path, name: str, *, checksums: bool) -> None:
        self._path = path
        self._name = name
        self._checksums = checksums
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="measure")
        self._stop = threading.Event()
        self._connection: sqlite3.Connection | None = None
        self._result: Future[Measured] | None = None

    def __enter__(self) -> Self:
        self._result = self._pool.submit(self._measure)
        return self

    def result(self) -> Measured:
        """Wait. Raise `SourceError` when SQLite cannot read the database at all."""
        assert self._result is not None
        return self._result.result()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        while self._result is not None and not self._result.done():
            if (connection := self._connection) is not None:
                with contextlib.suppress(sqlite3.ProgrammingError):  # it was closed just now
                    connection.interrupt()
            wait([self._result], _INTERRUPT_EVERY_SECONDS)
        self._pool.shutdown(wait=True)

    def _measure(self) -> Measured:
        with sqlite_errors(f"SQLite cannot read {self._name}", hint=_UNREADABLE):
            with self._opened() as con:
                counted = _counted(con, tables_of(con), checksums=self._checksums)
            with self._opened() as con:  # to which no order is lent
                return _checked(con, counted)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with frozen_connection(self._path) as con:
            self._connection = con
            con.set_progress_handler(self._stop.is_set, 1_000_000)
            try:
                yield con
            finally:
                self._connection = None


@dataclass(slots=True)
class _Counted:
    facts: dict[str, TableFacts] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def _checked(con: sqlite3.Connection, counted: _Counted) -> Measured:
    findings, unchecked = _integrity(con)
    return Measured(
        tables=counted.facts,
        integrity=findings[0] if findings else "not checked" if unchecked else "ok",
        findings=(*findings, *counted.findings),
        foreign_keys=_foreign_keys(con),
        warnings=(*counted.warnings, *unchecked),
    )


def tables_of(con: sqlite3.Connection) -> list[Table]:
    """Return the tables an application knows: not SQLite's own, nor those in which virtual tables keep their rows."""
    found = con.execute("SELECT name, sql, rootpage FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall()
    tables = [Table(str(name), None if root else _module(sql)) for name, sql, root in found]
    shadows = {name for table in tables for name in shadows_of(table)}
    return [table for table in tables if not _is_internal(table.name) and table.name.lower() not in shadows]


def shadows_of(table: Table) -> list[str]:
    return [f"{table.name}_{suffix}".lower() for suffix in _SHADOWS.get(table.module or "", ())]


def key_of(table: Table) -> str:
    return table_key(_SCHEMA, table.name)


def _is_internal(name: str) -> bool:
    return name.lower().startswith("sqlite_")


def _module(sql: str | None) -> str:
    found = _VIRTUAL.match(sql or "")
    return found[1].lower() if found else ""


def _counted(con: sqlite3.Connection, found: list[Table], *, checksums: bool) -> _Counted:
    """Raise `sqlite3.Error` when not even the schema can be read."""
    tables = _Counted()
    _lend_orders(con)
    for table in found:
        if table.module is not None and table.module not in _SHADOWS:
            tables.warnings.append(f"{key_of(table)} is a virtual table ({table.module or 'unknown'}): not counted")
            continue
        try:
            tables.facts[key_of(table)] = _facts(con, table, checksums=checksums)
        except sqlite3.OperationalError as exc:
            if table.module is None or error_name(exc) != "SQLITE_ERROR":
                raise
            tables.warnings.append(f"{key_of(table)} is not counted: {exc}")
        except sqlite3.DatabaseError as exc:
            tables.findings.append(f"{key_of(table)} cannot be read: {exc}")
    return tables


def _facts(con: sqlite3.Connection, table: Table, *, checksums: bool) -> TableFacts:
    return TableFacts(rows=_count(con, table), checksum=_checksum(con, table) if checksums else None)


def _count(con: sqlite3.Connection, table: Table) -> int:
    """Count the rows of the table itself: an index may be damaged."""
    return int(con.execute(f"SELECT count(*) FROM {quoted(table.name)} NOT INDEXED").fetchone()[0])  # noqa: S608 - quoted


def _lend_orders(con: sqlite3.Connection) -> None:
    """Define the collations that only the application knows, in any way: no sum or count depends on the order.

    To be done before anything is asked: SQLite remembers which index it could not use.
    """
    wanted = con.execute(
        "SELECT DISTINCT x.coll FROM sqlite_schema s, pragma_index_list(s.name) i, pragma_index_xinfo(i.name) x "
        "WHERE s.type = 'table' AND upper(x.coll) NOT IN ('BINARY', 'NOCASE', 'RTRIM')"
    )
    for (name,) in wanted.fetchall():
        con.create_collation(name, lambda a, b: (a > b) - (a < b))


def _checksum(con: sqlite3.Connection, table: Table) -> str:
    """Return a digest that does not depend on the order of rows and tells NULL, numbers, text and blobs apart.

    Memory: one row.
    """
    columns = ", ".join(map(quoted, _stored_columns(con, table)))
    total = 0
    con.text_factory = _text
    try:
        for row in con.execute(f"SELECT {columns} FROM {quoted(table.name)}"):  # noqa: S608 - quoted
            total += int.from_bytes(digest(msgspec.msgpack.encode(row)))
    finally:
        con.text_factory = str
    return f"{total % (1 << _DIGEST_BITS):064x}"


def _text(stored: bytes) -> str | msgspec.msgpack.Ext:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return msgspec.msgpack.Ext(_NOT_TEXT, stored)


def _stored_columns(con: sqlite3.Connection, table: Table) -> list[str]:
    """Return the columns that hold data: what is generated follows from them, and may need the application."""
    found = con.execute("SELECT name FROM pragma_table_xinfo(?) WHERE hidden = 0 ORDER BY cid", [table.name])
    return [str(name) for (name,) in found.fetchall()]


def _integrity(con: sqlite3.Connection) -> tuple[list[str], list[str]]:
    """Return what is damaged and what could not be checked: constraints may call what only the application has."""
    try:
        return _check(con, f"PRAGMA integrity_check({_FINDINGS})"), []
    except sqlite3.OperationalError as exc:
        if not error_name(exc).startswith("SQLITE_ERROR"):
            raise
    findings, unchecked = [], []
    for table in tables_of(con):
        try:
            findings += _check(con, f"PRAGMA integrity_check({quoted(table.name)})")
        except sqlite3.OperationalError as exc:
            if not error_name(exc).startswith("SQLITE_ERROR"):
                raise
            unchecked.append(f"the integrity of {key_of(table)} could not be checked: {exc}")
    return findings[:_FINDINGS], unchecked


def _check(con: sqlite3.Connection, pragma: str) -> list[str]:
    try:
        return [line for line in _lines(con.execute(pragma)) if line != "ok"]
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as exc:
        return [str(exc)]


def _lines(cursor: sqlite3.Cursor) -> Iterator[str]:
    for (text,) in cursor:
        yield from str(text).splitlines()


def _foreign_keys(con: sqlite3.Connection) -> str:
    try:
        count: Any = con.execute("SELECT count(*) FROM pragma_foreign_key_check").fetchone()[0]
    except sqlite3.DatabaseError as exc:
        return f"not checked: {exc}"
    return str(count)
