"""The DuckDB source: one database file, with the logs beside it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flybackup.clock import Clock, SystemClock
from flybackup.manifest import Kept
from flybackup.model import Facts
from flybackup.sources import Capture, Restoration, RestoreOptions, Stream
from flybackup.sources.duckdb.capture import DuckdbCapture
from flybackup.sources.duckdb.live import LiveFile
from flybackup.sources.duckdb.restoration import DuckdbRestoration, extract_tables
from flybackup.sources.duckdb.validation import Validator
from flybackup.sources.duckdb.wal import WAL_SUFFIXES
from flybackup.sources.files import staging
from flybackup.sources.files.family import Family
from flybackup.sources.files.refusals import refuse_taken
from flybackup.sources.files.restoration import first_entry_mode


class DuckdbSource:
    """The database file at *path*. `checksums` also digests every table's content (a full scan).

    `bound_seconds` is how long a capture may look for a consistent copy after its first pass over the file.
    """

    kind = "duckdb"
    fixes_view = False

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
        previous: Iterable[Kept] = (),  # noqa: ARG002  # of the seam; every block is read
    ) -> Iterator[Capture]:
        """See `Source.capture`. Raises `SourceError` also while the streams are read."""
        with self._opened(scratch, checksums=self._checksums) as capture:
            yield capture

    @contextmanager
    def restore(self, streams: Iterator[Stream], options: RestoreOptions, scratch: Path) -> Iterator[Restoration]:
        """See `Source.restore`. The database comes back byte for byte, with its log; `tables` makes a new file."""
        self.refuse(options)
        staged = Family(staging.staged_name(self.path), WAL_SUFFIXES)
        modes: list[int | None] = []
        try:
            with Validator(scratch) as validator:
                validator.start()
                self._stage(first_entry_mode(streams, modes), staged, options, scratch, validator)
                yield DuckdbRestoration(staged, self.path, modes[0], validator, self._clock, replace=options.replace)
        finally:
            staged.remove()

    def refuse(self, options: RestoreOptions) -> None:
        """See `Refusing.refuse`."""
        refuse_taken(Family(self.path, WAL_SUFFIXES), options)

    def _stage(
        self, streams: Iterator[Stream], staged: Family, options: RestoreOptions, scratch: Path, validator: Validator
    ) -> None:
        if not options.tables:
            staging.write_streams(streams, staged)
            return
        whole = staged.at(scratch / "whole.duckdb")
        try:
            staging.write_streams(streams, whole)
            extract_tables(whole, staged.path, options.tables, validator)
        finally:
            whole.remove()

    def probe(self, *, checksums: bool, scratch: Path) -> Facts:
        """Measure the file as it is now by capturing it into nothing: it may be in use."""
        with self._opened(scratch, checksums=checksums) as capture:
            for stream in capture.streams():
                for _ in stream.extents:
                    pass
            return capture.finish().facts

    @contextmanager
    def _opened(self, scratch: Path, *, checksums: bool) -> Iterator[DuckdbCapture]:
        with LiveFile(self.path) as live, Validator(scratch, inherit=(live.fd,)) as validator:
            yield DuckdbCapture(
                live, validator, scratch, self._clock, checksums=checksums, bound_seconds=self._bound_seconds
            )
