"""From the text of the file and the environment to `Config`; every problem is reported at once.

Where the file says nothing the environment does, as Fly sets it: `BUCKET_NAME` names the repository, `DATABASE_URL` a
source. The command line and `FLYBACKUP_REPOSITORY` come before the file.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from flybackup.config import table as read
from flybackup.config.environment import ReadFile, Variables, read_text
from flybackup.config.table import Table
from flybackup.config.urls import database_name, is_postgres_url, postgres_url, source_name
from flybackup.config.values import (
    Addressing,
    AgentConfig,
    CommandSourceConfig,
    Config,
    DuckdbSourceConfig,
    PostgresSourceConfig,
    RepositoryConfig,
    SourceConfig,
    SqliteSourceConfig,
    Verify,
    VolumeSourceConfig,
)
from flybackup.errors import ConfigError
from flybackup.retention import RetentionPolicy

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NO_REPOSITORY = (
    'repository.url: is missing; write url = "s3://BUCKET/PREFIX" or "file:///DIRECTORY" under [repository], '
    "set FLYBACKUP_REPOSITORY (or Fly's BUCKET_NAME), or say -r URL"
)

_KEEPS_NOTHING = (
    "has no rule that keeps snapshots without a tag; "
    "say keep_daily = 7, for example, or leave the table away to keep all"
)


def parse(
    text: str,
    env: Mapping[str, str],
    *,
    read_file: ReadFile = read_text,
    repository: str | None = None,
    name: str = "flybackup.toml",
) -> Config:
    """Read the document *text*, called *name* in messages. *repository* is a URL that the command line gave.

    Raise `ConfigError` with each problem on a line of its own.
    """
    problems: list[str] = []
    variables = Variables(env, read_file)
    root = Table(_document(text, name), "", problems, variables.expand)
    config = Config(
        repository=_repository(root.table("repository"), repository, variables, problems),
        sources=_sources(root.table("sources"), variables, env, problems),
        agent=_agent(root.table("agent")),
    )
    root.finish()
    if problems:
        raise ConfigError("\n".join(problems), hint=f"Correct {name} or the environment.")
    return config


def _document(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{name} is not TOML: {exc}", hint='Strings stand in quotes: url = "s3://bucket".') from exc


def _repository(table: Table | None, given: str | None, variables: Variables, problems: list[str]) -> RepositoryConfig:
    table = table or Table({}, "repository", problems, variables.expand)
    outside = given or _variable(variables, "FLYBACKUP_REPOSITORY", problems)
    config = RepositoryConfig(
        url=_url(table, outside, variables, problems),
        endpoint=table.take("endpoint", read.text, None),
        region=table.take("region", read.text, None),
        addressing=cast("Addressing | None", table.take("addressing", read.choice("path", "virtual"), None)),
    )
    table.finish()
    return config


def _url(table: Table, outside: str | None, variables: Variables, problems: list[str]) -> str:
    table.ignore("url")
    if outside:
        return _outside(outside, problems)
    if table.has("url"):
        return table.take("url", _repository_url, "")
    return _fly_bucket(variables, problems)


def _outside(url: str, problems: list[str]) -> str:
    try:
        return _repository_url(url)
    except ValueError as exc:
        problems.append(f"-r or FLYBACKUP_REPOSITORY: {exc}")
        return ""


def _fly_bucket(variables: Variables, problems: list[str]) -> str:
    bucket = _variable(variables, "BUCKET_NAME", problems)
    if not bucket:
        problems.append(_NO_REPOSITORY)
    return f"s3://{bucket}/flybackup"


def _repository_url(value: Any) -> str:
    url = read.text(value)
    scheme, separator, rest = url.partition("://")
    if separator and scheme not in {"s3", "file"}:
        raise ValueError(f"must begin with s3:// or file://, or be a path{_not_scheme(url)}")
    if scheme == "file" and not rest.startswith("/"):
        raise ValueError("must be file:///DIRECTORY, with three slashes")
    if scheme == "s3" and "@" in rest.partition("/")[0]:
        raise ValueError("must not hold credentials; they go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    return url


def _variable(variables: Variables, name: str, problems: list[str]) -> str | None:
    try:
        return variables.get(name)
    except ValueError as exc:
        problems.append(str(exc))
        return None


def _sources(
    table: Table | None, variables: Variables, env: Mapping[str, str], problems: list[str]
) -> dict[str, SourceConfig]:
    if table is None:
        url = _variable(variables, "DATABASE_URL", problems)
        if not url or not is_postgres_url(url):
            return {}
        return {source_name(database_name(url, env)): PostgresSourceConfig(url=postgres_url(url))}
    found = {name: _source(name, each, variables) for name, each in table.tables()}
    return {name: source for name, source in found.items() if source is not None}


def _source(name: str, table: Table, variables: Variables) -> SourceConfig | None:
    if not _NAME.fullmatch(name):
        table.complain("", "a source's name is made of letters, digits, '.', '_' and '-', 64 at most")
    kind = table.require("type", read.choice(*_KINDS), "")
    if kind not in _KINDS:
        return None  # which of its other keys would be right is not known
    source = _KINDS[kind](table, variables, _common(table))
    table.finish()
    return source


def _duckdb(table: Table, _: Variables, common: dict[str, Any]) -> SourceConfig:
    return DuckdbSourceConfig(path=table.require("path", read.path, Path()), **common)


def _postgresql(table: Table, variables: Variables, common: dict[str, Any]) -> SourceConfig:
    return PostgresSourceConfig(url=_database_url(table, variables), **common)


def _sqlite(table: Table, _: Variables, common: dict[str, Any]) -> SourceConfig:
    return SqliteSourceConfig(path=table.require("path", read.path, Path()), **common)


def _volume(table: Table, _: Variables, common: dict[str, Any]) -> SourceConfig:
    return VolumeSourceConfig(
        path=table.require("path", read.path, Path()),
        exclude=table.take("exclude", read.texts, ()),
        one_file_system=table.take("one_file_system", read.flag, default=True),
        **common,
    )


def _command(table: Table, _: Variables, common: dict[str, Any]) -> SourceConfig:
    if common["verify"] == "checksums":
        table.complain("verify", "checksums are for databases; what a command counts are rows")
    line = read.shell_line if table.take("shell", read.flag, default=False) else read.argv
    return CommandSourceConfig(
        dump=table.require("dump", line, ()),
        restore=table.take("restore", line, ()),
        count=table.take("count", line, ()),
        env=table.take("env", read.environment, {}),
        timeout=table.take("timeout", read.duration, None),
        **common,
    )


_KINDS = {"duckdb": _duckdb, "postgres": _postgresql, "sqlite": _sqlite, "volume": _volume, "command": _command}


def _common(table: Table) -> dict[str, Any]:
    return {
        "schedule": table.take("schedule", read.text, None),
        "rpo": table.take("rpo", read.duration, None),
        "verify": cast("Verify", table.take("verify", read.choice("counts", "checksums"), "counts")),
        "retention": _retention(table.table("retention")),
    }


def _database_url(table: Table, variables: Variables) -> str:
    """Return `url`, or the content of the file that `url_file` names."""
    if table.has("url_file") and table.has("url"):
        table.complain("url_file", "stands beside url; keep one of them")
    if table.has("url_file"):
        table.ignore("url")
        return table.take("url_file", lambda value: _postgres(variables.content(read.path(value))), "")
    return table.require("url", _postgres, "")


def _postgres(value: Any) -> str:
    url = read.text(value)
    if not is_postgres_url(url):
        raise ValueError(f"must begin with postgresql:// or postgres://{_not_scheme(url)}")
    return postgres_url(url)


def _not_scheme(url: str) -> str:
    # Not more of it: where a URL is expected a secret may stand.
    scheme = re.match(r"[a-z][a-z0-9+.-]*://", url)
    return f", not {scheme[0]}" if scheme else ""


def _retention(table: Table | None) -> RetentionPolicy | None:
    if table is None:
        return None
    names = ("keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")
    rules: dict[str, Any] = {name: table.take(name, read.count, None) for name in names}
    rules["keep_within"] = table.take("keep_within", read.duration, None)
    policy = RetentionPolicy(**rules, keep_tags=table.take("keep_tags", read.counts, {}))
    wrong = any(table.has(name) and value is None for name, value in rules.items())
    if not policy.keeps_untagged and not wrong:
        table.complain("", _KEEPS_NOTHING)
    table.finish()
    return policy


def _agent(table: Table | None) -> AgentConfig:
    if table is None:
        return AgentConfig()
    config = AgentConfig(
        listen=table.take("listen", read.listen, AgentConfig().listen),
        timezone=table.take("timezone", read.timezone, None),
        token_file=table.take("token_file", read.path, None),
    )
    table.finish()
    return config
