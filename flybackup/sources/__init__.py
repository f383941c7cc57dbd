"""The source seam: a location of some kind that can be captured, restored into and measured.

A source is a place, not a role: the same `DuckdbSource(path)` is captured when it is a live database and restored into
when it is a target. So `restore(capture(x))` is proved without a repository (`tests/contract/test_source.py`), and a
snapshot restores by its kind alone, without the configuration that made it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from flybackup.chunking import Extent, Fixed
from flybackup.manifest import Kept
from flybackup.model import Entry, Facts


class Stream(NamedTuple):
    """One entry and its bytes.

    `extents` is lazy and is read once, to its end, before the next stream is asked for. In a capture, `entry.size`
    need not be right beforehand: the extents say; and `amended`, asked after them, may return what the entry turned out
    to be. In a restore `size` is right, extents may come in any order, and holes are not given. `chunking` None means
    content-defined. `whole` is all of a small file's data, which the extents give as well. `kept` says that the data is
    the previous snapshot's: there are no extents.
    """

    entry: Entry
    extents: Iterator[Extent]
    chunking: Fixed | None = None
    amended: Callable[[], Entry] | None = None
    whole: bytes | None = None
    kept: Kept | None = None


class Captured(NamedTuple):
    """What a finished capture says of itself; becomes part of the snapshot's head.

    `problems` name what could not be captured as it should be: with any, the snapshot is partial.
    """

    facts: Facts
    method: str
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class Capture(Protocol):
    """A consistent view of a source, for as long as its `with` block lasts."""

    def streams(self) -> Iterator[Stream]:
        """Yield the entries with their bytes; once."""
        ...

    def finish(self) -> Captured:
        """Return the facts, after `streams` is exhausted. Raise `SourceError` when the view was not consistent."""
        ...


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """`replace`: an existing target may be replaced, its old content kept aside. `tables`: only these (`schema.table`
    or a bare table name); empty means all. `only`: the entries that these patterns match, of a volume. `jobs`: how many
    connections or threads the target may be given. `facts`: what the snapshot says it holds, so that a restore can be
    refused before it begins.
    """

    replace: bool = False
    tables: Sequence[str] = ()
    only: Sequence[str] = ()
    jobs: int = 1
    facts: Facts = field(default_factory=Facts)


class Restoration(Protocol):
    """Data restored beside its target, not yet in place. Leaving the block without `publish` or `keep` removes it."""

    def probe(self, *, checksums: bool) -> Facts:
        """Measure what was restored, as `capture` measured it."""
        ...

    def publish(self) -> tuple[str, ...]:
        """Move it into place, atomically where the target allows it. Return sentences for the user: where the old
        content lies and the command that undoes this."""
        ...

    def keep(self) -> str:
        """Leave it beside the target, because verification failed and it may be all there is. Return where it lies."""
        ...


class Source(Protocol):
    """Every failure is a `SourceError`, a `RefusedError`, or a `ConfigError` for a location that cannot be."""

    @property
    def kind(self) -> str: ...

    @property
    def fixes_view(self) -> bool:
        """True when the view is of the moment in which `capture` opens it, however late the streams are read. False
        when it is of some moment while they are read."""
        ...

    def capture(self, scratch: Path, previous: Iterable[Kept] = ()) -> AbstractContextManager[Capture]:
        """Open a consistent view without stopping or blocking whoever uses the source.

        *scratch* is an empty private directory (0700) that is removed afterwards; nothing else is written. *previous*
        is what the snapshot before holds and the store still has, in its order; a source that fixes its view may ask
        for it only when its streams are asked for.
        """
        ...

    def restore(
        self, streams: Iterator[Stream], options: RestoreOptions, scratch: Path
    ) -> AbstractContextManager[Restoration]:
        """Write *streams* beside this location and return them, not yet in place.

        Raise `RefusedError` before anything is read when the location is taken (and `replace` was not said) or in use.
        """
        ...

    def probe(self, *, checksums: bool, scratch: Path) -> Facts:
        """Measure what is there now, without changing it."""
        ...


@runtime_checkable
class Refusing(Protocol):
    """A source that can say beforehand what speaks against restoring into it. Of a set all are asked before the first
    is read; one that cannot say refuses when it is its turn, which costs time and nothing else."""

    def refuse(self, options: RestoreOptions) -> None:
        """Raise what `restore` would raise before anything is read. Changes nothing."""
        ...
