"""Look at the place a restore is to go to, and decide how: pure decisions over what was seen.

Where databases may be created, a restore always goes into a new one beside the target, so that the target is replaced
in one step or not at all. Where they may not (managed services), it goes into the target, which must be empty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from flybackup.errors import RefusedError
from flybackup.sources.postgres import obstacles, swap
from flybackup.sources.postgres.catalog import USER_OBJECT, one
from flybackup.sources.postgres.connection import Address, any_session, connected
from flybackup.sources.postgres.obstacles import Target

Place = Literal["new", "swap", "inside", "schema"]
"""new: a new database that takes the free name. swap: a new one that changes names with the target. inside: the empty
target itself. schema: a new schema of the target, for single tables."""


_NO_OBJECTS: Final = " AND ".join(
    f"""NOT EXISTS (SELECT FROM pg_catalog.{table} o JOIN pg_catalog.pg_namespace n ON n.oid = o.{namespace}
                    WHERE {USER_OBJECT.format(catalog=table)})"""  # constants only
    for table, namespace in (("pg_class", "relnamespace"), ("pg_proc", "pronamespace"), ("pg_type", "typnamespace"))
)
_EMPTY: Final = f"SELECT {_NO_OBJECTS} AND NOT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)"  # noqa: S608  # constants only
_DATABASE: Final = """
    SELECT pg_catalog.pg_has_role(datdba, 'USAGE'), datallowconn FROM pg_catalog.pg_database WHERE datname = %s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The target as it is. `owned`: the role may rename it."""

    server: Target
    exists: bool
    empty: bool = True
    owned: bool = False


def look(address: Address) -> State:
    """Return what is there. Raise `SourceError` when the server cannot be asked."""
    with any_session(address) as session:
        server = obstacles.offered(session)
        row = session.execute(_DATABASE, (address.database,)).fetchone()
        swap.refuse_in_use(session, address.database)
    if row is None:
        return State(server=server, exists=False)
    owned, accepts = row
    if not accepts:
        raise RefusedError(
            f"{address.url} does not accept connections",
            hint=f"was a swap interrupted? ALTER DATABASE {address.database} ALLOW_CONNECTIONS true",
        )
    with connected(address) as session:
        (empty,) = one(session, _EMPTY)
    return State(server=server, exists=True, empty=bool(empty), owned=server.superuser or bool(owned))


def decide(state: State, name: str, *, replace: bool, tables: Sequence[str]) -> Place:
    """Return where a restore goes. Raise `RefusedError` when it would have to overwrite data, or has no place."""
    can_create = state.server.can_create_databases
    if not state.exists:
        return _free(name, can_create=can_create)
    if state.empty:
        return "swap" if can_create and state.owned else "inside"
    if tables:
        return _schema(state.server.role, can_create=can_create)
    if not replace:
        raise RefusedError(
            f"the database {name} is not empty",
            hint="restore to a new database name, or say --replace: the old database is kept under another name",
        )
    if not (can_create and state.owned):
        raise RefusedError(
            f"the role {state.server.role} may not create databases and rename {name}, so it cannot be replaced safely",
            hint="restore into an empty database and switch the application's DATABASE_URL to it",
        )
    return "swap"


def _free(name: str, *, can_create: bool) -> Place:
    if can_create:
        return "new"
    raise RefusedError(
        f"the database {name} does not exist and this role may not create it",
        hint="create it empty with the service's own command (fly mpg databases create), then restore into it",
    )


def _schema(role: str, *, can_create: bool) -> Place:
    if can_create:
        return "schema"
    raise RefusedError(
        f"the role {role} may not create databases, and single tables are taken out of a temporary one",
        hint="restore the tables into an empty database, or on another server, and copy them from there",
    )
