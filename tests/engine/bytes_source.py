"""A source whose entries are byte strings in memory; it implements the protocol, so the engine cannot tell."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from flybackup.chunking import Extent, Fixed
from flybackup.errors import SourceError
from flybackup.manifest import Kept
from flybackup.model import Entry, Facts, TableFacts
from flybackup.sources import Captured, RestoreOptions, Stream

EXTENT_BYTES = 64 * 1024


@dataclass
class BytesSource:
    """`fails_at` is where a capture or restore gives up; `seen` notes what was done, by `name`."""

    content: dict[str, bytes] = field(default_factory=dict)
    chunking: Fixed | None = None
    kind: str = "bytes"
    fixes_view: bool = False
    name: str = ""
    fails_at: Literal["open", "stream", "finish", "close", "restore", "probe", "publish", "keep"] | None = None
    problems: tuple[str, ...] = ()
    lost_rows: int = 0
    seen: list[str] = field(default_factory=list)

    def step(self, what: str) -> None:
        self.seen.append(f"{what} {self.name}".strip())
        if self.fails_at == what:
            raise SourceError(f"cannot {what}")

    def kept(self, previous: Iterable[Kept]) -> None:
        """Look at what the snapshot before holds; this one reads everything anew."""

    def facts(self) -> Facts:
        return Facts(tables={f"main.{name}": TableFacts(rows=len(data)) for name, data in self.content.items()})

    @contextmanager
    def capture(self, scratch: Path, previous: Iterable[Kept] = ()) -> Iterator["_Capture"]:
        self.step("open")
        # What is captured is what was there when the view was taken.
        view = dict(self.content) if self.fixes_view else self.content
        try:
            yield _Capture(self, view, previous)
        finally:
            self.step("close")

    @contextmanager
    def restore(self, streams: Iterator[Stream], options: RestoreOptions, scratch: Path) -> Iterator["_Restoration"]:
        self.step("restore")
        beside = {}
        for entry, extents, *_ in streams:
            data = bytearray(entry.size)
            for offset, piece in extents:
                data[offset : offset + len(piece)] = piece
            beside[entry.path] = bytes(data)
        try:
            yield _Restoration(self, beside)
        finally:
            self.step("leave")

    def probe(self, *, checksums: bool, scratch: Path) -> Facts:
        return self.facts()


@dataclass
class _Capture:
    source: BytesSource
    view: dict[str, bytes]
    previous: Iterable[Kept]

    def streams(self) -> Iterator[Stream]:
        self.source.kept(self.previous)
        for name, data in self.view.items():
            yield Stream(Entry(path=name, kind="file"), self._extents(data), self.source.chunking)
        self.source.step("stream")

    def _extents(self, data: bytes) -> Iterator[Extent]:
        step = self.source.chunking.block if self.source.chunking else EXTENT_BYTES
        for offset in range(0, len(data), step):
            yield Extent(offset, data[offset : offset + step])

    def finish(self) -> Captured:
        self.source.step("finish")
        return Captured(BytesSource(self.view).facts(), "in memory", problems=self.source.problems)


@dataclass
class _Restoration:
    target: BytesSource
    beside: dict[str, bytes]

    def probe(self, *, checksums: bool) -> Facts:
        self.target.step("probe")
        return BytesSource({name: data[self.target.lost_rows :] for name, data in self.beside.items()}).facts()

    def publish(self) -> tuple[str, ...]:
        self.target.step("publish")
        old, self.target.content = self.target.content, self.beside
        return (f"To undo: {self.target.name}",) if old else ()

    def keep(self) -> str:
        self.target.step("keep")
        return f"memory of {self.target.name}"
