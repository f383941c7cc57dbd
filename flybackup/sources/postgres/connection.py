"""Where a database is, sessions on it, and how to name it to people and programs without telling its password.

The URL is libpq's (PostgreSQL manual, 34.1.1 "Connection Strings"); what it leaves out comes from the `PG*` environment
variables, as for every client of PostgreSQL.
"""

import os
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import psycopg
from psycopg import conninfo, pq
from psycopg.rows import TupleRow

from flybackup.errors import ConfigError, SourceError
from flybackup.sources.postgres import pooler

Connection = psycopg.Connection[TupleRow]

_SCHEMES: Final = ("postgresql://", "postgres://")
_APPLICATION: Final = "flybackup"
_CONNECT_TIMEOUT_SECONDS: Final = 30
_MAINTENANCE: Final = ("postgres", "template1")

# The child programs get the environment they need and no more: the repository's secrets are in ours.
_INHERITED: Final = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")
_INHERITED_PREFIXES: Final = ("PG", "KRB5")
# These would change what the programs write, not where they connect.
_NOT_INHERITED: Final = ("PGCLIENTENCODING", "PGDATESTYLE", "PGTZ", "PGGEQO")
# libpq has no environment variables for these, and they are no secrets, so they may stand in argv.
_IN_ARGUMENTS: Final = (
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)

# Everything that changes how a value looks as text, fixed, so that checksums of equal rows are equal on every server;
# an empty search_path, so that names come out qualified and resolve as they do for pg_dump and pg_restore.
SESSION_SETTINGS: Final = {
    "search_path": "",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "row_security": "off",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "lc_monetary": "C",
    "xmlbinary": "base64",
    "synchronize_seqscans": "off",
}


@dataclass(frozen=True, slots=True)
class Address:
    """The parameters of a connection to one database; its `repr` holds no secret."""

    parameters: Mapping[str, str] = field(repr=False)

    @property
    def database(self) -> str:
        return self.parameters["dbname"]

    def naming(self, database: str) -> "Address":
        """Return the address of another database of the same server."""
        return Address({**self.parameters, "dbname": database})

    @property
    def url(self) -> str:
        """Return the URL without its secrets, for messages."""
        known = {name: self.parameters.get(name, "") for name in ("user", "host", "port")}
        at = f"{quote(known['user'])}@" if known["user"] else ""
        port = f":{known['port']}" if known["port"] else ""
        return f"postgresql://{at}{quote(known['host'], safe='[]:,.')}{port}/{quote(self.database)}"

    def scrub(self, text: str) -> str:
        """Return *text* without the secrets of this connection: servers and programs may quote what they were given."""
        for secret in (self.parameters.get("password"), os.environ.get("PGPASSWORD")):
            if secret:
                text = text.replace(secret, "***").replace(quote(secret, safe=""), "***")
        return text

    def environment(self) -> dict[str, str]:
        """Return the environment in which a client program of PostgreSQL finds this database.

        The environment of a process can be read by its own user and root only; its arguments by everybody.
        """
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name in _INHERITED or (name.startswith(_INHERITED_PREFIXES) and name not in _NOT_INHERITED)
        }
        variables = _environment_variables()
        ours = {variables[name]: value for name, value in self.parameters.items() if name in variables}
        return {**inherited, "PGAPPNAME": _APPLICATION, **ours, "LC_ALL": "C"}

    def argument(self) -> str:
        """Return the value for a program's `--dbname`: the database's name and what the environment cannot say."""
        return conninfo.make_conninfo(
            dbname=self.database, **{name: self.parameters[name] for name in _IN_ARGUMENTS if name in self.parameters}
        )


def parse(url: str) -> Address:
    """Return the address that *url* means. Raise `ConfigError` when it is not a PostgreSQL URL or names no database."""
    if not url.startswith(_SCHEMES):
        raise ConfigError("not a PostgreSQL URL", hint="write it as postgresql://user@host:5432/database")
    try:
        parameters = {name: str(value) for name, value in conninfo.conninfo_to_dict(url).items()}
    except psycopg.Error:
        # libpq quotes the part it does not understand, and that may be the password: its text must not travel on.
        raise ConfigError(
            "the PostgreSQL URL cannot be parsed",
            hint="write special characters of the password percent-encoded: @ as %40, / as %2F, % as %25",
        ) from None
    _require_expressible(parameters)
    return Address({**parameters, "dbname": _database(parameters)})


def redact(url: str) -> str:
    """Return *url* as it may appear in messages: no password, no options."""
    try:
        return parse(url).url
    except ConfigError:
        return "postgresql://(not a valid URL)"


def _require_expressible(parameters: Mapping[str, str]) -> None:
    known = {*_environment_variables(), *_IN_ARGUMENTS, "fallback_application_name"}
    if unknown := sorted(set(parameters) - known):
        raise ConfigError(
            f"the connection parameter {unknown[0]} cannot be handed to pg_dump in the environment",
            hint="take it out of the URL; a key without a passphrase needs no sslpassword",
        )


def _database(parameters: Mapping[str, str]) -> str:
    names = (parameters.get("dbname"), os.environ.get("PGDATABASE"), parameters.get("user"), os.environ.get("PGUSER"))
    for name in names:
        if name:
            return name
    raise ConfigError("the PostgreSQL URL names no database", hint="add it: postgresql://user@host:5432/database")


def _environment_variables() -> dict[str, str]:
    options = pq.Conninfo.get_defaults()
    return {option.keyword.decode(): option.envvar.decode() for option in options if option.envvar}


@contextmanager
def connected(address: Address, settings: Mapping[str, str] = SESSION_SETTINGS) -> Generator[Connection]:
    """Open an autocommitting session with *settings*, and close it. Failures of the block are `SourceError`."""
    # Closed, not committed: whatever has to last was committed by itself.
    with translated(address), closing(connect(address, settings)) as connection:
        yield connection


def connect(address: Address, settings: Mapping[str, str] = SESSION_SETTINGS) -> Connection:
    """Open an autocommitting session with *settings*. Raise `SourceError`, also for a pooler in transaction mode."""
    with translated(address, doing="cannot connect"):
        connection = _open(address)
        try:
            if pooler.is_proxied(connection):
                with closing(_open(address)) as again:
                    pooler.refuse_transaction_pooling(connection, again)
            _apply(connection, settings)
        except BaseException:
            connection.close()
            raise
        return connection


def _open(address: Address) -> Connection:
    given: dict[str, Any] = {"connect_timeout": _CONNECT_TIMEOUT_SECONDS, **address.parameters}
    given |= {"client_encoding": "UTF8", "fallback_application_name": _APPLICATION}
    return psycopg.connect(**given, autocommit=True)


def _apply(connection: Connection, settings: Mapping[str, str]) -> None:
    """Set *settings* for the session; not as startup options, which poolers refuse."""
    chosen = ", ".join("set_config(%s, %s, false)" for _ in settings)
    if chosen:
        values = [part for pair in settings.items() for part in pair]
        connection.execute(f"SELECT {chosen}".encode(), values)


@contextmanager
def any_session(address: Address) -> Generator[Connection]:
    """Open a session on the server, in whichever database lets us in. Raise `SourceError`."""
    last: SourceError | None = None
    for name in (*(name for name in _MAINTENANCE if name != address.database), address.database):
        try:
            connect(address.naming(name), {}).close()
        except SourceError as error:
            last = last or error
            continue
        with connected(address.naming(name)) as session:
            yield session
        return
    assert last is not None
    raise last


@contextmanager
def translated(address: Address, *, doing: str = "the database refused") -> Generator[None]:
    """Turn psycopg's errors into `SourceError` without secrets."""
    try:
        yield
    except psycopg.Error as exc:
        what = f"{address.url}: {doing}: {address.scrub(str(exc).strip())}"
        raise SourceError(what, hint=advice_for(exc)) from exc


def advice_for(exc: psycopg.Error) -> str:
    """Return what to do about *exc*, by its SQLSTATE (PostgreSQL manual, appendix A)."""
    for kind, advice in _ADVICE:
        if isinstance(exc, kind):
            return advice
    return ""


_ADVICE: Final[tuple[tuple[type[psycopg.Error], str], ...]] = (
    (psycopg.errors.InvalidPassword, "check the password in the URL, PGPASSWORD or the password file"),
    (psycopg.errors.InvalidCatalogName, "create the database, or correct its name in the URL"),
    (psycopg.errors.InsufficientPrivilege, "grant the role what the message names; `flybackup doctor` lists it all"),
    (psycopg.errors.LockNotAvailable, "another session holds an exclusive lock (a migration?): try again later"),
    (psycopg.errors.OutOfMemory, "raise max_locks_per_transaction on the server: every table is locked at once"),
    (psycopg.errors.TooManyConnections, "the server has no free connection: raise max_connections or use fewer jobs"),
    (
        psycopg.errors.SerializationFailure,
        "a standby gave up the snapshot: set hot_standby_feedback on it",
    ),
    (psycopg.errors.QueryCanceled, "somebody cancelled the query: try again"),
    (psycopg.errors.DiskFull, "the server's disk is full: enlarge it or remove old databases"),
    (psycopg.OperationalError, "is the server running and reachable at this address?"),
)
