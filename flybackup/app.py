"""What belongs together: the one place that knows every concrete store and source.

Those that bring a heavy package are imported when they are wanted: `flybackup --help` is quick, the idle agent small.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from flybackup.clock import Clock, SystemClock
from flybackup.config import (
    DuckdbSourceConfig,
    PostgresSourceConfig,
    RepositoryConfig,
    SourceConfig,
    SqliteSourceConfig,
    Variables,
    VolumeSourceConfig,
    cache_directory,
    database_name,
    is_postgres_url,
    passphrase,
    postgres_url,
    read_secrets,
    redact_url,
    source_name,
)
from flybackup.crypto import digest
from flybackup.errors import ConfigError
from flybackup.repository import Repository, open_with_passphrase, open_with_recovery_key, open_with_write_key
from flybackup.sources import Source
from flybackup.stores import Store
from flybackup.stores.caching import CachingStore
from flybackup.stores.local import LocalStore
from flybackup.stores.retrying import RetryingStore

if TYPE_CHECKING:
    from flybackup.sources.volume.databases import DatabaseKind

_CACHE_BYTES = 512 * 1024 * 1024
_AWS_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_LATER_KINDS = ("command",)
_LATER = "DuckDB and SQLite files, PostgreSQL databases and directories are what it can back up."


def open_store(
    repository: RepositoryConfig,
    env: Mapping[str, str],
    *,
    cache: Path | None = None,
    clock: Clock | None = None,
) -> Store:
    """Open the place of *repository*; nothing is asked of it yet. Raise `ConfigError` for a URL that cannot be.

    What passes is tried again. Of a store in the network, copies of small sealed objects are kept under *cache*: None
    means where caches go in *env*.
    """
    clock = clock or SystemClock()
    if repository.url.startswith("s3://"):
        return _cached(RetryingStore(_s3(repository, env), clock), cache or cache_directory(env))
    return RetryingStore(_local(repository.url), clock)


def _s3(repository: RepositoryConfig, env: Mapping[str, str]) -> Store:
    from flybackup.stores.s3 import open_s3  # noqa: PLC0415

    said = {"AWS_ENDPOINT_URL_S3": repository.endpoint, "AWS_REGION": repository.region}
    said_env = {name: value for name, value in said.items() if value is not None}
    return open_s3(
        repository.url,
        {**Variables(env).with_files(*_AWS_SECRETS), **said_env},
        addressing=repository.addressing,
    )


def _local(url: str) -> Store:
    if "://" not in url:
        return LocalStore(Path(url).expanduser())
    if not url.startswith("file:///"):
        raise ConfigError(
            f"not a repository URL: {redact_url(url)}", hint="Write s3://BUCKET/PREFIX or file:///DIRECTORY."
        )
    return LocalStore(Path(unquote(urlsplit(url).path)))


def _cached(store: Store, root: Path | None) -> Store:
    if root is None:
        return store
    # Of each place its own: what a snapshot's key holds is different in another repository.
    directory = root / sha256(store.url.encode()).hexdigest()[:16]
    return CachingStore(store, directory, _CACHE_BYTES, content_name=lambda data: digest(data).hex())


def open_repository(store: Store, env: Mapping[str, str], *, prompt: Callable[[], str] | None = None) -> Repository:
    """Open with the strongest key that *env* holds, else with the answer to *prompt*.

    A recovery key comes before a passphrase: whoever sets it has a passphrase that does not open. A write key is last.
    Raise `ConfigError` without any, `WrongKeyError`, `RepositoryNotFoundError`, `StoreError`.
    """
    secrets = read_secrets(env)
    if secrets.recovery_key is not None:
        return open_with_recovery_key(store, secrets.recovery_key)
    if secrets.passphrase is None and secrets.write_key is not None:
        return open_with_write_key(store, secrets.write_key)
    return open_with_passphrase(store, passphrase(env, prompt))


def source_for(config: SourceConfig) -> Source:
    """Return the place that a configured source describes."""
    checksums = config.verify == "checksums"
    if isinstance(config, DuckdbSourceConfig):
        return _duckdb(config.path, checksums=checksums)
    if isinstance(config, PostgresSourceConfig):
        return _postgres(config.url, checksums=checksums)
    if isinstance(config, VolumeSourceConfig):
        return _volume(config.path, checksums=checksums, exclude=config.exclude, one_file_system=config.one_file_system)
    if isinstance(config, SqliteSourceConfig):
        return _sqlite(config.path, checksums=checksums)
    raise AssertionError(f"unreachable: {type(config)}")


def source_at(kind: str, location: str) -> Source:
    """Return the place of *kind* at *location*: a path, or a URL for `postgres`. Raise `ConfigError`."""
    if kind == "duckdb":
        return _duckdb(_file(location), checksums=False)
    if kind == "sqlite":
        return _sqlite(_file(location), checksums=False)
    if kind == "postgres":
        if not is_postgres_url(location):
            raise ConfigError("a PostgreSQL database is named by a URL", hint="Write postgresql://user@host/database.")
        return _postgres(postgres_url(location), checksums=False)
    if kind == "volume":
        if "://" in location:
            raise ConfigError(f"a volume is a directory, not {redact_url(location)}", hint="Name a path.")
        return _volume(Path(location), checksums=False)
    later = kind in _LATER_KINDS
    raise ConfigError(f"{kind}: {'not in this version yet' if later else 'no kind of source'}", hint=_LATER)


def _file(location: str) -> Path:
    if "://" in location:
        raise ConfigError(f"this kind of database is a file, not {redact_url(location)}", hint="Name a path.")
    return Path(location)


def recognise(location: str, env: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """Return kind and name of the source at *location*, an ad hoc path or URL. Raise `ConfigError`."""
    if is_postgres_url(location):
        return "postgres", source_name(database_name(location, env))
    if "://" in location:
        raise ConfigError(f"no kind of source is at {redact_url(location)}", hint=_LATER)
    path = Path(location)
    if path.is_dir():
        return "volume", source_name(path.resolve().name)
    return _kind_of_file(path), source_name(path.stem)


def _kind_of_file(path: Path) -> str:
    from flybackup.sources.duckdb.live import is_duckdb_file  # noqa: PLC0415
    from flybackup.sources.sqlite.header import is_sqlite_file  # noqa: PLC0415

    try:
        if is_sqlite_file(path):
            return "sqlite"
        if is_duckdb_file(path):
            return "duckdb"
        empty = not path.stat().st_size
    except OSError as exc:
        hint = "Name a source of the configuration, a database file or postgresql://…"
        raise ConfigError(f"cannot read {path}: {exc.strerror or exc}", hint=hint) from exc
    if empty:
        raise ConfigError(
            f"{path} is empty: no database yet, or none any more", hint="Back it up when it holds something."
        )
    raise ConfigError(f"{path} is no database that flybackup knows", hint=_LATER)


def _duckdb(path: Path, *, checksums: bool) -> Source:
    from flybackup.sources.duckdb.source import DuckdbSource  # noqa: PLC0415

    return DuckdbSource(path, checksums=checksums)


def _volume(path: Path, *, checksums: bool, exclude: tuple[str, ...] = (), one_file_system: bool = True) -> Source:
    from flybackup.sources.volume.source import VolumeSource  # noqa: PLC0415
    from flybackup.sources.volume.walking import Walk  # noqa: PLC0415

    return VolumeSource(path, _database_kinds, Walk(exclude, one_file_system), checksums=checksums)


def _database_kinds(checksums: bool) -> "Sequence[DatabaseKind]":
    """Return the databases that are captured by their own source when they lie in a volume."""
    from flybackup.sources.duckdb.layout import has_magic  # noqa: PLC0415
    from flybackup.sources.duckdb.wal import WAL_SUFFIXES  # noqa: PLC0415
    from flybackup.sources.sqlite.connecting import SUFFIXES  # noqa: PLC0415
    from flybackup.sources.sqlite.header import is_sqlite  # noqa: PLC0415
    from flybackup.sources.volume.databases import DatabaseKind  # noqa: PLC0415

    return (
        DatabaseKind("duckdb", has_magic, WAL_SUFFIXES, lambda path: _duckdb(path, checksums=checksums)),
        DatabaseKind("sqlite", is_sqlite, SUFFIXES, lambda path: _sqlite(path, checksums=checksums)),
    )


def _sqlite(path: Path, *, checksums: bool) -> Source:
    from flybackup.sources.sqlite.source import SqliteSource  # noqa: PLC0415

    return SqliteSource(path, checksums=checksums)


def _postgres(url: str, *, checksums: bool) -> Source:
    from flybackup.sources.postgres import PostgresSource  # noqa: PLC0415

    return PostgresSource(url, checksums=checksums)
