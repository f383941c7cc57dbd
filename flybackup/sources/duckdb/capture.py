"""A capture: the raw-copy protocol, then DuckDB's own reading of what was copied."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flybackup.chunking import Extent, Fixed
from flybackup.clock import Clock
from flybackup.errors import SourceError
from flybackup.model import Entry, Facts, TableFacts
from flybackup.sources import Captured, Stream
from flybackup.sources.duckdb.kept import KeptBlocks
from flybackup.sources.duckdb.layout import HEADER_BYTES, Header, TornError
from flybackup.sources.duckdb.live import LiveFile
from flybackup.sources.duckdb.protocol import RawCopy, View
from flybackup.sources.duckdb.validation import ValidationError, Validator, table_facts
from flybackup.sources.duckdb.walcopy import WalCopy, checkpoint_running
from flybackup.sources.files.extents import file_extents

_LIVE_TRIES = 2
_CHECKPOINT_WAIT_SECONDS = 5.0
_CHECKPOINT_PAUSE_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Outcome:
    view: View
    tables: dict[str, TableFacts]
    passes: int
    staged: bool


class DuckdbCapture:
    """One capture of an open file. *scratch* holds the logs, the metadata blocks and, when staged, a whole copy."""

    def __init__(
        self,
        live: LiveFile,
        validator: Validator,
        scratch: Path,
        clock: Clock,
        *,
        checksums: bool,
        bound_seconds: float,
    ) -> None:
        self._live = live
        self._validator = validator
        self._scratch = scratch
        self._clock = clock
        self._checksums = checksums
        self._copy = RawCopy(live, scratch / "database.duckdb", clock, bound_seconds)
        self._outcome: Outcome | None = None

    def streams(self) -> Iterator[Stream]:
        """Yield the database in its own blocks, then its logs. The buffer of an extent is used again for the next."""
        header = self._live.header(self._clock)
        self._validator.start()
        opened = self._live.opened
        entry = Entry(
            path=self._live.path.name,
            kind="file",
            size=opened.st_size,
            mode=opened.st_mode & 0o7777,
            mtime_ns=opened.st_mtime_ns,
        )
        yield Stream(entry, _translated(self._live, self._database()), Fixed(HEADER_BYTES, header.block_bytes))
        for log in self._finished().view.logs:
            if log.size:
                yield self._log_stream(log)

    def _log_stream(self, log: WalCopy) -> Stream:
        entry = Entry(
            path=self._live.path.name + log.suffix, kind="file", size=log.size, mode=log.mode, mtime_ns=log.mtime_ns
        )
        return Stream(entry, file_extents(log.copy))

    def finish(self) -> Captured:
        outcome = self._finished()
        view = outcome.view
        passes = f"{outcome.passes} pass{'es' if outcome.passes > 1 else ''}"
        method = f"raw-copy, {view.grade}, {passes}{', staged' if outcome.staged else ''}"
        return Captured(_facts(outcome, checksums=self._checksums), method, _warnings(view))

    def _finished(self) -> Outcome:
        if self._outcome is None:
            raise SourceError(f"the copy of {self._live.path} was not read to its end")
        return self._outcome

    def _database(self) -> Iterator[Extent]:
        if (self._checksums and self._live.writer()) or not (yield from self._validated_live()):
            yield from self._validated_staged()
        yield Extent(self._finished().view.size, b"")

    def _validated_live(self) -> Generator[Extent, None, bool]:
        """Copy, and validate with DuckDB reading from the live file. Return False when that proved nothing.

        A second try gives only what changed since the first.
        """
        with KeptBlocks(self._scratch / "kept.duckdb", everything=False) as kept:
            for _ in range(_LIVE_TRIES):
                view = yield from self._copy.extents(kept)
                kept.write_map(self._scratch / "kept.map")
                tables = self._measured_live(view, kept)
                if tables is not None:
                    self._outcome = Outcome(view, tables, self._copy.passes, staged=False)
                    return True
        return False

    def _measured_live(self, view: View, kept: KeptBlocks) -> dict[str, TableFacts] | None:
        """Return what DuckDB found; None when the live file changed under it (or is bad: a staged copy will tell)."""
        try:
            answer = self._validator.ask(self._layers_job(view, kept), size=view.size, log_bytes=view.log_bytes)
        except ValidationError:
            self._validator.start()  # the next try copies first: time enough for a new child's imports
            return None
        return table_facts(answer) if self._is_still(view, answer["live_blocks"]) else None

    def _validated_staged(self) -> Generator[Extent, None, None]:
        """Copy into scratch as well and validate there; once again from the beginning when DuckDB rejects it."""
        try:
            yield from self._staged()
        except ValidationError:
            try:
                yield from self._staged()
            except ValidationError as exc:
                message = f"DuckDB cannot read a consistent copy of {self._live.path}: {exc}"
                hint = (
                    "Either a newer DuckDB than flybackup's wrote it, or the database itself is damaged: "
                    "let the application's DuckDB read all of its tables, or restore the newest snapshot beside it."
                )
                raise SourceError(message, hint=hint) from exc

    def _staged(self) -> Generator[Extent, None, None]:
        self._validator.start()
        with KeptBlocks(self._scratch / "database.duckdb", everything=True) as kept:
            view = yield from self._copy.extents(kept)
            job = {"job": "measure_file", "path": str(kept.path), "checksums": self._checksums}
            answer = self._validator.ask(job, size=view.size, log_bytes=view.log_bytes)
            self._outcome = Outcome(view, table_facts(answer), self._copy.passes, staged=True)

    def _layers_job(self, view: View, kept: KeptBlocks) -> dict[str, Any]:
        return {
            "job": "measure_layers",
            "live_fd": self._live.fd,
            "kept": str(kept.path),
            "kept_map": str(self._scratch / "kept.map"),
            "block_bytes": view.header.block_bytes,
            "size": view.size,
            "logs": {log.suffix: str(log.copy) for log in view.logs if log.size},
            "checksums": self._checksums,
        }

    def _is_still(self, view: View, live_blocks: list[tuple[int, int]]) -> bool:
        """Tell whether the blocks DuckDB read from the live file were those of the snapshot, by the protocol's rule."""
        if not live_blocks:
            return True
        if not self._checkpoint_is_over():
            return False
        header = self._live.header(self._clock)
        if header.raw == view.header.raw:
            return True
        return header.iteration == view.header.iteration + 1 and self._all_unmoved(view, header, live_blocks)

    def _checkpoint_is_over(self) -> bool:
        until = self._clock.monotonic() + _CHECKPOINT_WAIT_SECONDS
        while self._live.writer() is not None and checkpoint_running(self._live.path):
            if self._clock.monotonic() > until:
                return False
            self._clock.sleep(_CHECKPOINT_PAUSE_SECONDS)
        return True

    def _all_unmoved(self, view: View, header: Header, live_blocks: list[tuple[int, int]]) -> bool:
        """Tell whether every block was used before and after the one checkpoint since, and was never metadata."""
        try:
            now = self._live.block_map(header)
        except TornError:
            return False
        if self._live.raw_header() != header.raw:
            return False
        end = min(view.header.block_count, header.block_count)
        moved = (now.free[:end] | now.metadata[:end]) | (view.blocks.free[:end] | view.blocks.metadata[:end])
        return all(last <= end and not moved[first:last].any() for first, last in live_blocks)


def _facts(outcome: Outcome, *, checksums: bool) -> Facts:
    header, view = outcome.view.header, outcome.view
    details = {
        "block_bytes": str(header.block_bytes),
        "iteration": str(header.iteration),
        "grade": view.grade,
        "passes": str(outcome.passes),
    }
    if view.writer is not None:
        details["writer"] = str(view.writer)
    if checksums:
        details["checksum"] = "sum and xor of DuckDB's hash() of each row"
    return Facts(tables=outcome.tables, engine=engine_name(header), details=details)


def engine_name(header: Header) -> str:
    """Return what created the file and in which format; the version that writes it now is not recorded in it."""
    return f"DuckDB {header.library_version} (storage {header.storage_version})"


def _warnings(view: View) -> tuple[str, ...]:
    warnings = []
    if view.filesystem is not None:
        warnings.append(
            f"the file lies on {view.filesystem}: a process on another machine that writes it cannot be seen, and a "
            "copy taken while it does may mix two states; run flybackup where the application runs"
        )
    if view.grade == "degraded":
        warnings.append(
            "checkpoints never paused, so this copy was taken during one; DuckDB read it without an error, "
            "but take another when there is less writing"
        )
    if view.writer_version is not None and view.writer_version.startswith("1.5."):
        warnings.append(
            f"{view.writer} runs DuckDB {view.writer_version}: a crash during a checkpoint can damage its file "
            "(duckdb#25106); upgrade the application to DuckDB 2.0"
        )
    return tuple(warnings)


def _translated(live: LiveFile, extents: Iterator[Extent]) -> Iterator[Extent]:
    try:
        yield from extents
    except OSError as exc:
        raise SourceError(f"cannot read {exc.filename or live.path}: {exc.strerror}") from exc
