"""A restored database beside its target: probed there, then published, kept aside, or removed."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from flybackup.clock import Clock
from flybackup.errors import RefusedError, SourceError
from flybackup.model import Facts
from flybackup.sources import RestoreOptions, Stream
from flybackup.sources.duckdb import locks, publishing, staging
from flybackup.sources.duckdb.capture import engine_name
from flybackup.sources.duckdb.layout import HEADER_BYTES, Header, NotDuckdbError, TornError, parse_header
from flybackup.sources.duckdb.validation import ValidationError, Validator, table_facts
from flybackup.sources.duckdb.wal import logs_of


class DuckdbRestoration:
    """The database at *staged*, complete and synced; its target is *target*."""

    def __init__(
        self, staged: Path, target: Path, mode: int | None, validator: Validator, clock: Clock, *, replace: bool
    ) -> None:
        self._staged = staged
        self._target = target
        self._mode = mode
        self._validator = validator
        self._clock = clock
        self._replace = replace

    def probe(self, *, checksums: bool) -> Facts:
        """Let DuckDB read the staged file, in a child. Raise `SourceError` when it cannot."""
        job = {"job": "measure_file", "path": str(self._staged), "checksums": checksums}
        try:
            answer = self._validator.ask(job, size=_size(self._staged), log_bytes=_log_bytes(self._staged))
        except ValidationError as exc:
            raise SourceError(f"DuckDB cannot read the restored database: {exc}", hint="Try another snapshot.") from exc
        return Facts(tables=table_facts(answer), engine=engine_name(_header(self._staged)))

    def publish(self) -> tuple[str, ...]:
        refuse_in_use(self._target)
        with source_errors(f"cannot set the mode of the restored {self._target.name}"):
            self._set_mode()
        return publishing.publish(self._staged, self._target, self._clock.now(), replace=self._replace)

    def keep(self) -> str:
        with source_errors(f"cannot keep the restored database beside {self._target}"):
            return str(publishing.leave_aside(self._staged, self._target, self._clock.now()))

    def _set_mode(self) -> None:
        """Give the files the entry's mode and, run by root, the owner of what they replace: the application's user."""
        like = (self._target if self._target.exists() else self._target.parent).stat()
        for path in staging.family(self._staged):
            path.chmod(self._mode if self._mode is not None else staging.PRIVATE_MODE)
            with contextlib.suppress(PermissionError):
                os.chown(path, like.st_uid, like.st_gid)


@contextlib.contextmanager
def source_errors(what: str) -> Iterator[None]:
    """Turn what the operating system refuses into a `SourceError` that begins with *what* could not be done."""
    try:
        yield
    except OSError as exc:
        raise SourceError(f"{what}: {exc.strerror}", hint="Check the directory and its rights.") from exc


def refuse_taken(target: Path, options: RestoreOptions) -> None:
    """Raise `RefusedError` when *target* is in use or may not be replaced, `SourceError` without a directory."""
    with source_errors(f"cannot look at {target}"):
        _refuse_taken(target, options)


def _refuse_taken(target: Path, options: RestoreOptions) -> None:
    if not target.parent.is_dir():
        raise SourceError(f"{target.parent} is not a directory", hint="Make it first; is the volume mounted?")
    if target.is_dir():
        raise RefusedError(f"{target} is a directory", hint="A DuckDB database is restored to a file path.")
    if target.is_symlink():
        hint = f"Name the file it leads to: {target.resolve()}"
        raise RefusedError(f"{target} is a symbolic link, so the logs of a database there may lie elsewhere", hint=hint)
    if os.path.lexists(target) and not options.replace:
        hint = "Restore to another path, or say --replace: the old database is then kept aside."
        raise RefusedError(f"{target} exists", hint=hint)
    if os.path.lexists(target) and options.tables:
        hint = "Name a new file: it will hold those tables only. Copy them over with DuckDB, then."
        raise RefusedError(f"--table would replace all of {target} by a part of it", hint=hint)
    refuse_in_use(target)


def refuse_in_use(target: Path) -> None:
    """Raise `RefusedError` when a process has *target* or one of its logs open or locked."""
    present = staging.family(target)
    holder = next(locks.openers(present), None) or next(filter(None, map(_locker, present)), None)
    if holder is not None or any(map(locks.locked_by_this_process, present)):
        who = holder or "this process"
        raise RefusedError(f"{target} is in use by {who}", hint="Stop the application, then restore again.")


def _locker(path: Path) -> locks.Holder | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return locks.user_of(fd)
    finally:
        os.close(fd)


def first_entry_mode(streams: Iterator[Stream], modes: list[int | None]) -> Iterator[Stream]:
    """Pass *streams* on and note each entry's mode in *modes*."""
    for stream in streams:
        modes.append(stream.entry.mode)
        yield stream


def extract_tables(source: Path, target: Path, tables: Sequence[str], validator: Validator) -> None:
    """Make *target* of only *tables* of *source*, in a child."""
    header = _header(source)
    job = {
        "job": "extract",
        "path": str(source),
        "target": str(target),
        "tables": list(tables),
        "block_bytes": header.block_bytes,
        "storage_version": header.storage_version,
    }
    try:
        answer = validator.ask(job, size=_size(source), log_bytes=_log_bytes(source))
    except ValidationError as exc:
        raise SourceError(f"cannot take single tables out of the snapshot: {exc}", hint="Restore all of it.") from exc
    if "refused" in answer:
        raise RefusedError(str(answer["refused"]), hint=str(answer["hint"]))


def _size(path: Path) -> int:
    with source_errors(f"cannot look at {path}"):
        return path.stat().st_size


def _log_bytes(database: Path) -> int:
    return sum(_size(path) for path in logs_of(database))


def _header(path: Path) -> Header:
    """Return the header of a file that nobody writes. Raise `SourceError` when it is no DuckDB database."""
    with source_errors(f"cannot read {path}"), path.open("rb") as file:
        try:
            return parse_header(file.read(HEADER_BYTES))
        except (TornError, NotDuckdbError) as exc:
            raise SourceError(
                f"the restored {path.name} is not a DuckDB database", hint="Try another snapshot."
            ) from exc
