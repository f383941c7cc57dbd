"""A capture: a copy in scratch, read as a stream while it is measured."""

from collections.abc import Iterator
from pathlib import Path

from flybackup.chunking import Fixed
from flybackup.errors import SourceError
from flybackup.model import Entry, Facts
from flybackup.sources import Captured, Stream
from flybackup.sources.files.extents import file_extents
from flybackup.sources.files.holders import network_filesystem_of
from flybackup.sources.files.refusals import source_errors
from flybackup.sources.sqlite.copying import Copied
from flybackup.sources.sqlite.header import Header
from flybackup.sources.sqlite.measuring import CHECKSUM, Measured, Measuring

CHUNKS = Fixed(65536, 65536)
"""Whole pages, whatever their size: powers of two up to this."""


class SqliteCapture:
    """The copy at *copy* of the database at *path*."""

    def __init__(self, path: Path, copy: Path, copied: Copied, measuring: Measuring, *, checksums: bool) -> None:
        self._path = path
        self._copy = copy
        self._copied = copied
        self._measuring = measuring
        self._checksums = checksums
        self._was_read = False

    def streams(self) -> Iterator[Stream]:
        """Yield the database as one entry."""
        with source_errors("cannot read the copy in the scratch directory"):
            size = self._copy.stat().st_size
        entry = Entry(
            path=self._path.name, kind="file", size=size, mode=self._copied.mode, mtime_ns=self._copied.mtime_ns
        )
        yield Stream(entry, file_extents(self._copy), CHUNKS)
        self._was_read = True

    def finish(self) -> Captured:
        if not self._was_read:
            raise SourceError(f"the copy of {self._path} was not read to its end")
        measured = self._measuring.result()
        facts = facts_of(self._copied.header, measured, checksums=self._checksums)
        warnings = (*measured.warnings, *_filesystem_warnings(self._path))
        return Captured(facts, self._copied.method, warnings, _problems(measured))


def facts_of(header: Header, measured: Measured, *, checksums: bool) -> Facts:
    details = {
        "page_size": str(header.page_bytes),
        "journal_mode": "wal" if header.wal else "rollback",
        "encoding": header.encoding,
        "user_version": str(header.user_version),
        "application_id": str(header.application_id),
        "integrity_check": measured.integrity,
        "foreign_key_violations": measured.foreign_keys,
    }
    if checksums:
        details["checksum"] = CHECKSUM
    return Facts(tables=measured.tables, engine=f"SQLite {header.library}".rstrip(), details=details)


def _problems(measured: Measured) -> tuple[str, ...]:
    if not measured.findings:
        return ()
    return (f"the database is damaged: {'; '.join(measured.findings)}",)


def _filesystem_warnings(path: Path) -> tuple[str, ...]:
    with source_errors(f"cannot look at {path}"):
        filesystem = network_filesystem_of(path)
    if filesystem is None:
        return ()
    message = f"the file lies on {filesystem}: nobody can tell whether locks of a process on another machine hold here"
    return (f"{message}; run flybackup where the application runs",)
