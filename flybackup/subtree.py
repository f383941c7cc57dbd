"""The part of a tree that patterns name: what matches, the directories above it, and what hard links need. Pure."""

from collections.abc import Callable, Iterable, Iterator

import msgspec

from flybackup.errors import ConfigError
from flybackup.manifest import ChunkRef, ManifestEntry
from flybackup.model import Entry, Facts
from flybackup.patterns import Patterns

Entries = Callable[[], Iterable[ManifestEntry]]
"""Gives a manifest's entries from the beginning."""


class Subtree:
    """The entries that *patterns* match, written as in a `.gitignore` from the top of the tree.

    A database's log goes where its database goes. A hard link whose first name is not taken becomes a file itself, and
    further ones links to that. Reads the manifest up to three times; holds the chunks of such files.
    """

    def __init__(self, patterns: Iterable[str], entries: Entries) -> None:
        self._patterns = Patterns(patterns)
        self._entries = entries
        self._orphans = self._orphaned()

    def read(self) -> Iterator[ManifestEntry]:
        """Yield them in their order, each directory before what is in it."""
        above: list[ManifestEntry] = []
        taken: dict[bytes, bytes] = {}
        for entry, chunks in self._entries():
            above = [each for each in above if _is_above(each.entry, entry)]
            if self._takes(entry):
                yield from above
                above = []
                yield self._adopted(entry, chunks, taken)
            elif entry.kind == "directory":
                above.append(ManifestEntry(entry, iter(())))

    def _takes(self, entry: Entry) -> bool:
        path = entry.part_of if entry.part_of is not None else entry.path
        return self._patterns.match(f"{path}/" if entry.kind == "directory" else path)

    def _orphaned(self) -> dict[bytes, tuple[Entry, list[ChunkRef]]]:
        """Return the files that are not taken themselves but of which another name is, by their path."""
        wanted: set[bytes] = set()
        taken: set[bytes] = set()
        for entry, _ in self._entries():
            if self._takes(entry):
                taken.add(entry.name)
                if entry.kind == "hardlink" and entry.target is not None:
                    wanted.add(entry.target)
        wanted -= taken
        if not wanted:
            return {}
        return {entry.name: (entry, list(chunks)) for entry, chunks in self._entries() if entry.name in wanted}

    def _adopted(self, entry: Entry, chunks: Iterator[ChunkRef], taken: dict[bytes, bytes]) -> ManifestEntry:
        orphan = self._orphans.get(entry.target or b"") if entry.kind == "hardlink" else None
        if orphan is None:
            return ManifestEntry(entry, chunks)
        first = taken.setdefault(orphan[0].name, entry.name)
        if first != entry.name:
            return ManifestEntry(msgspec.structs.replace(entry, target=first), iter(()))
        return ManifestEntry(
            msgspec.structs.replace(orphan[0], path=entry.path, raw_path=entry.raw_path), iter(orphan[1])
        )


def _is_above(directory: Entry, entry: Entry) -> bool:
    return directory.path == "." or entry.name.startswith(directory.name + b"/")


def database_of(table: str, facts: Facts) -> str | None:
    """Return the path of the database in a volume that *table*, a key of its facts, lies in; None in a database."""
    return next((path for path in facts.details if table.startswith(f"{path}:")), None) if is_volume(facts) else None


def is_volume(facts: Facts) -> bool:
    return facts.files is not None


def named_tables(tables: Iterable[str], facts: Facts) -> list[str]:
    """Return the keys of the *tables* in *facts*; each is called in full, without its database's path, or without its
    schema. Raise `ConfigError` for one that is not there, or not there only once."""
    found = []
    for table in tables:
        names = [name for name in facts.tables if table in _spellings(name, facts)]
        if len(names) != 1:
            known = ", ".join(sorted(facts.tables)) or "none"
            raise ConfigError(f"{len(names)} tables match {table!r}", hint=f"The snapshot has: {known}.")
        found += names
    return found


def _spellings(name: str, facts: Facts) -> tuple[str, ...]:
    inner = name.removeprefix(f"{database_of(name, facts)}:")
    return name, inner, inner.partition(".")[2]
