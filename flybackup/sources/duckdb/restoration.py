"""A restored database beside its target: probed there, then published, kept aside, or removed."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from flybackup.clock import Clock
from flybackup.errors import RefusedError, SourceError
from flybackup.model import Facts
from flybackup.sources import Stream
from flybackup.sources.duckdb.capture import engine_name
from flybackup.sources.duckdb.layout import HEADER_BYTES, Header, NotDuckdbError, TornError, parse_header
from flybackup.sources.duckdb.validation import ValidationError, Validator, table_facts
from flybackup.sources.files import publishing, staging
from flybackup.sources.files.family import Family
from flybackup.sources.files.refusals import refuse_in_use, source_errors


class DuckdbRestoration:
    """The database *staged*, complete and synced; its target is *target*."""

    def __init__(
        self, staged: Family, target: Path, mode: int | None, validator: Validator, clock: Clock, *, replace: bool
    ) -> None:
        self._staged = staged
        self._target = target
        self._mode = mode
        self._validator = validator
        self._clock = clock
        self._replace = replace

    def probe(self, *, checksums: bool) -> Facts:
        """Let DuckDB read the staged file, in a child. Raise `SourceError` when it cannot."""
        job = {"job": "measure_file", "path": str(self._staged.path), "checksums": checksums}
        try:
            answer = self._validator.ask(job, size=_size(self._staged.path), log_bytes=_log_bytes(self._staged))
        except ValidationError as exc:
            raise SourceError(f"DuckDB cannot read the restored database: {exc}", hint="Try another snapshot.") from exc
        return Facts(tables=table_facts(answer), engine=engine_name(_header(self._staged.path)))

    def publish(self) -> tuple[str, ...]:
        refuse_in_use(self._staged.at(self._target))
        with source_errors(f"cannot set the mode of the restored {self._target.name}"):
            self._set_mode()
        return publishing.publish(self._staged, self._target, self._clock.now(), replace=self._replace)

    def keep(self) -> str:
        with source_errors(f"cannot keep the restored database beside {self._target}"):
            return str(publishing.leave_aside(self._staged, self._target, self._clock.now()))

    def _set_mode(self) -> None:
        """Give the files the entry's mode and, run by root, the owner of what they replace: the application's user."""
        like = (self._target if self._target.exists() else self._target.parent).stat()
        for path in self._staged.members():
            path.chmod(self._mode if self._mode is not None else staging.PRIVATE_MODE)
            with contextlib.suppress(PermissionError):
                os.chown(path, like.st_uid, like.st_gid)


def first_entry_mode(streams: Iterator[Stream], modes: list[int | None]) -> Iterator[Stream]:
    """Pass *streams* on and note each entry's mode in *modes*."""
    for stream in streams:
        modes.append(stream.entry.mode)
        yield stream


def extract_tables(source: Family, target: Path, tables: Sequence[str], validator: Validator) -> None:
    """Make *target* of only *tables* of *source*, in a child."""
    header = _header(source.path)
    job = {
        "job": "extract",
        "path": str(source.path),
        "target": str(target),
        "tables": list(tables),
        "block_bytes": header.block_bytes,
        "storage_version": header.storage_version,
    }
    try:
        answer = validator.ask(job, size=_size(source.path), log_bytes=_log_bytes(source))
    except ValidationError as exc:
        raise SourceError(f"cannot take single tables out of the snapshot: {exc}", hint="Restore all of it.") from exc
    if "refused" in answer:
        raise RefusedError(str(answer["refused"]), hint=str(answer["hint"]))


def _size(path: Path) -> int:
    with source_errors(f"cannot look at {path}"):
        return path.stat().st_size


def _log_bytes(database: Family) -> int:
    return sum(_size(path) for path in database.companions())


def _header(path: Path) -> Header:
    """Return the header of a file that nobody writes. Raise `SourceError` when it is no DuckDB database."""
    with source_errors(f"cannot read {path}"), path.open("rb") as file:
        try:
            return parse_header(file.read(HEADER_BYTES))
        except (TornError, NotDuckdbError) as exc:
            raise SourceError(
                f"the restored {path.name} is not a DuckDB database", hint="Try another snapshot."
            ) from exc
