"""The configuration: one TOML file and the environment in, frozen values out. See `docs/design.md`, section 4."""

from flybackup.config.document import parse
from flybackup.config.environment import Secrets, Variables, cache_directory, passphrase, read_secrets
from flybackup.config.loading import load_config
from flybackup.config.redaction import redacted
from flybackup.config.urls import database_name, is_postgres_url, postgres_url, redact_url, source_name
from flybackup.config.values import (
    AgentConfig,
    CommandSourceConfig,
    Config,
    DuckdbSourceConfig,
    PostgresSourceConfig,
    RepositoryConfig,
    SourceConfig,
    SqliteSourceConfig,
    VolumeSourceConfig,
)

__all__ = [
    "AgentConfig",
    "CommandSourceConfig",
    "Config",
    "DuckdbSourceConfig",
    "PostgresSourceConfig",
    "RepositoryConfig",
    "Secrets",
    "SourceConfig",
    "SqliteSourceConfig",
    "Variables",
    "VolumeSourceConfig",
    "cache_directory",
    "database_name",
    "is_postgres_url",
    "load_config",
    "parse",
    "passphrase",
    "postgres_url",
    "read_secrets",
    "redact_url",
    "redacted",
    "source_name",
]
