"""The volume source: a directory tree, with the databases in it."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path

from flybackup.clock import Clock, SystemClock
from flybackup.errors import SourceError
from flybackup.manifest import Kept
from flybackup.model import Facts
from flybackup.sources import Capture, Restoration, RestoreOptions, Stream
from flybackup.sources.volume import placing
from flybackup.sources.volume.attributes import Shortfalls
from flybackup.sources.volume.capture import VolumeCapture
from flybackup.sources.volume.databases import DatabaseKind, restore_tables
from flybackup.sources.volume.entries import YOUNG_NS
from flybackup.sources.volume.restoration import VolumeRestoration, write_tree
from flybackup.sources.volume.walking import Walk
from flybackup.subtree import database_of, named_tables

Kinds = Callable[[bool], Sequence[DatabaseKind]]
"""Gives the kinds of databases that are recognised; told whether their contents are to be digested."""


class VolumeSource:
    """The tree at *path*, walked as *walk* says. `checksums` also digests every table of the databases in it."""

    kind = "volume"
    fixes_view = False

    def __init__(
        self, path: Path, kinds: Kinds, walk: Walk | None = None, *, checksums: bool = False, clock: Clock | None = None
    ) -> None:
        self.path = path
        self._kinds = kinds
        self._walk = walk or Walk()
        self._checksums = checksums
        self._clock = clock or SystemClock()

    @contextmanager
    def capture(self, scratch: Path, previous: Iterable[Kept] = ()) -> Iterator[Capture]:
        """See `Source.capture`. A tree has no moment of its own: each file is as it was when it was read."""
        with self._opened(self.path, self._walk, self._checksums, scratch, previous) as capture:
            yield capture

    def refuse(self, options: RestoreOptions) -> None:
        """See `Refusing`."""
        placing.refuse_taken(placing.target_at(self.path), options)

    @contextmanager
    def restore(self, streams: Iterator[Stream], options: RestoreOptions, scratch: Path) -> Iterator[Restoration]:
        """See `Source.restore`. The target may be a mount point (see `placing`)."""
        target = placing.target_at(self.path)
        placing.refuse_taken(target, options)
        with placing.staged(target) as (tree, fd):
            shortfalls = self._tables(streams, tree, options, scratch) if options.tables else write_tree(streams, fd)

            def measure(path: Path, checksums: bool) -> Facts:
                return self._measured(path, checksums, scratch)

            yield VolumeRestoration(tree, target, shortfalls, measure, self._clock.now(), replace=options.replace)

    def _tables(self, streams: Iterator[Stream], tree: Path, options: RestoreOptions, scratch: Path) -> Shortfalls:
        """Make files of single tables below *tree*, each by its database's own kind."""
        options = replace(options, tables=named_tables(options.tables, options.facts))
        databases = {database_of(table, options.facts) for table in options.tables}
        kinds = {kind.kind: kind for kind in self._kinds(False)}
        for path, group in groupby(streams, key=lambda stream: stream.entry.part_of or stream.entry.path):
            if path in databases:
                first, parts = _first_of(group)
                kind = kinds[first.entry.database or ""]
                restore_tables(kind, path, parts, tree=tree, options=options, scratch=scratch)
        return Shortfalls()

    def probe(self, *, checksums: bool, scratch: Path) -> Facts:
        """Measure the whole tree, with nothing left out, by capturing it into nothing."""
        return self._measured(self.path, checksums, scratch)

    def _measured(self, path: Path, checksums: bool, scratch: Path) -> Facts:
        with self._opened(path, Walk(everything=True), checksums, scratch, ()) as capture:
            for stream in capture.streams():
                for _ in stream.extents:
                    pass
                if stream.amended is not None:
                    stream.amended()
            return capture.finish().facts

    @contextmanager
    def _opened(
        self, path: Path, walk: Walk, checksums: bool, scratch: Path, previous: Iterable[Kept]
    ) -> Iterator[VolumeCapture]:
        old_ns = int(self._clock.now().timestamp() * 1_000_000_000) - YOUNG_NS
        try:
            root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            hint = "Check the path and its rights; is the volume mounted?"
            raise SourceError(f"cannot open the directory {path}: {exc.strerror}", hint=hint) from exc
        try:
            kinds = self._kinds(checksums)
            yield VolumeCapture(root, path, scratch, walk=walk, kinds=kinds, previous=previous, old_ns=old_ns)
        finally:
            os.close(root)


def _first_of(streams: Iterator[Stream]) -> tuple[Stream, Iterator[Stream]]:
    first = next(streams)
    return first, chain([first], streams)
