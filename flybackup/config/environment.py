"""The environment: variables, the files that stand in for them, references to them, and the secrets among them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flybackup.errors import ConfigError

ReadFile = Callable[[Path], str]

_REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{")


def read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


class Variables:
    """An environment in which NAME may also be the content of the file that NAME_FILE names, as secrets are mounted.

    An empty variable is an unset one: it is what `docker run -e NAME` and unset CI secrets leave.
    """

    def __init__(self, env: Mapping[str, str], read_file: ReadFile = read_text) -> None:
        self._env = env
        self._read_file = read_file

    def get(self, name: str) -> str | None:
        """Return the value without the newline at its end. Raise `ValueError` for a file that cannot be read, and when
        both NAME and NAME_FILE are set: which one is right is not for us to guess."""
        value, file = self._env.get(name), self._env.get(f"{name}_FILE")
        if value and file:
            raise ValueError(f"both {name} and {name}_FILE are set")
        if not file:
            return value or None
        try:
            return self.content(Path(file))
        except ValueError as exc:
            raise ValueError(f"{name}_FILE: {exc}") from exc

    def content(self, path: Path) -> str:
        """Return the text of *path* without the newline at its end. Raise `ValueError`."""
        try:
            return self._read_file(path).rstrip("\r\n")
        except OSError as exc:
            raise ValueError(f"cannot read {path}: {exc.strerror or exc}") from exc
        except UnicodeDecodeError:
            # Without its cause, which holds the secret's bytes.
            raise ValueError(f"{path} is not text") from None

    def expand(self, text: str) -> str:
        """Replace `${NAME}` and `${NAME:-default}`; `$${` stands for `${`. Raise `ValueError` for what is not set."""
        return _REFERENCE.sub(self._referent, text)

    def _referent(self, match: re.Match[str]) -> str:
        name, default = match.groups()
        if match[0] == "$${":
            return "${"
        if name is None:
            raise ValueError("${ begins no reference: write ${NAME}, ${NAME:-default}, or $${ for the characters")
        value = self.get(name)
        if value is None and default is None:
            raise ValueError(f"the environment variable {name} is not set")
        return default if value is None else value

    def with_files(self, *names: str) -> dict[str, str]:
        """Return the environment with the values of *names* that files stand in for. Raise `ConfigError`."""
        try:
            found = {name: self.get(name) for name in names}
        except ValueError as exc:
            raise ConfigError(str(exc)) from exc
        return {**self._env, **{name: value for name, value in found.items() if value is not None}}


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """What opens a repository, as far as it is set. `repr` tells which, never what."""

    passphrase: str | None = None
    write_key: str | None = None
    recovery_key: str | None = None

    def __repr__(self) -> str:
        known = [name for name in self.__slots__ if getattr(self, name) is not None]
        return f"Secrets({', '.join(known) or 'none'})"


def read_secrets(env: Mapping[str, str], read_file: ReadFile = read_text) -> Secrets:
    """Read FLYBACKUP_PASSPHRASE, _WRITE_KEY and _RECOVERY_KEY or their `_FILE` twins. Raise `ConfigError`."""
    variables = Variables(env, read_file)
    try:
        return Secrets(
            passphrase=variables.get("FLYBACKUP_PASSPHRASE"),
            write_key=variables.get("FLYBACKUP_WRITE_KEY"),
            recovery_key=variables.get("FLYBACKUP_RECOVERY_KEY"),
        )
    except ValueError as exc:
        raise ConfigError(str(exc), hint="Set one of them, with what it should be.") from exc


def passphrase(
    env: Mapping[str, str],
    prompt: Callable[[], str] | None = None,
    *,
    name: str = "FLYBACKUP_PASSPHRASE",
    read_file: ReadFile = read_text,
) -> str:
    """Return the passphrase from *name*, its `_FILE` twin, or *prompt* (None where nobody can be asked).

    Raise `ConfigError` when there is none, and for an empty one.
    """
    try:
        found = Variables(env, read_file).get(name)
    except ValueError as exc:
        raise ConfigError(str(exc), hint="Set one of them, with what it should be.") from exc
    if found is None and prompt:
        found = prompt()
    if not found:
        raise ConfigError("no passphrase was given", hint=f"Set {name} or {name}_FILE, or run this on a terminal.")
    return found


def cache_directory(env: Mapping[str, str]) -> Path | None:
    """Return FLYBACKUP_CACHE_DIR, else what the XDG Base Directory Specification says; None where that is nowhere."""
    if own := env.get("FLYBACKUP_CACHE_DIR"):
        return Path(own)
    if xdg := env.get("XDG_CACHE_HOME"):
        return Path(xdg) / "flybackup"
    home = Path(env.get("HOME", ""))
    return home / ".cache" / "flybackup" if home.is_absolute() else None
