"""Bring a snapshot's roles to the server of a restore: missing ones are made, those that exist are never touched."""

from collections.abc import Iterable

from flybackup.sources.postgres import globals as cluster
from flybackup.sources.postgres.connection import Connection
from flybackup.sources.postgres.globals import Globals, Role


def apply(session: Connection, found: Globals, existing: frozenset[str]) -> list[str]:
    """Make the roles of *found* that are not in *existing*, with their memberships and settings.

    Return what to tell: what was made, what lacks a password, and what the server refused, in its words.
    """
    created: list[Role] = []
    refused: list[str] = []
    for role in found.roles:
        if role.name not in existing:
            first, *rest = cluster.role_statements(role)
            if refusal := cluster.execute(session, first):
                refused.append(f"the role {role.name} could not be created: {refusal}")
                continue
            created.append(role)
            refused += _execute_all(session, rest)
    refused += _execute_all(session, dependent_statements(found, {role.name for role in created}))
    return [*notes(created), *refused]


def dependent_statements(found: Globals, created: set[str]) -> list[str]:
    """Return the memberships and settings that concern a role just made: others would alter one that existed."""
    memberships = [item for item in found.memberships if item.member in created]
    settings = [item for item in found.settings if item.role in created and not item.here]
    return [
        *(cluster.membership_statement(item) for item in memberships),
        *(cluster.role_setting_statement(item) for item in settings),
    ]


def notes(created: Iterable[Role]) -> list[str]:
    """Return what to tell about the roles that were made."""
    made = list(created)
    said = [f"created the roles {', '.join(role.name for role in made)}"] if made else []
    without = [role.name for role in made if role.login and not role.password]
    if without:
        said.append(f"these roles have no password yet (ALTER ROLE … PASSWORD '…'): {', '.join(without)}")
    return said


def _execute_all(session: Connection, statements: Iterable[str]) -> list[str]:
    answers = ((statement, cluster.execute(session, statement)) for statement in statements)
    return [f"{statement} {refusal}" for statement, refusal in answers if refusal]
