"""Finding the configuration file."""

from collections.abc import Mapping
from pathlib import Path

from flybackup.config.document import parse
from flybackup.config.environment import read_text
from flybackup.config.values import Config
from flybackup.errors import ConfigError

DEFAULT = Path("flybackup.toml")


def load_config(path: Path | None, env: Mapping[str, str], *, repository: str | None = None) -> Config:
    """Read *path*, else what FLYBACKUP_CONFIG names, else `flybackup.toml` where it is, else the environment alone.

    Raise `ConfigError`, also when a file that was named is not there.
    """
    named = path or (Path(env["FLYBACKUP_CONFIG"]) if env.get("FLYBACKUP_CONFIG") else None)
    file = named or DEFAULT
    return parse(_content(file, optional=named is None), env, repository=repository, name=str(file))


def _content(path: Path, *, optional: bool) -> str:
    try:
        return read_text(path)
    except OSError as exc:
        if optional and isinstance(exc, FileNotFoundError):
            return ""
        raise ConfigError(f"cannot read {path}: {exc.strerror or exc}", hint="Correct -c or FLYBACKUP_CONFIG.") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} is not UTF-8 text", hint="Save it as UTF-8.") from exc
