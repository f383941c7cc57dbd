"""The databases in a volume: recognised by how they begin, captured by the source of their kind, counted by it.

One that its source cannot capture is copied as it lies there, log and all, and told as a problem: something is better
than nothing, and nobody may take it for a consistent copy.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from flybackup.chunking import Extent, Fixed
from flybackup.errors import SourceError
from flybackup.model import Entry, Facts
from flybackup.sources import Captured, RestoreOptions, Source, Stream
from flybackup.sources.volume.content import Content
from flybackup.sources.volume.entries import entry_of, xattrs_of
from flybackup.sources.volume.paths import checked, raw, shown
from flybackup.sources.volume.walking import Found

HEAD_BYTES = 16


@dataclass(frozen=True, slots=True)
class DatabaseKind:
    """What a volume has to know of one kind of database in a file.

    `recognises` is asked with the first `HEAD_BYTES` of a file. `companions` are the suffixes of files beside it that
    belong to it. `open` gives the source at a path.
    """

    kind: str
    recognises: Callable[[bytes], bool]
    companions: tuple[str, ...]
    open: Callable[[Path], Source]


def recognise(kinds: Iterable[DatabaseKind], head: bytes) -> DatabaseKind | None:
    return next((kind for kind in kinds if kind.recognises(head)), None)


def merged(facts: Facts, path: bytes, found: Facts) -> Facts:
    """Return the *facts* of a volume with those that were *found* of the database at *path*."""
    tables = {f"{shown(path)}:{name}": table for name, table in found.tables.items()}
    engines = dict.fromkeys([*filter(None, facts.engine.split(", ")), found.engine])
    return replace(facts, tables=facts.tables | tables, engine=", ".join(engines))


class DatabaseCapture:
    """One database: `found` in the volume at *root*, with *entry* as of any file.

    `problem` and `captured` tell afterwards how it went.
    """

    def __init__(self, kind: DatabaseKind, found: Found, entry: Entry, root: Path, scratch: Path) -> None:
        self._kind = kind
        self._found = found
        # It has no identity: databases are captured anew every time, because their logs may have changed alone.
        self.entry = msgspec.structs.replace(entry, database=kind.kind, inode=None, ctime_ns=None, digest=None)
        self._source = kind.open(root / os.fsdecode(found.path))
        self._scratch = scratch
        self._given = False
        self.problem = ""
        self.captured: Captured | None = None

    def companions(self) -> set[bytes]:
        return {self._found.path + suffix.encode() for suffix in self._kind.companions}

    def streams(self) -> Iterator[Stream]:
        """Yield the database and its companions. Raise nothing of its kind: that becomes `problem`."""
        try:
            with private(self._scratch) as directory, self._source.capture(directory) as capture:
                for stream in capture.streams():
                    yield self._part(stream) if self._given else self._main(stream)
                self.captured = capture.finish()
        except SourceError as exc:
            self._note(exc)
        if self.problem:
            yield from self._copied()

    def _note(self, exc: SourceError) -> None:
        self.captured = None
        if not self.problem:
            self.problem = f"copied as it lies, which may be no consistent state: {exc}"

    def _main(self, stream: Stream) -> Stream:
        self._given = True
        return Stream(self.entry, self._guarded(stream), stream.chunking, amended=self._main_entry)

    def _main_entry(self) -> Entry:
        return msgspec.structs.replace(self.entry, torn=bool(self.problem))

    def _guarded(self, stream: Stream) -> Iterator[Extent]:
        try:
            yield from stream.extents
        except SourceError as exc:
            self._note(exc)
            yield Extent(0, b"")
            with Content(self._found.name, self._found.parent) as content:
                yield from _in_blocks(content.fd, stream.chunking)

    def _part(self, stream: Stream) -> Stream:
        """Return a companion's stream under its path in the volume: its name begins with the database's."""
        suffix = os.fsencode(stream.entry.path)[len(self._found.name.encode(errors="surrogateescape")) :]
        path = self._found.path + suffix
        return stream._replace(
            entry=msgspec.structs.replace(
                stream.entry,
                path=shown(path),
                raw_path=raw(path),
                part_of=self.entry.path,
                uid=self.entry.uid,
                gid=self.entry.gid,
            )
        )

    def _copied(self) -> Iterator[Stream]:
        """Yield what was not given yet of the database and its companions, byte for byte."""
        for suffix in () if self._given else ("",):
            yield from self._copy(suffix, database=self._kind.kind, torn=True)
        for suffix in self._kind.companions:
            yield from self._copy(suffix, part_of=self.entry.path, torn=True)

    def _copy(self, suffix: str, **more: Any) -> Iterator[Stream]:
        name = self._found.name + suffix
        try:
            with Content(name, self._found.parent) as content:
                found = Found(self._found.path + suffix.encode(), name, self._found.parent, content.status)
                entry = entry_of(found, content.status, old_ns=0, xattrs=xattrs_of(content.fd), **more)
                yield Stream(entry, _in_blocks(content.fd, None))
        except OSError:  # it is not there
            return


def _in_blocks(fd: int, chunking: Fixed | None) -> Iterator[Extent]:
    """Yield a file's bytes in pieces that begin and end where *chunking* cuts."""
    at, size = 0, chunking.head if chunking else 1 << 20
    while data := os.pread(fd, size, at):
        yield Extent(at, data)
        at, size = at + len(data), chunking.block if chunking else size
    yield Extent(at, b"")


def restore_tables(
    kind: DatabaseKind, path: str, streams: Iterator[Stream], *, tree: Path, options: RestoreOptions, scratch: Path
) -> None:
    """Make the database at *path* of a volume anew below *tree*, with *tables* of it (keys of the volume's facts)."""
    prefix = f"{path}:"
    facts = {name.removeprefix(prefix): each for name, each in options.facts.tables.items() if name.startswith(prefix)}
    tables = [name.removeprefix(prefix) for name in options.tables if name.startswith(prefix)]
    target = tree.joinpath(*map(os.fsdecode, checked(path.encode())))
    target.parent.mkdir(parents=True, exist_ok=True)
    inner = RestoreOptions(tables=tables, facts=replace(options.facts, tables=facts))
    with private(scratch) as directory, kind.open(target).restore(_named(streams), inner, directory) as restoration:
        restoration.publish()


def _named(streams: Iterator[Stream]) -> Iterator[Stream]:
    """Give entries the names they have in a snapshot of the database alone."""
    for stream in streams:
        path = stream.entry.path.rpartition("/")[2]
        yield stream._replace(entry=msgspec.structs.replace(stream.entry, path=path, raw_path=None))


@contextmanager
def private(scratch: Path) -> Iterator[Path]:
    """Make a private directory for one database, and remove it."""
    directory = Path(tempfile.mkdtemp(dir=scratch))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
