"""What belongs to a database but not to its dump: roles, memberships, settings, owner and rights of the database.

`pg_dumpall --globals-only` reads them in a snapshot of its own and needs `pg_authid`, which managed services hide. Here
they are read in the snapshot of the dump, with the stored password verifiers where the role may read them. The stream
is an SQL file for people (`psql -f`) whose first line carries the same as JSON for the restore: nothing is run that
was not made from typed values here.
"""

from typing import Final, cast

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from flybackup.errors import SourceError
from flybackup.sources.postgres.connection import Connection
from flybackup.sources.postgres.quoting import identifier, literal, setting_value

_HEADER: Final = "-- flybackup globals 1 "
_ROLE_COLUMNS: Final = """
    SELECT rolname AS name, rolsuper AS superuser, rolinherit AS inherit, rolcreaterole AS createrole,
           rolcreatedb AS createdb, rolcanlogin AS login, rolreplication AS replication, rolbypassrls AS bypassrls,
           rolconnlimit AS connection_limit, rolvaliduntil::text AS valid_until, {verifier} AS password,
           pg_catalog.shobj_description(oid, 'pg_authid') AS comment
    FROM {catalog} WHERE rolname !~ '^pg_' ORDER BY rolname
"""
_ROLES: Final = _ROLE_COLUMNS.format(verifier="NULL", catalog="pg_catalog.pg_roles")
_ROLES_WITH_PASSWORDS: Final = _ROLE_COLUMNS.format(verifier="rolpassword", catalog="pg_catalog.pg_authid")
_MEMBERSHIPS: Final = """
    SELECT pg_catalog.pg_get_userbyid(m.roleid) AS role, pg_catalog.pg_get_userbyid(m.member) AS member,
           m.admin_option AS admin, (pg_catalog.to_jsonb(m) ->> 'inherit_option')::boolean AS inherit,
           (pg_catalog.to_jsonb(m) ->> 'set_option')::boolean AS set
    FROM pg_catalog.pg_auth_members m WHERE pg_catalog.pg_get_userbyid(m.member) !~ '^pg_' ORDER BY 1, 2, 3
"""
# Settings of roles everywhere, and of this database for everybody or for one role.
_SETTINGS: Final = """
    SELECT CASE WHEN s.setrole <> 0 THEN pg_catalog.pg_get_userbyid(s.setrole) END AS role,
           s.setdatabase <> 0 AS here, split_part(c, '=', 1) AS name, substr(c, strpos(c, '=') + 1) AS value
    FROM pg_catalog.pg_db_role_setting s, unnest(s.setconfig) c
    WHERE s.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))
    ORDER BY 1 NULLS FIRST, 2, 3
"""
_DATABASE: Final = """
    SELECT d.datname AS name, pg_catalog.pg_get_userbyid(d.datdba) AS owner, d.datconnlimit AS connection_limit,
           pg_catalog.shobj_description(d.oid, 'pg_database') AS comment
    FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
"""
_GRANTS: Final = """
    SELECT CASE WHEN a.grantee <> 0 THEN pg_catalog.pg_get_userbyid(a.grantee) END AS grantee,
           a.privilege_type AS privilege, a.is_grantable AS grantable
    FROM pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) a
    WHERE d.datname = pg_catalog.current_database() ORDER BY 1 NULLS FIRST, 2
"""


class Role(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    superuser: bool
    inherit: bool
    createrole: bool
    createdb: bool
    login: bool
    replication: bool
    bypassrls: bool
    connection_limit: int = -1
    valid_until: str | None = None
    password: str | None = None
    comment: str | None = None


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """`inherit` and `set` came with PostgreSQL 16 and are None before."""

    role: str
    member: str
    admin: bool
    inherit: bool | None = None
    set: bool | None = None


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """`role` None: of everybody. `here`: in this database only."""

    role: str | None
    here: bool
    name: str
    value: str


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """`grantee` None: PUBLIC."""

    grantee: str | None
    privilege: str
    grantable: bool


class Database(msgspec.Struct, frozen=True, kw_only=True):
    """`grants` None: the defaults were never touched."""

    name: str
    owner: str
    connection_limit: int = -1
    comment: str | None = None
    grants: list[Grant] | None = None


class Globals(msgspec.Struct, frozen=True, kw_only=True):
    roles: list[Role]
    memberships: list[Membership]
    settings: list[Setting]
    database: Database
    passwords: bool


def read(connection: Connection) -> Globals:
    """Return the globals in the session's snapshot. Raise psycopg's errors."""
    (readable,) = cast(
        "tuple[bool]",
        connection.execute("SELECT pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT')").fetchone(),
    )
    grants = _rows(connection, _GRANTS)
    (touched,) = cast(
        "tuple[bool]",
        connection.execute(
            "SELECT datacl IS NOT NULL FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()"
        ).fetchone(),
    )
    found = {
        "roles": _rows(connection, _ROLES_WITH_PASSWORDS if readable else _ROLES),
        "memberships": _rows(connection, _MEMBERSHIPS),
        "settings": _rows(connection, _SETTINGS),
        "database": {**_rows(connection, _DATABASE)[0], "grants": grants if touched else None},
        "passwords": readable,
    }
    return msgspec.convert(found, Globals)


def _rows(connection: Connection, query: str) -> list[dict[str, object]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode()).fetchall()


def dump(found: Globals) -> bytes:
    """Return the SQL file."""
    lines = [
        _HEADER + msgspec.json.encode(found).decode(),
        "-- Of the snapshot of the dump beside it. For psql, as a superuser; roles that exist are errors to ignore.",
        *(statement for role in found.roles for statement in role_statements(role)),
        *(membership_statement(membership) for membership in found.memberships),
        *(role_setting_statement(setting) for setting in found.settings if not setting.here),
        *database_statements(found, found.database.name),
    ]
    return ("\n".join(lines) + "\n").encode()


def load(content: bytes) -> Globals:
    """Return what `dump` was given. Raise `SourceError` for anything else."""
    first = content.split(b"\n", 1)[0]
    if not first.startswith(_HEADER.encode()):
        raise SourceError("the snapshot's globals are not in a form this version knows", hint="update flybackup")
    try:
        return msgspec.json.decode(first.removeprefix(_HEADER.encode()), type=Globals)
    except msgspec.MsgspecError as exc:
        raise SourceError("the snapshot's globals cannot be read", hint="update flybackup") from exc


def role_statements(role: Role) -> list[str]:
    """Return the statements that make *role*, with its stored verifier where one was read."""
    flags = {
        "SUPERUSER": role.superuser,
        "INHERIT": role.inherit,
        "CREATEROLE": role.createrole,
        "CREATEDB": role.createdb,
        "LOGIN": role.login,
        "REPLICATION": role.replication,
        "BYPASSRLS": role.bypassrls,
    }
    # Only what differs from CREATE ROLE's defaults: saying NOSUPERUSER already takes a superuser on some versions.
    options = [name for name, on in flags.items() if on and name != "INHERIT"]
    options += [] if role.inherit else ["NOINHERIT"]
    options += [f"CONNECTION LIMIT {role.connection_limit}"] if role.connection_limit >= 0 else []
    options += [f"VALID UNTIL {literal(role.valid_until)}"] if role.valid_until else []
    options += [f"PASSWORD {literal(role.password)}"] if role.password else []
    name = identifier(role.name)
    made = [" ".join([f"CREATE ROLE {name}", *options]) + ";"]
    return made + ([f"COMMENT ON ROLE {name} IS {literal(role.comment)};"] if role.comment else [])


def membership_statement(membership: Membership) -> str:
    options = [] if membership.set is not None else (["ADMIN OPTION"] if membership.admin else [])
    if membership.set is not None:
        chosen = {"ADMIN": membership.admin, "INHERIT": membership.inherit, "SET": membership.set}
        options = [f"{name} {str(bool(on)).upper()}" for name, on in chosen.items()]
    suffix = f" WITH {', '.join(options)}" if options else ""
    return f"GRANT {identifier(membership.role)} TO {identifier(membership.member)}{suffix};"


def role_setting_statement(setting: Setting) -> str:
    """Return the statement for a setting of a role in every database."""
    value = setting_value(setting.name, setting.value)
    return f"ALTER ROLE {_role(setting.role)} SET {identifier(setting.name, dotted=True)} TO {value};"


def database_statements(found: Globals, name: str) -> list[str]:
    """Return the statements that give the database called *name* the owner, settings and rights of the captured one."""
    quoted, database = identifier(name), found.database
    made = [f"ALTER DATABASE {quoted} OWNER TO {identifier(database.owner)};"]
    if database.connection_limit >= 0:
        made.append(f"ALTER DATABASE {quoted} CONNECTION LIMIT {database.connection_limit};")
    if database.comment:
        made.append(f"COMMENT ON DATABASE {quoted} IS {literal(database.comment)};")
    made += [_setting_here(setting, quoted) for setting in found.settings if setting.here]
    return made + ([] if database.grants is None else _grant_statements(database, quoted))


def _setting_here(setting: Setting, database: str) -> str:
    value = f"{identifier(setting.name, dotted=True)} TO {setting_value(setting.name, setting.value)}"
    if setting.role is None:
        return f"ALTER DATABASE {database} SET {value};"
    return f"ALTER ROLE {identifier(setting.role)} IN DATABASE {database} SET {value};"


def _grant_statements(database: Database, quoted: str) -> list[str]:
    made = [f"REVOKE ALL ON DATABASE {quoted} FROM PUBLIC;"]
    for grant in database.grants or ():
        option = " WITH GRANT OPTION" if grant.grantable else ""
        made.append(f"GRANT {grant.privilege} ON DATABASE {quoted} TO {_role(grant.grantee, 'PUBLIC')}{option};")
    return made


def _role(name: str | None, everybody: str = "ALL") -> str:
    return everybody if name is None else identifier(name)


def execute(connection: Connection, statement: str) -> str:
    """Run *statement*; return the server's refusal in words, empty when there was none."""
    try:
        connection.execute(sql.SQL(statement))  # made here, of quoted values
    except psycopg.Error as exc:
        return str(exc).splitlines()[0]
    return ""
