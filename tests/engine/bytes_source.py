"""A source whose entries are byte strings in memory; it implements the protocol, so the engine cannot tell."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flybackup.chunking import Extent, Fixed
from flybackup.manifest import Kept
from flybackup.model import Entry, Facts, TableFacts
from flybackup.sources import Captured, RestoreOptions, Stream

EXTENT_BYTES = 64 * 1024


@dataclass
class BytesSource:
    content: dict[str, bytes] = field(default_factory=dict)
    chunking: Fixed | None = None
    kind: str = "bytes"

    def facts(self) -> Facts:
        return Facts(tables={f"main.{name}": TableFacts(rows=len(data)) for name, data in self.content.items()})

    @contextmanager
    def capture(self, scratch: Path, previous: Iterable[Kept] = ()) -> Iterator["_Capture"]:
        yield _Capture(self)

    @contextmanager
    def restore(self, streams: Iterator[Stream], options: RestoreOptions, scratch: Path) -> Iterator["_Restoration"]:
        beside = {}
        for entry, extents, *_ in streams:
            data = bytearray(entry.size)
            for offset, piece in extents:
                data[offset : offset + len(piece)] = piece
            beside[entry.path] = bytes(data)
        yield _Restoration(self, beside)

    def probe(self, *, checksums: bool, scratch: Path) -> Facts:
        return self.facts()


@dataclass
class _Capture:
    source: BytesSource

    def streams(self) -> Iterator[Stream]:
        for name, data in self.source.content.items():
            yield Stream(Entry(path=name, kind="file"), self._extents(data), self.source.chunking)

    def _extents(self, data: bytes) -> Iterator[Extent]:
        step = self.source.chunking.block if self.source.chunking else EXTENT_BYTES
        for offset in range(0, len(data), step):
            yield Extent(offset, data[offset : offset + step])

    def finish(self) -> Captured:
        return Captured(self.source.facts(), "in memory")


@dataclass
class _Restoration:
    target: BytesSource
    beside: dict[str, bytes]

    def probe(self, *, checksums: bool) -> Facts:
        return BytesSource(self.beside).facts()

    def publish(self) -> tuple[str, ...]:
        self.target.content = self.beside
        return ()

    def keep(self) -> str:
        return "memory"
