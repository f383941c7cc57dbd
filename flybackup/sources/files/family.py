"""A database file and the companions that belong to it: logs, journals."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Family:
    """The database at `path`, and beside it what its name followed by one of `suffixes` names."""

    path: Path
    suffixes: tuple[str, ...]

    def at(self, path: Path) -> "Family":
        """Return the family of another database of this kind."""
        return Family(path, self.suffixes)

    def beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def companions(self) -> list[Path]:
        """Return the companions that exist, in the order of `suffixes`."""
        return [path for suffix in self.suffixes if os.path.lexists(path := self.beside(suffix))]

    def members(self) -> list[Path]:
        """Return every file of the family that exists, the database itself last."""
        return [*self.companions(), *([self.path] if os.path.lexists(self.path) else [])]

    def remove(self) -> None:
        for path in self.members():
            path.unlink(missing_ok=True)
