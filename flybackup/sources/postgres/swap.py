"""Create, drop and exchange databases of one server, from a session on another of its databases.

Both renames are one transaction, so the name is never free and never taken by half a swap. What cannot be in it is
keeping sessions out (`ALLOW_CONNECTIONS false` must be seen by others): if we die there, the data is untouched and the
logged undo command lets them in again.
"""

import logging
from collections.abc import Mapping
from typing import Final

import psycopg
from psycopg import sql

from flybackup.errors import RefusedError, SourceError
from flybackup.sources.postgres.connection import Connection
from flybackup.sources.postgres.quoting import identifier, literal, name_beside

_log: Final = logging.getLogger(__name__)
_PROVIDERS_SINCE: Final = 15
_PROVIDERS: Final = {"i": "icu", "b": "builtin"}
_LOCALE_REFUSED: Final = (
    psycopg.errors.WrongObjectType,
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.InvalidObjectDefinition,
    psycopg.errors.FeatureNotSupported,
)
_HOLDERS: Final = """
    SELECT (SELECT count(*) FROM pg_catalog.pg_prepared_xacts WHERE database = %s),
           (SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE database = %s AND active)
"""
_TERMINATE: Final = """
    SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
    WHERE datname = %s AND pid <> pg_catalog.pg_backend_pid() AND backend_type = 'client backend'
"""


def create(session: Connection, name: str, details: Mapping[str, str]) -> list[str]:
    """Create the empty database *name* with the encoding and locale in *details*, or the nearest the server has.

    Return a sentence when it had to differ. Raise `SourceError`.
    """
    refusals: list[str] = []
    for statement in creations(name, details, session.info.server_version // 10_000):
        try:
            session.execute(sql.SQL(statement))  # made of quoted values
        except _LOCALE_REFUSED as exc:
            refusals.append(str(exc).splitlines()[0])
        else:
            return (
                [f"the server does not have the original locale ({refusals[0]}): text sorts as C"] if refusals else []
            )
    raise SourceError(f"cannot create the database {name}: {refusals[-1]}")


def creations(name: str, details: Mapping[str, str], server_major: int) -> list[str]:
    """Return the statements to try, the most faithful first."""
    start = f"CREATE DATABASE {identifier(name)} TEMPLATE template0"
    if "encoding" not in details:
        return [start]
    encoding = f"{start} ENCODING {literal(details['encoding'])}"
    libc = f" LC_COLLATE {literal(details.get('collate', 'C'))} LC_CTYPE {literal(details.get('ctype', 'C'))}"
    provider = f" LOCALE_PROVIDER libc{libc}" if server_major >= _PROVIDERS_SINCE else libc
    kind = _PROVIDERS.get(details.get("provider", "c"))
    if kind is not None and "locale" in details:
        rules = f" ICU_RULES {literal(details['icu_rules'])}" if "icu_rules" in details else ""
        provider = f" LOCALE_PROVIDER {kind}{libc} {kind.upper()}_LOCALE {literal(details['locale'])}{rules}"
    plain = " LOCALE_PROVIDER libc" if server_major >= _PROVIDERS_SINCE else ""
    return [encoding + provider, f"{encoding}{plain} LC_COLLATE 'C' LC_CTYPE 'C'"]


def drop(session: Connection, name: str) -> None:
    """Drop *name* if it is there, whoever is connected to it."""
    session.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def rename(session: Connection, name: str, to: str) -> None:
    session.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(name), sql.Identifier(to)))


def exchange(session: Connection, name: str, restored: str, aside: str) -> None:
    """Let *restored* take the name of *name*, which is called *aside* from then on.

    Sessions on *name* are ended. On failure everything is as before, but for those. Raise `RefusedError` when something
    uses *name* that cannot be ended.
    """
    refuse_in_use(session, name)
    _log.warning("exchanging databases; to undo, run in another database: %s", " ".join(undo(name, aside)))
    _allow(session, name, "false")
    try:
        session.execute(_TERMINATE, (name,))
        # The rename itself waits up to five seconds for the ended sessions to be gone (manual, dropdb).
        with session.transaction():
            rename(session, name, aside)
            rename(session, restored, name)
    except psycopg.errors.ObjectInUse as exc:
        _allow(session, name, "true")
        raise RefusedError(
            f"the database {name} is in use by something that could not be ended: {exc.diag.message_detail}",
            hint="end it, then restore again; nothing was changed",
        ) from exc
    except BaseException:
        _allow(session, name, "true")
        raise
    _allow(session, aside, "true")


def refuse_in_use(session: Connection, name: str) -> None:
    """Raise `RefusedError` when ending the sessions on *name* would not free it: better now than after hours."""
    row = session.execute(_HOLDERS, (name, name)).fetchone()
    assert row is not None
    prepared, replicating = row
    if prepared:
        raise RefusedError(
            f"the database {name} has {prepared} prepared transactions, which hold its data",
            hint="COMMIT PREPARED or ROLLBACK PREPARED them (pg_prepared_xacts), then restore again",
        )
    if replicating:
        raise RefusedError(
            f"{replicating} subscribers replicate from the database {name}",
            hint="disable the subscriptions, then restore again; they will need new slots afterwards",
        )


def undo(name: str, aside: str) -> list[str]:
    """Return the statements that take *aside* back to *name*, to be run in another database."""
    undone = name_beside(aside, "undone")
    return [
        f"ALTER DATABASE {identifier(name)} ALLOW_CONNECTIONS false;",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {literal(name)};",  # noqa: S608  # quoted
        f"ALTER DATABASE {identifier(name)} RENAME TO {identifier(undone)};",
        f"ALTER DATABASE {identifier(aside)} RENAME TO {identifier(name)};",
        f"ALTER DATABASE {identifier(name)} ALLOW_CONNECTIONS true;",
    ]


def _allow(session: Connection, name: str, value: str) -> None:
    session.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(sql.Identifier(name), sql.SQL(value)))
