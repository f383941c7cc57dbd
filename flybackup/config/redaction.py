"""A configuration as `config show` prints it: everything but the secrets."""

import dataclasses
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from flybackup.config.urls import redact_url
from flybackup.config.values import CommandSourceConfig, Config, SourceConfig
from flybackup.retention import duration_text


def redacted(config: Config) -> dict[str, Any]:
    """Return what `config show` prints, for JSON: the keys of the file, without those that were not set."""
    return {
        "repository": _plain(config.repository),
        "sources": {name: _source(source) for name, source in config.sources.items()},
        "agent": _plain(config.agent),
    }


def _source(source: SourceConfig) -> dict[str, Any]:
    shown = {"type": source.kind, **_plain(source)}
    if isinstance(source, CommandSourceConfig):
        # Arguments may be secrets, and values of variables often are: programs and names are shown, and how many.
        lines = {"dump": source.dump, "restore": source.restore, "count": source.count}
        shown |= {name: f"{line[0]} and {len(line) - 1} arguments" if line else None for name, line in lines.items()}
        shown["env"] = sorted(source.env) or None
    return {name: value for name, value in shown.items() if value is not None}


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
