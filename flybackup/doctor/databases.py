"""The sources: are they there, readable, and in a state that can be captured? Knows the kinds, as `app` does."""

import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from flybackup.clock import Clock, SystemClock
from flybackup.config import DuckdbSourceConfig, PostgresSourceConfig, SourceConfig, SqliteSourceConfig
from flybackup.doctor import Finding
from flybackup.report.units import human_bytes


def database(name: str, config: SourceConfig, scratch: Path) -> Iterator[Finding]:
    """Look at the source *name*. Raise `SourceError`, `ConfigError` for what cannot be reached at all."""
    if isinstance(config, DuckdbSourceConfig):
        yield from _duckdb(name, config.path, scratch, SystemClock())
    elif isinstance(config, PostgresSourceConfig):
        yield from _postgres(name, config.url)
    elif isinstance(config, SqliteSourceConfig):
        yield from _sqlite(name, config.path, scratch)


def _duckdb(name: str, path: Path, scratch: Path, clock: Clock) -> Iterator[Finding]:
    """Look at a DuckDB file without locking it. Raise `SourceError` for one that cannot be read."""
    from flybackup.sources.duckdb.live import LiveFile  # noqa: PLC0415  NumPy: only for this kind

    with LiveFile(path) as live:
        header = live.header(clock)
        size = live.size()
        if header.encrypted:
            do = "Back up a decrypted copy: its rows cannot be counted without the database's key."
            yield Finding("error", name, f"{path} is encrypted", do)
            return
        yield Finding("ok", name, f"{path} is a DuckDB database, {human_bytes(size)}")
        writer = live.writer()
    if writer is not None:
        yield Finding("ok", name, f"in use by {writer}; it is captured while it is written")
        yield from _versions(name, writer.pid)
    if shutil.disk_usage(scratch).free < size:
        do = "If the database changes too fast, a capture needs a whole copy: set FLYBACKUP_SCRATCH_DIR."
        yield Finding("warning", name, f"there is less scratch space than the {human_bytes(size)} of {path}", do)


def _versions(name: str, pid: int) -> Iterator[Finding]:
    from flybackup.sources.duckdb.version import duckdb_version_of  # noqa: PLC0415  likewise

    theirs, ours = duckdb_version_of(pid), version("duckdb")
    if theirs is not None and _numbers(theirs) > _numbers(ours):
        what = f"the application uses DuckDB {theirs}, flybackup the older {ours}, which may not read its files"
        yield Finding("warning", name, what, "Update flybackup's duckdb package to the application's version or newer.")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(".") if part.isdigit()]


def _sqlite(name: str, path: Path, scratch: Path) -> Iterator[Finding]:
    """Look at a SQLite file without locking it. Raise `SourceError` for one that cannot be read."""
    from flybackup.sources.sqlite.live import LiveFile  # noqa: PLC0415  only for this kind

    with LiveFile(path) as live:
        header, size, user = live.header(), live.opened.st_size, live.user()
    journal = "a write-ahead log" if header.wal else "a rollback journal"
    yield Finding("ok", name, f"{path} is a SQLite database with {journal}, {human_bytes(size)}")
    if user is not None:
        yield Finding("ok", name, f"in use by {user}; it is captured while it is written")
    if shutil.disk_usage(scratch).free < size:
        do = "A capture needs room for a whole copy: set FLYBACKUP_SCRATCH_DIR."
        yield Finding("error", name, f"there is less scratch space than the {human_bytes(size)} of {path}", do)


def _postgres(name: str, url: str) -> Iterator[Finding]:
    """Connect and look at rights, versions and client programs. Raise `ConfigError` for a URL that cannot be."""
    from flybackup.sources.postgres import preflight  # noqa: PLC0415  psycopg: only for this kind

    found = preflight(url)
    yield from (Finding(each.level, name, each.what, each.do) for each in found)
    if not any(each.level == "error" for each in found):
        yield Finding("ok", name, "the database can be dumped, and every row can be read")
