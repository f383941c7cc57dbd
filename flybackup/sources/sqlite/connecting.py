"""Connections to SQLite that can do nothing but what is needed, and its errors in words."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from flybackup.errors import SourceError

SUFFIXES = ("-wal", "-shm", "-journal")
"""What may lie beside a database and belong to it."""

_CACHE_KIB = 4096


def quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


@contextmanager
def live_connection(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the application's database, only to read and never to make it. Waits for no lock: who calls does."""
    with closing(_connect(path, "mode=ro", timeout=0.0)) as con:
        yield con


@contextmanager
def scratch_connection(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a copy of ours for writing, without the care for a crash that it need not survive."""
    with closing(_connect(path, "mode=rwc", timeout=0.0)) as con:
        con.execute("PRAGMA synchronous = OFF")
        _distrust(con)
        yield con


@contextmanager
def frozen_connection(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a copy of ours that nobody writes, without locks and without making anything beside it; for any thread."""
    with closing(_connect(path, "immutable=1", timeout=0.0)) as con:
        _distrust(con)
        yield con


@contextmanager
def sqlite_errors(what: str, *, hint: str = "") -> Iterator[None]:
    """Turn what SQLite says into a `SourceError` that begins with *what* could not be done."""
    try:
        yield
    except sqlite3.Error as exc:
        raise SourceError(f"{what}: {exc}", hint=hint) from exc


def error_name(exc: sqlite3.Error) -> str:
    """Return the name of SQLite's extended result code; "" for an error of Python's own module."""
    return str(getattr(exc, "sqlite_errorname", ""))


def _connect(path: Path, options: str, *, timeout: float) -> sqlite3.Connection:
    # The absolute path after an empty authority: a name may begin with slashes, and hold '?', '#' and '%'.
    uri = f"file://{quote(os.fsencode(path.absolute()))}?{options}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout, check_same_thread=False)


def _distrust(con: sqlite3.Connection) -> None:
    """The file's own SQL may come from anybody; and nothing of it is to be spilled outside of scratch."""
    con.execute("PRAGMA trusted_schema = OFF")
    con.execute("PRAGMA cell_size_check = ON")
    con.execute("PRAGMA temp_store = MEMORY")
    con.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
