"""A consistent copy of a database in scratch, by whichever way disturbs nobody and leaves nothing beside it."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from flybackup.clock import Clock
from flybackup.errors import SourceError
from flybackup.sources.files.family import Family
from flybackup.sources.files.refusals import source_errors
from flybackup.sources.sqlite.connecting import (
    SUFFIXES,
    error_name,
    live_connection,
    scratch_connection,
)
from flybackup.sources.sqlite.header import HEADER_BYTES, Header, parse_header
from flybackup.sources.sqlite.live import LiveFile, NotNowError
from flybackup.sources.sqlite.resting import copy_at_rest, no_space

STEP_BYTES = 8 << 20
RESTARTS = 3
_PAUSE_SECONDS = 0.005
_BUSY_SECONDS = 0.01
_WAITS = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")
_NEEDS_RECOVERY = ("SQLITE_READONLY_ROLLBACK", "SQLITE_READONLY_RECOVERY", "SQLITE_CANTOPEN")


class Copied(NamedTuple):
    """`header` is that of the copy, with the library that wrote the original. `mode`, `mtime_ns` are the original's."""

    header: Header
    method: str
    mode: int
    mtime_ns: int


class _RestartedError(Exception):
    """Commits of other processes made a backup begin again too often."""


class _UnrecoveredError(Exception):
    """The application died in a transaction, and reading must not roll it back."""


def take_copy(path: Path, copy: Path, clock: Clock, bound_seconds: float) -> Copied:
    """Copy the database at *path* to *copy*, a file in scratch that is not there yet.

    Memory: SQLite's caches, some 6 MiB. Raise `SourceError` when it is no database, cannot be read, or when
    *bound_seconds* after the first obstacle its use still let nobody read it.
    """
    return _Copying(path, copy, clock, bound_seconds).take()


class _Copying:
    def __init__(self, path: Path, copy: Path, clock: Clock, bound_seconds: float) -> None:
        self._path = path
        self._copy = copy
        self._clock = clock
        self._bound_seconds = bound_seconds
        self._must_hold = False

    def take(self) -> Copied:
        patience = _Patience(self._clock, self._bound_seconds)
        while True:
            Family(self._copy, SUFFIXES).remove()
            with LiveFile(self._path) as live:
                with contextlib.suppress(NotNowError):
                    return self._copied(live)
                if patience.is_over():
                    raise _never_free(live)
            self._clock.sleep(_PAUSE_SECONDS)

    def _copied(self, live: LiveFile) -> Copied:
        before = live.header()
        method = self._by_best_way(live, before)
        if live.identities()[""][:2] != (live.opened.st_dev, live.opened.st_ino):
            raise NotNowError
        return Copied(
            self._header_of_copy(before.library), method, live.opened.st_mode & 0o7777, live.opened.st_mtime_ns
        )

    def _header_of_copy(self, library: str) -> Header:
        """Return what the copy says: of the live file the first page may lie in the log. Its writer is not ours."""
        with source_errors(f"cannot read the copy of {self._path}"), self._copy.open("rb") as file:
            header = parse_header(file.read(HEADER_BYTES))
        if header is None:
            raise SourceError(
                f"{self._path} is damaged: its first page is no SQLite header", hint="Restore a snapshot."
            )
        return replace(header, library=library)

    def _by_best_way(self, live: LiveFile, header: Header) -> str:
        with live.guarded():
            # Where there is a log SQLite reads it, whatever the header says.
            logged = live.header().wal or live.real.beside("-wal").exists()
            if logged and live.shares_a_log():
                # As long as our lock is held its last user cannot take log and index away, so opening makes neither.
                return self._held(live, header, "online backup, WAL, one transaction")
            hot = live.has_hot_journal()
        if logged or hot:
            return copy_at_rest(live, self._copy, self._clock)
        try:
            return self._with_rollback_journal(live, header)
        except _UnrecoveredError:
            return copy_at_rest(live, self._copy, self._clock)

    def _with_rollback_journal(self, live: LiveFile, header: Header) -> str:
        """A reader blocks a commit: let go after each step, and only where that never ends hold on."""
        if self._must_hold:
            return self._held(live, header, "online backup, rollback journal, one transaction")
        try:
            with self._live(live) as con:
                count = self._backup(con, header, self._watch(restarts=RESTARTS))
        except _RestartedError as exc:
            self._must_hold = True  # from the next moment on at which no writer has the file
            raise NotNowError from exc
        return f"online backup, rollback journal, {count} step{'s' if count > 1 else ''}"

    def _held(self, live: LiveFile, header: Header, method: str) -> str:
        """Copy in one read transaction: every step sees the same state, whoever commits meanwhile."""
        with self._live(live) as con:
            con.execute("BEGIN")
            con.execute("PRAGMA user_version").fetchall()  # a read, and so the snapshot; of the schema it needs nothing
            self._backup(con, header, self._watch(restarts=0))
            con.execute("ROLLBACK")
        return method

    @contextmanager
    def _live(self, live: LiveFile) -> Iterator[sqlite3.Connection]:
        try:
            with live_connection(live.real.path) as con:
                yield con
        except sqlite3.Error as exc:
            raise _meaning(exc, live.path) from exc

    def _backup(self, con: sqlite3.Connection, header: Header, watch: Callable[[int, int, int], None]) -> int:
        """Copy all pages and return in how many steps."""
        steps = 0

        def step(status: int, remaining: int, total: int) -> None:
            nonlocal steps
            steps += 1
            watch(status, remaining, total)

        with scratch_connection(self._copy) as target:
            target.execute("PRAGMA journal_mode = OFF")
            con.backup(target, pages=STEP_BYTES // header.page_bytes, progress=step, sleep=_BUSY_SECONDS)
        return steps

    def _watch(self, *, restarts: int) -> Callable[[int, int, int], None]:
        """Return what SQLite calls after each step, to stop a backup that waits too long or begins again too often."""
        least, seen = -1, 0
        patience = _Patience(self._clock, self._bound_seconds)

        def watch(status: int, remaining: int, _: int) -> None:
            nonlocal least, seen
            if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                if patience.is_over():
                    raise NotNowError
                return
            patience.renew()
            seen += 0 <= least <= remaining
            least = remaining
            if restarts and seen >= restarts:
                raise _RestartedError

        return watch


class _Patience:
    """Is over *bound_seconds* after it was first asked for."""

    def __init__(self, clock: Clock, bound_seconds: float) -> None:
        self._clock = clock
        self._bound_seconds = bound_seconds
        self._until: float | None = None

    def renew(self) -> None:
        self._until = None

    def is_over(self) -> bool:
        now = self._clock.monotonic()
        self._until = now + self._bound_seconds if self._until is None else self._until
        return now > self._until


def _never_free(live: LiveFile) -> SourceError:
    message = f"{live.path} could not be read consistently: {live.user() or 'somebody'} kept it locked or changing"
    hint = "A long transaction, or PRAGMA locking_mode = EXCLUSIVE in the application? Try again when it is over."
    return SourceError(message, hint=hint)


def _meaning(exc: sqlite3.Error, path: Path) -> Exception:
    name = error_name(exc)
    if name.startswith(_WAITS):
        return NotNowError()
    if name.startswith(_NEEDS_RECOVERY):
        return _UnrecoveredError()
    if name.startswith("SQLITE_FULL"):
        return no_space(path)
    return SourceError(f"SQLite cannot read {path}: {exc}", hint="Is it a SQLite database, and not encrypted?")
