"""A configuration as `config show` prints it: everything but the secrets."""

import dataclasses
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from flybackup.config.urls import redact_url
from flybackup.config.values import Config, SourceConfig
from flybackup.retention import duration_text


def redacted(config: Config) -> dict[str, Any]:
    """Return what `config show` prints, for JSON: the keys of the file, without those that were not set."""
    return {
        "repository": _plain(config.repository),
        "sources": {name: _source(source) for name, source in config.sources.items()},
        "agent": _plain(config.agent),
    }


def _source(source: SourceConfig) -> dict[str, Any]:
    return {"type": source.kind, **_plain(source)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: _plain(inner) for name, inner in fields.items() if inner is not None and inner != {}}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, timedelta):
        return duration_text(value)
    if isinstance(value, Path):
        return str(value)
    return redact_url(value) if isinstance(value, str) else value
