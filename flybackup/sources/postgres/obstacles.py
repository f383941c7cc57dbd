"""Say before a dump or a restore what would make it fail, or make it less than it seems.

Measured values in, findings out (`judge`, `judge_target`); `preflight` and `preflight_restore` measure. Used by every
capture and restore, and by `flybackup doctor`.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

from flybackup.errors import SourceError
from flybackup.model import Facts
from flybackup.sources.postgres import catalog, clients
from flybackup.sources.postgres.catalog import USER_OBJECT, Server
from flybackup.sources.postgres.connection import Connection, any_session, connected, parse

OLDEST_SERVER: Final = 13
_NAMED: Final = 5


class Finding(NamedTuple):
    """`error`: it would fail. `warning`: it works, and something is missing. `do`: what to do about it."""

    level: Literal["error", "warning"]
    what: str
    do: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the role can reach in one database; names are as SQL writes them."""

    server: Server
    role: str
    row_security: Sequence[str] = ()
    unreadable: Sequence[str] = ()
    large_objects_unreadable: int = 0
    foreign: Sequence[str] = ()
    unlogged: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a server offers a restore. `unfinished`: databases that restores under way, or killed ones, left beside."""

    server: Server
    role: str
    superuser: bool
    can_create_databases: bool
    extensions: frozenset[str]
    roles: frozenset[str]
    unfinished: Sequence[str] = ()


_ROW_SECURITY: Final = f"""
    SELECT o.oid::pg_catalog.regclass::text FROM pg_catalog.pg_class o
    JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace
    WHERE o.relkind IN ('r', 'p') AND pg_catalog.row_security_active(o.oid) AND {USER_OBJECT.format(catalog="pg_class")}
    ORDER BY 1
"""  # noqa: S608  # constants only
_UNREADABLE: Final = f"""
    SELECT o.oid::pg_catalog.regclass::text FROM pg_catalog.pg_class o
    JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace
    WHERE o.relkind IN ('r', 'p', 'm', 'S') AND o.relpersistence <> 't' AND {USER_OBJECT.format(catalog="pg_class")}
      AND NOT (pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND CASE o.relkind
               WHEN 'S' THEN pg_catalog.has_sequence_privilege(o.oid, 'SELECT')
               ELSE pg_catalog.has_table_privilege(o.oid, 'SELECT') END)
    ORDER BY 1
"""  # noqa: S608  # constants only
# `pg_read_all_data` does not reach large objects.
_LARGE_OBJECTS: Final = """
    SELECT count(*) FROM pg_catalog.pg_largeobject_metadata l
    WHERE NOT pg_catalog.pg_has_role(l.lomowner, 'USAGE')
      AND pg_catalog.current_setting('lo_compat_privileges') = 'off'
      AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(l.lomacl) a WHERE a.privilege_type = 'SELECT'
                      AND CASE a.grantee WHEN 0 THEN true ELSE pg_catalog.pg_has_role(a.grantee, 'USAGE') END)
"""
_TARGET: Final = """
    SELECT current_user, r.rolsuper, r.rolsuper OR r.rolcreatedb,
           ARRAY(SELECT name::text FROM pg_catalog.pg_available_extensions),
           ARRAY(SELECT rolname::text FROM pg_catalog.pg_roles),
           ARRAY(SELECT datname::text FROM pg_catalog.pg_database WHERE datname ~ '__flybackup_[0-9a-f]{8}$' ORDER BY 1)
    FROM pg_catalog.pg_roles r WHERE r.rolname = current_user
"""


def preflight(url: str, *, first: Sequence[Path] = ()) -> list[Finding]:
    """Return what speaks against a capture of *url*. Raise `ConfigError` for a URL that cannot be."""
    try:
        with connected(parse(url)) as connection:
            return findings(connection, first)
    except SourceError as error:
        return [Finding("error", str(error), error.hint)]


def preflight_restore(url: str, facts: Facts, *, first: Sequence[Path] = ()) -> list[Finding]:
    """Return what speaks against a restore of a snapshot with *facts* to *url*. Raise `ConfigError`."""
    try:
        with any_session(parse(url)) as connection:
            return [*judge_target(offered(connection), facts), *_client_for_restore(connection, facts, first)]
    except SourceError as error:
        return [Finding("error", str(error), error.hint)]


def findings(connection: Connection, first: Sequence[Path]) -> list[Finding]:
    """Return what speaks against a capture through this session. Raise psycopg's errors."""
    here = catalog.server(connection)
    found = judge(measured(connection, here))
    try:
        clients.for_dump(here.major, clients.installed(first))
    except SourceError as error:
        found.append(Finding("error", str(error), error.hint))
    return found


def measured(connection: Connection, here: Server) -> Measured:
    relations = catalog.relations(connection)
    (count,) = catalog.one(connection, _LARGE_OBJECTS)
    return Measured(
        server=here,
        role=connection.info.user,
        row_security=_names(connection, _ROW_SECURITY),
        unreadable=_names(connection, _UNREADABLE),
        large_objects_unreadable=count,
        foreign=[relation.key for relation in relations if relation.kind == "f"],
        unlogged=[relation.key for relation in relations if relation.unlogged and relation.kind == "r"],
    )


def offered(connection: Connection) -> Target:
    role, superuser, create, extensions, roles, unfinished = catalog.one(connection, _TARGET)
    return Target(
        server=catalog.server(connection),
        role=str(role),
        superuser=bool(superuser),
        can_create_databases=bool(create),
        extensions=frozenset(extensions),
        roles=frozenset(roles),
        unfinished=unfinished,
    )


def judge(seen: Measured) -> list[Finding]:
    """Return what *seen* means for a capture."""
    found = []
    if seen.server.major < OLDEST_SERVER:
        found.append(Finding("error", f"PostgreSQL {seen.server.version} is not supported", "upgrade to 13 or newer"))
    if seen.row_security:
        what = f"row-level security would hide rows of {_some(seen.row_security)} from the role {seen.role}"
        found.append(Finding("error", what, f"ALTER ROLE {seen.role} BYPASSRLS, or back up as the tables' owner"))
    if seen.unreadable:
        what = f"the role {seen.role} may not read {_some(seen.unreadable)}"
        found.append(Finding("error", what, f"GRANT pg_read_all_data TO {seen.role} (PostgreSQL 14 and newer)"))
    if seen.large_objects_unreadable:
        what = f"the role {seen.role} may not read {seen.large_objects_unreadable} large objects"
        do = "back up as their owner or a superuser, or GRANT SELECT ON LARGE OBJECT; pg_read_all_data is not enough"
        found.append(Finding("error", what, do))
    return found + _gaps(seen)


def _gaps(seen: Measured) -> list[Finding]:
    found = []
    if seen.foreign:
        what = f"the rows of foreign tables are on another server and not in the snapshot: {_some(seen.foreign)}"
        found.append(Finding("warning", what, "back up that server too"))
    if seen.unlogged and seen.server.standby:
        what = f"this is a standby, which has no rows of unlogged tables: {_some(seen.unlogged)}"
        found.append(Finding("warning", what, "back up the primary if these rows matter"))
    return found


def judge_target(target: Target, facts: Facts) -> list[Finding]:
    """Return what *target* means for a restore of *facts*."""
    found = []
    major = dump_major(facts)
    if major is not None and target.server.major < major:
        what = f"the snapshot is of PostgreSQL {major}, the target is the older {target.server.major}"
        found.append(Finding("error", what, f"restore onto PostgreSQL {major} or newer"))
    if missing := sorted(extension_names(facts) - target.extensions):
        what = f"the target server does not have the extensions {_some(missing)}"
        found.append(Finding("error", what, "install them on the target server first"))
    if not target.can_create_databases:
        what = f"the role {target.role} may not create databases: the restore needs an empty one, and cannot swap"
        found.append(Finding("warning", what, f"ALTER ROLE {target.role} CREATEDB, or create an empty database"))
    if target.unfinished:
        what = f"restores that did not finish left the databases {_some(target.unfinished)}"
        found.append(Finding("warning", what, "unless a restore is running now, DROP DATABASE … WITH (FORCE)"))
    return found + _ownership(target, facts)


def _ownership(target: Target, facts: Facts) -> list[Finding]:
    if not target.superuser:
        what = f"the role {target.role} is no superuser: it will own everything, and grants are not restored"
        return [Finding("warning", what, "restore as a superuser, or grant afterwards")]
    if missing := sorted(required_roles(facts) - target.roles):
        what = f"roles that own or use something are missing on the target: {_some(missing)}"
        return [
            Finding("warning", what, "they are created from the snapshot's globals; set passwords where none was kept")
        ]
    return []


def _client_for_restore(connection: Connection, facts: Facts, first: Sequence[Path]) -> list[Finding]:
    server_major = catalog.server(connection).major
    major = dump_major(facts) or server_major
    if major > server_major:
        return []
    try:
        clients.for_restore(major, server_major, clients.installed(first))
    except SourceError as error:
        return [Finding("error", str(error), error.hint)]
    return []


def dump_major(facts: Facts) -> int | None:
    """Return the major version of the client that wrote the dump, None where the facts do not say."""
    version = facts.details.get("client_version", "").split(".")[0]
    return int(version) if version.isdigit() else None


def extension_names(facts: Facts) -> set[str]:
    return {item.split("=")[0] for item in facts.details.get("extensions", "").split(", ") if item}


def required_roles(facts: Facts) -> set[str]:
    """Return the roles that own or may use something in the snapshot."""
    return set(json.loads(facts.details.get("roles", "[]")))


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more


def _names(connection: Connection, query: str) -> list[str]:
    return [name for (name,) in connection.execute(query.encode())]


def why_no_owners(offered_now: Target, facts: Facts) -> str:
    """Return why a restore cannot give objects to their owners; empty when it can."""
    if not offered_now.superuser:
        return f"{offered_now.role} is no superuser"
    missing = sorted(required_roles(facts) - offered_now.roles)
    return f"the roles {_some(missing)} are missing" if missing else ""


def foreign_extensions(session: Connection) -> list[str]:
    """Return the extensions of this database that the role does not own: their comments cannot be set."""
    return _names(
        session,
        "SELECT extname FROM pg_catalog.pg_extension"
        " WHERE extname <> 'plpgsql' AND NOT pg_catalog.pg_has_role(extowner, 'USAGE')",
    )


def missing_tablespaces(session: Connection, facts: Facts) -> list[str]:
    there = set(_names(session, "SELECT spcname FROM pg_catalog.pg_tablespace"))
    return sorted(set(json.loads(facts.details.get("tablespaces", "[]"))) - there)
