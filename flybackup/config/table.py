"""Reading a TOML table so that every problem in it is found, not only the first."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

T = TypeVar("T")

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"(\d+)([smhdw])")
_LISTEN = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:\[\]]+):(\d{1,5})")
_LARGEST_PORT = 65_535


class Table:
    """One table of the document. What is never asked for is unknown, and `finish` says so.

    Readers are functions from a value to a value, which raise `ValueError` with the reason. A problem is noted with its
    dotted path, and a placeholder stands in, so that reading goes on.
    """

    def __init__(self, values: Mapping[str, Any], path: str, problems: list[str], expand: Callable[[str], str]) -> None:
        self._values = values
        self._path = path
        self._problems = problems
        self._expand = expand
        self._asked: set[str] = set()

    def take(self, key: str, read: Callable[[Any], T], default: T) -> T:
        """Return what *read* makes of the value, with `${…}` replaced; *default* where there is none or a wrong one."""
        self._asked.add(key)
        if key not in self._values:
            return default
        try:
            return read(self._expanded(self._values[key]))
        except ValueError as exc:
            self.complain(key, str(exc))
            return default

    def ignore(self, key: str) -> None:
        """Know *key* without reading it, because something else comes first."""
        self._asked.add(key)

    def require(self, key: str, read: Callable[[Any], T], placeholder: T) -> T:
        if key not in self._values:
            self.complain(key, "is missing")
        return self.take(key, read, placeholder)

    def table(self, key: str) -> "Table | None":
        self._asked.add(key)
        value = self._values.get(key, None)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.complain(key, "must be a table")
            return None
        return Table(value, self._dotted(key), self._problems, self._expand)

    def tables(self) -> "Iterable[tuple[str, Table]]":
        """Yield the tables in this one by their names, which are the user's."""
        for key in self._values:
            if (inner := self.table(key)) is not None:
                yield key, inner

    def has(self, key: str) -> bool:
        return key in self._values

    def complain(self, key: str, problem: str) -> None:
        self._problems.append(f"{self._dotted(key)}: {problem}" if key else f"{self._path}: {problem}")

    def finish(self) -> None:
        for key in self._values:
            if key not in self._asked:
                near = difflib.get_close_matches(key, self._asked, 1)
                self.complain(key, f"unknown key; did you mean {near[0]}?" if near else "unknown key")

    def _dotted(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def _expanded(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._expand(value)
        if isinstance(value, dict):
            return {key: self._expanded(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._expanded(inner) for inner in value]
        return value


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {_kind(value)}")  # noqa: TRY004 - readers raise one kind of error
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def path(value: Any) -> Path:
    return Path(text(value))


def count(value: Any) -> int:
    """Read a number of things; also digits, as an environment variable gives them."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"must be a whole number, 0 or more, not {value!r}")
    return value


def counts(value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        raise ValueError('must be a table of numbers, such as { "pre-deploy" = 10 }')  # noqa: TRY004 - see above
    return {key: count(inner) for key, inner in value.items()}


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {value!r}")  # noqa: TRY004 - see above
    return value


def texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"must be an array of strings, not {_kind(value)}")  # noqa: TRY004 - see above
    return tuple(map(text, value))


def argv(value: Any) -> tuple[str, ...]:
    """Read a program and its arguments. Arguments may be empty."""
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        raise ValueError('must be an array of strings, such as ["mysqldump", "app"], or a string with shell = true')
    return (_passable(text(value[0])), *map(_passable, value[1:]))


def shell_line(value: Any) -> tuple[str, ...]:
    return ("/bin/sh", "-c", _passable(text(value)))


def environment(value: Any) -> dict[str, str]:
    """Read variables for a program. Values may be empty."""
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise ValueError('must be a table of strings, such as { MYSQL_PWD = "${DB_PASSWORD}" }')
    if wrong := [name for name in value if not name or "=" in name]:
        raise ValueError(f"{wrong[0]!r} cannot be the name of a variable")
    return {_passable(name): _passable(inner) for name, inner in value.items()}


def _passable(argument: str) -> str:
    if "\0" in argument:
        raise ValueError("must not hold the character NUL, which no program can get")
    return argument


def choice(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(f"must be {' or '.join(words)}, not {value!r}")
        return str(value)

    return read


def duration(value: Any) -> timedelta:
    """Read `26h`, `10m`, `14d`, `1d12h`: seconds, minutes, hours, days, weeks."""
    written = text(value)
    parts = _DURATION.findall(written)
    if "".join(map("".join, parts)) != written:
        raise ValueError(f"must be a duration such as 10m, 26h or 14d, not {written!r}")
    try:
        found = timedelta(seconds=sum(int(number) * _UNIT_SECONDS[unit] for number, unit in parts))
    except OverflowError as exc:
        raise ValueError("must be a duration shorter than a million years") from exc
    if not found:
        raise ValueError("must be longer than nothing")
    return found


def timezone(value: Any) -> str:
    name = text(value)
    try:
        return ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ValueError(f"must be a time zone of the IANA database such as Europe/Berlin, not {name!r}") from exc


def listen(value: Any) -> str:
    found = _LISTEN.fullmatch(text(value))
    if not found or int(found[2]) > _LARGEST_PORT:
        raise ValueError(f"must be HOST:PORT, such as 127.0.0.1:8807 or [::1]:8807, not {value!r}")
    return str(value)


def _kind(value: Any) -> str:
    words = {bool: "true or false", int: "a number", float: "a number", list: "an array", dict: "a table"}
    return words.get(type(value), type(value).__name__)
