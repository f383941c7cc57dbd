"""The environment of a user's command: the agent's, without what opens the repository and its store."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

# The repository's keys, and the store's: a program that dumps a database needs neither. Whole prefixes, so that a
# variable of a later version, and every way in which AWS credentials can be given, is left out as well.
_WITHHELD: Final = ("FLYBACKUP_", "AWS_")
_SECRET_NAME: Final = re.compile(r"(?i)pass|pwd|key|secret|token|credential")
# Shorter ones would be found in ordinary words.
_SHORTEST_SECRET: Final = 6


@dataclass(frozen=True, slots=True, repr=False)
class Environment:
    """`variables` is what a command gets; `secrets` are values, of those and of others, that nobody may be told."""

    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()

    def hide(self, text: str) -> str:
        """Return *text* without secrets: a program may quote what it was given, or found in our own environment."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def without_secrets(env: Mapping[str, str], given: Mapping[str, str]) -> Environment:
    """Return *env* without what begins with FLYBACKUP_ or AWS_, and with the variables that the user has *given*."""
    inherited = {name: value for name, value in env.items() if not name.startswith(_WITHHELD)}
    named = {value for name, value in (*env.items(), *given.items()) if _SECRET_NAME.search(name)}
    longest_first = sorted((value for value in named if len(value) >= _SHORTEST_SECRET), key=len, reverse=True)
    return Environment({**inherited, **given}, tuple(longest_first))
