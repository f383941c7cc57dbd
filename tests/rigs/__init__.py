"""What the source contract suite needs of each kind: one rig that makes, changes and inspects real sources.

A module `rigs/<kind>_rig.py` with a function `rig(directory) -> ContextManager[Rig]` joins `contract/test_source.py`.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from flybackup.chunking import Extent
from flybackup.sources import Capture, Source, Stream


class Rig(Protocol):
    """Real sources of one kind, all inside one temporary directory or server."""

    @property
    def one_table(self) -> str:
        """The key of a table that can be restored alone."""
        ...

    def populated(self) -> Source:
        """Make a source with several tables, in two schemas, one of them empty."""
        ...

    def change(self, source: Source) -> None:
        """Add rows, so that its facts differ from before."""
        ...

    def fresh_target(self) -> Source:
        """Return a location where nothing is."""
        ...

    def unreadable(self) -> Source:
        """Return a location that cannot be captured."""
        ...

    def assert_same(self, source: Source, target: Source) -> None:
        """Compare the content itself, more strictly than facts do: bytes where the kind restores bytes."""
        ...

    def in_use(self, target: Source) -> AbstractContextManager[None]:
        """Let another process use *target*, so that replacing it would pull its data away."""
        ...

    def left_beside(self, target: Source) -> Sequence[str]:
        """Name everything a restore may have left at or beside *target*: files, databases."""
        ...

    def undo(self, sentences: Sequence[str]) -> None:
        """Do what the sentences of `publish` tell a user to do."""
        ...


def stored(capture: Capture) -> list[Stream]:
    """Read *capture* as a repository would and return streams as a restore gives them: sizes right, files backwards."""
    streams = []
    for stream in capture.streams():
        content, size = _assembled(stream.extents)
        extents = [Extent(offset, data) for offset, data in content.items()]
        if stream.entry.kind == "file":
            extents.reverse()
        entry = msgspec.structs.replace(stream.amended() if stream.amended else stream.entry, size=size)
        streams.append(Stream(entry, iter(extents), stream.chunking))
    return streams


def _assembled(extents: Iterable[Extent]) -> tuple[dict[int, bytes], int]:
    """Put later extents over earlier ones, as the contract says, and cut at the end that an empty one gives."""
    content = bytearray()
    given: list[tuple[int, int]] = []
    end: int | None = None
    for offset, data in extents:
        if not len(data):
            end = offset
            continue
        content.extend(bytes(max(offset + len(data) - len(content), 0)))
        content[offset : offset + len(data)] = data
        given.append((offset, offset + len(data)))
    size = len(content) if end is None else end
    pieces = {start: bytes(content[start : min(stop, size)]) for start, stop in given if start < size}
    return pieces, size
