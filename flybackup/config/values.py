"""What a configuration says, as typed values. A field that may hold a secret is not shown by `repr`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Literal

from flybackup.retention import RetentionPolicy

Verify = Literal["counts", "checksums"]
Addressing = Literal["path", "virtual"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryConfig:
    """`url` is `s3://bucket/prefix`, `file:///directory` or a path. The others are for S3; None means: found out."""

    url: str
    endpoint: str | None = None
    region: str | None = None
    addressing: Addressing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """What every kind of source has.

    `schedule` is a phrase or five cron fields. Past `rpo` without a good snapshot the status turns red. `retention`
    None means that nothing is forgotten.
    """

    kind: ClassVar[str]
    schedule: str | None = None
    rpo: timedelta | None = None
    verify: Verify = "counts"
    retention: RetentionPolicy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DuckdbSourceConfig(SourceConfig):
    kind: ClassVar[str] = "duckdb"
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresSourceConfig(SourceConfig):
    kind: ClassVar[str] = "postgres"
    url: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteSourceConfig(SourceConfig):
    kind: ClassVar[str] = "sqlite"
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSourceConfig(SourceConfig):
    """`exclude` are patterns as in a `.gitignore`. `one_file_system`: what is mounted inside is left out."""

    kind: ClassVar[str] = "volume"
    path: Path
    exclude: tuple[str, ...] = ()
    one_file_system: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSourceConfig(SourceConfig):
    """Each command is a program and its arguments; `restore` and `count` may be empty. `env` are variables that each of
    them gets beside the agent's, `timeout` how long each may take; None is no limit."""

    kind: ClassVar[str] = "command"
    dump: tuple[str, ...] = field(repr=False)
    restore: tuple[str, ...] = field(default=(), repr=False)
    count: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """`timezone` is an IANA name, None the system's; `token_file` holds the token that its HTTP interface asks for."""

    listen: str = "127.0.0.1:8807"
    timezone: str | None = None
    token_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    repository: RepositoryConfig
    sources: Mapping[str, SourceConfig] = field(default_factory=dict)
    agent: AgentConfig = field(default_factory=AgentConfig)
