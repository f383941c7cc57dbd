"""A restored DuckDB database beside its target: probed there, in a child."""

from collections.abc import Sequence
from pathlib import Path

from flybackup.clock import Clock
from flybackup.errors import RefusedError, SourceError
from flybackup.model import Facts
from flybackup.sources.duckdb.capture import engine_name
from flybackup.sources.duckdb.layout import HEADER_BYTES, Header, NotDuckdbError, TornError, parse_header
from flybackup.sources.duckdb.validation import ValidationError, Validator, table_facts
from flybackup.sources.files.family import Family
from flybackup.sources.files.refusals import source_errors
from flybackup.sources.files.restoration import FileRestoration


class DuckdbRestoration(FileRestoration):
    """The database *staged*, complete and synced; its target is *target*."""

    def __init__(
        self, staged: Family, target: Path, mode: int | None, validator: Validator, clock: Clock, *, replace: bool
    ) -> None:
        super().__init__(staged, target, mode, clock, replace=replace)
        self._validator = validator

    def probe(self, *, checksums: bool) -> Facts:
        """Let DuckDB read the staged file, in a child. Raise `SourceError` when it cannot."""
        job = {"job": "measure_file", "path": str(self._staged.path), "checksums": checksums}
        try:
            answer = self._validator.ask(job, size=_size(self._staged.path), log_bytes=_log_bytes(self._staged))
        except ValidationError as exc:
            raise SourceError(f"DuckDB cannot read the restored database: {exc}", hint="Try another snapshot.") from exc
        return Facts(tables=table_facts(answer), engine=engine_name(_header(self._staged.path)))


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
