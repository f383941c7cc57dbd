"""The SQLite source: one database file."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flybackup.clock import Clock, SystemClock
from flybackup.manifest import Kept
from flybackup.model import Facts
from flybackup.sources import Capture, Restoration, RestoreOptions, Stream
from flybackup.sources.files import staging
from flybackup.sources.files.family import Family
from flybackup.sources.files.refusals import refuse_taken
from flybackup.sources.files.restoration import first_entry_mode
from flybackup.sources.sqlite.capture import SqliteCapture, facts_of
from flybackup.sources.sqlite.connecting import SUFFIXES
from flybackup.sources.sqlite.copying import Copied, take_copy
from flybackup.sources.sqlite.extraction import extract_tables
from flybackup.sources.sqlite.measuring import Measuring
from flybackup.sources.sqlite.restoration import SqliteRestoration


class SqliteSource:
    """The database file at *path*. `checksums` also digests every table's content (a full scan).

    `bound_seconds` is how long a capture may wait for locks or a quiet moment after it first met an obstacle. Scratch
    space: a whole copy. Memory: about 10 MiB, with `checksums` also the largest row.
    """

    kind = "sqlite"
    fixes_view = True

    def __init__(
        self, path: Path, *, checksums: bool = False, bound_seconds: float = 300.0, clock: Clock | None = None
    ) -> None:
        self.path = path
        self._checksums = checksums
        self._bound_seconds = bound_seconds
        self._clock = clock or SystemClock()

    @contextmanager
    def capture(
        self,
        scratch: Path,
        previous: Iterable[Kept] = (),  # noqa: ARG002  # of the seam; every page is read
    ) -> Iterator[Capture]:
        """See `Source.capture`. The copy is made at once; it is measured while it is read."""
        with self._copied(scratch, checksums=self._checksums) as (copy, copied, measuring):
            yield SqliteCapture(self.path, copy, copied, measuring, checksums=self._checksums)

    def refuse(self, options: RestoreOptions) -> None:
        """See `Refusing`."""
        refuse_taken(Family(self.path, SUFFIXES), options)

    @contextmanager
    def restore(self, streams: Iterator[Stream], options: RestoreOptions, scratch: Path) -> Iterator[Restoration]:
        """See `Source.restore`. The database comes back as one file; `tables` makes a new file with those only."""
        refuse_taken(Family(self.path, SUFFIXES), options)
        staged = Family(staging.staged_name(self.path), SUFFIXES)
        modes: list[int | None] = []
        try:
            self._stage(first_entry_mode(streams, modes), staged, options, scratch)
            yield SqliteRestoration(staged, self.path, modes[0], options.facts, self._clock, replace=options.replace)
        finally:
            staged.remove()

    def _stage(self, streams: Iterator[Stream], staged: Family, options: RestoreOptions, scratch: Path) -> None:
        if not options.tables:
            staging.write_streams(streams, staged)
            return
        whole = staged.at(scratch / "whole.db")
        try:
            staging.write_streams(streams, whole)
            extract_tables(whole.path, staged.path, options.tables)
            staging.sync(staged.path)
        finally:
            whole.remove()

    def probe(self, *, checksums: bool, scratch: Path) -> Facts:
        """Measure a copy of the file as it is now: it may be in use."""
        with self._copied(scratch, checksums=checksums) as (_, copied, measuring):
            return facts_of(copied.header, measuring.result(), checksums=checksums)

    @contextmanager
    def _copied(self, scratch: Path, *, checksums: bool) -> Iterator[tuple[Path, Copied, Measuring]]:
        copy = Family(scratch / "copy.db", SUFFIXES)
        try:
            copied = take_copy(self.path, copy.path, self._clock, self._bound_seconds)
            with Measuring(copy.path, f"a copy of {self.path}", checksums=checksums) as measuring:
                yield copy.path, copied, measuring
        finally:
            copy.remove()
