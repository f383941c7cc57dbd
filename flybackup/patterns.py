"""Patterns as in a `.gitignore` (gitignore(5)): which paths of a tree they mean."""

from collections.abc import Iterable
from typing import NamedTuple

import pathspec

from flybackup.errors import ConfigError


class Patterns:
    """Patterns in one order: the last that matches a path decides, and `!` before it turns it round.

    Raise `ConfigError` for a pattern that is none.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        try:
            self._spec = pathspec.GitIgnoreSpec.from_lines(lines)
        except (ValueError, TypeError) as exc:
            raise ConfigError(f"not a pattern: {exc}", hint="Patterns are written as in a .gitignore.") from exc
        self._any = len(self._spec) > 0

    def verdict(self, path: str) -> bool | None:
        """Tell whether *path* is meant, None where no pattern says anything. A directory ends with a slash."""
        return self._spec.check_file(path).include if self._any else None

    def match(self, path: str) -> bool:
        """Tell whether *path*, or a directory above it, is meant."""
        return self.verdict(path) is True


class Rules(NamedTuple):
    """Patterns that hold below `directory` (with its slash, empty for the top), and what holds there besides."""

    directory: str
    patterns: Patterns
    outer: "Rules | None" = None

    def exclude(self, path: str) -> bool:
        """Tell whether *path* is left out: the innermost rules that say anything decide."""
        verdict = self.patterns.verdict(path.removeprefix(self.directory))
        if verdict is None:
            return self.outer is not None and self.outer.exclude(path)
        return verdict
