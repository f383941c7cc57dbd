"""PostgreSQL databases, 13 to 18: dump and row counts of one snapshot; restored beside, proved, then swapped in."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from flybackup.clock import Clock, SystemClock
from flybackup.manifest import Kept
from flybackup.model import Facts
from flybackup.sources import Capture, Restoration, RestoreOptions, Stream
from flybackup.sources.postgres import capture, facts, restore
from flybackup.sources.postgres.connection import connected, parse, redact
from flybackup.sources.postgres.obstacles import Finding, preflight, preflight_restore

__all__ = ["Finding", "PostgresSource", "preflight", "preflight_restore", "redact"]


class PostgresSource:
    """One database, by its URL.

    Args:
        url: `postgresql://user@host:port/database?…`; what it leaves out comes from the `PG*` environment variables.
        checksums: Digest the content of every table at a capture, which takes about as long again as the dump.
        clients: Directories with `pg_dump` and `pg_restore` to look in first.
        lock_timeout_seconds: How long a capture waits for one table's lock before it gives up.
        clock: For the names of what a restore keeps aside.

    Raises `ConfigError` when the URL cannot be.
    """

    def __init__(
        self,
        url: str,
        *,
        checksums: bool = False,
        clients: Sequence[Path] = (),
        lock_timeout_seconds: float = 30,
        clock: Clock | None = None,
    ) -> None:
        self.address = parse(url)
        self._checksums = checksums
        self._clients = tuple(clients)
        self._lock_timeout_seconds = lock_timeout_seconds
        self._clock = clock or SystemClock()

    @property
    def kind(self) -> str:
        return "postgres"

    @property
    def fixes_view(self) -> bool:
        return True

    def capture(
        self,
        scratch: Path,  # noqa: ARG002  # of the seam; nothing is written
        previous: Iterable[Kept] = (),  # noqa: ARG002  # likewise; pg_dump reads everything
    ) -> AbstractContextManager[Capture]:
        return capture.capture(
            self.address,
            checksums=self._checksums,
            first=self._clients,
            lock_timeout_seconds=self._lock_timeout_seconds,
        )

    def restore(
        self, streams: Iterator[Stream], options: RestoreOptions, scratch: Path
    ) -> AbstractContextManager[Restoration]:
        return restore.restore(self.address, streams, options, scratch, first=self._clients, clock=self._clock)

    def refuse(self, options: RestoreOptions) -> None:
        """See `Refusing.refuse`."""
        restore.refuse(self.address, options)

    def probe(self, *, checksums: bool, scratch: Path) -> Facts:  # noqa: ARG002  # of the seam; nothing is written
        with connected(self.address) as connection:
            return facts.measure(connection, checksums=checksums)
