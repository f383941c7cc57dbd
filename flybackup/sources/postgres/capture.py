"""Dump a database and count its rows in one and the same snapshot.

`view` exports the snapshot with every table locked. Then `pg_dump --snapshot` is started, and has read the catalog and
locked the tables itself before anything is given out. While its output is read, the exporting session, which must stay
open, counts.
"""

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from flybackup.chunking import Extent
from flybackup.errors import SourceError
from flybackup.model import Entry, Facts
from flybackup.sources import Captured, Stream
from flybackup.sources.postgres import catalog, clients, facts, globals as cluster
from flybackup.sources.postgres.clients import Client
from flybackup.sources.postgres.connection import Address, Connection, connected, translated
from flybackup.sources.postgres.obstacles import findings
from flybackup.sources.postgres.process import dump_command, running
from flybackup.sources.postgres.view import View, exported
from flybackup.sources.programs.running import Program

_DUMP_ATTEMPTS: Final = 3
_QUEUE_ATTEMPTS: Final = 10
_QUEUE_CHECK_SECONDS: Final = 0.25
# Somebody waits for us, and somebody else for him.
_QUEUE: Final = """
    SELECT EXISTS (SELECT FROM pg_catalog.pg_locks first, pg_catalog.pg_locks second
        WHERE NOT first.granted AND NOT second.granted
          AND pg_catalog.pg_backend_pid() = ANY (pg_catalog.pg_blocking_pids(first.pid))
          AND first.pid = ANY (pg_catalog.pg_blocking_pids(second.pid)))
"""
_HEAD_BYTES: Final = 8


class PostgresCapture:
    """An exported snapshot and the pg_dump that reads it; lives as long as the session that exported it."""

    def __init__(self, connection: Connection, address: Address, begun: "Begun", *, checksums: bool) -> None:
        self._connection = connection
        self._address = address
        self._begun = begun
        self._here = catalog.server(connection)
        self._measurement = facts.Measurement(connection, begun.view.relations, checksums=checksums)
        self._active: Generator[Extent] | None = None
        self._finished = False

    def streams(self) -> Iterator[Stream]:
        """Yield the globals, which a restore needs first, then the dump."""
        content = cluster.dump(self._begun.view.globals)
        yield Stream(Entry(path="globals", kind="dump", size=len(content)), iter([Extent(0, content)]))
        self._active = self._dump()
        yield Stream(Entry(path="dump", kind="dump"), self._active)

    def finish(self) -> Captured:
        if not self._finished:
            raise SourceError("the dump was not read to its end")
        view, client = self._begun.view, self._begun.client
        versions = {"client_version": client.version, "archive_version": archive_version(self._begun.head)}
        measured = Facts(
            tables=self._measurement.tables,
            engine=f"PostgreSQL {self._here.version}",
            sequences=view.sequences,
            details=view.details | versions,
        )
        said = [line for line in self._begun.program.last_words().splitlines() if "warning:" in line]
        method = f"pg_dump {client.version} -Fc in exported snapshot"
        return Captured(measured, method, (*view.warnings, *self._measurement.warnings, *said))

    def close(self) -> None:
        """End the count where a reader has given up."""
        if self._active is not None:
            self._active.close()

    def _dump(self) -> Generator[Extent]:
        with self._counting() as counted:
            yield self._begun.first
            for extent in self._begun.rest:
                yield extent
                if counted.done():
                    # A failed count spoils the snapshot: say so now, not after the rest of the dump.
                    counted.result()
            counted.result()
        self._finished = True

    @contextmanager
    def _counting(self) -> Generator["Future[None]"]:
        """Count in the snapshot's own session while the block runs; when the block fails, stop counting."""
        with translated(self._address, doing="cannot count the rows"), ThreadPoolExecutor(1, "count") as pool:
            counted = pool.submit(self._measurement.run)
            try:
                yield counted
            except BaseException:
                if not counted.done():
                    self._measurement.stop()
                raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A dump under way: pg_dump has read the catalog and has its own locks. `head` is a copy of the first bytes."""

    view: View
    client: Client
    program: Program
    head: bytes
    first: Extent
    rest: Iterator[Extent]


@contextmanager
def capture(
    address: Address, *, checksums: bool, first: Sequence[Path], lock_timeout_seconds: float
) -> Generator[PostgresCapture]:
    """Open a snapshot of the database. Raise `SourceError` when something speaks against it."""
    with connected(address) as connection:
        found = findings(connection, first)
        if errors := [finding for finding in found if finding.level == "error"]:
            raise SourceError(
                f"{address.url}: " + "; ".join(error.what for error in errors),
                hint="; ".join(dict.fromkeys(error.do for error in errors if error.do)),
            )
        client = clients.for_dump(catalog.server(connection).major, clients.installed(first))
        with _begun(connection, address, client, lock_timeout_seconds) as begun:
            begun.view.warnings[:0] = [f"{finding.what} ({finding.do})" for finding in found]
            with closing(PostgresCapture(connection, address, begun, checksums=checksums)) as opened:
                yield opened


@contextmanager
def _begun(connection: Connection, address: Address, client: Client, lock_timeout_seconds: float) -> Generator[Begun]:
    """Export a snapshot and start pg_dump in it, until pg_dump has its locks.

    A migration may have queued for its exclusive lock between our lock and pg_dump's. Then pg_dump, and the application
    with it, waits for the migration, which waits for us. Starting again lets them through, as long as nothing was
    handed out.
    """
    with ExitStack() as stack:
        for attempt in count():
            view = exported(connection, address, lock_timeout_seconds=lock_timeout_seconds)
            options = (f"--snapshot={view.snapshot}", f"--lock-wait-timeout={round(lock_timeout_seconds * 1000)}")
            program = stack.enter_context(running(dump_command(client, address, *options), address))
            extents = program.output()
            try:
                while not program.has_output(_QUEUE_CHECK_SECONDS):
                    _refuse_queue(connection)
                head = next(extents)
            except SourceError as error:
                stack.pop_all().close()
                connection.execute("ROLLBACK")
                if attempt + 1 >= (_QUEUE_ATTEMPTS if isinstance(error, _QueuedError) else _DUMP_ATTEMPTS):
                    raise
            else:
                start = bytes(head.data[:_HEAD_BYTES])
                yield Begun(view=view, client=client, program=program, head=start, first=head, rest=extents)
                return


class _QueuedError(SourceError):
    """Others wait for our locks: not a failure, but a reason to start again."""


def _refuse_queue(connection: Connection) -> None:
    (queued,) = catalog.one(connection, _QUEUE)
    if queued:
        raise _QueuedError(
            "a session waits for a lock that the capture holds, and others queue behind it",
            hint="back up when no migration is running",
        )


def archive_version(head: bytes) -> str:
    """Return the version in the head of a custom-format archive: `PGDMP`, then three bytes (pg_backup_archiver.c)."""
    if len(head) < _HEAD_BYTES or not head.startswith(b"PGDMP"):
        raise SourceError("pg_dump did not write an archive", hint="is the pg_dump that was found the real one?")
    return f"{head[5]}.{head[6]}"
