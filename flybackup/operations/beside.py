"""One snapshot on its way back: written beside its target and verified; then published, kept, or let go."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from flybackup.chunking import Extent
from flybackup.errors import ConfigError, FlybackupError
from flybackup.manifest import ManifestEntry
from flybackup.model import Entry, Facts, OnProgress, Progress, Snapshot
from flybackup.operations.verify import Comparison, RestoreReport, compare, has_checksums
from flybackup.reading import Reader
from flybackup.sources import Restoration, RestoreOptions, Source, Stream
from flybackup.subtree import Subtree, database_of, is_volume, named_tables
from flybackup.tree import TreeTally


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """`target` is how to call the target in the report; `scratch` an empty private directory the caller removes."""

    target: str
    scratch: Path
    options: RestoreOptions
    verify: bool = True
    dry_run: bool = False


class Wanted(NamedTuple):
    """A snapshot, the place that it is to be restored into, and how."""

    snapshot: Snapshot
    source: Source
    request: RestoreRequest


class Beside:
    """What becomes of one *wanted*. `seconds` is for whoever measures. Raise `ConfigError` for tables it lacks."""

    def __init__(self, wanted: Wanted) -> None:
        self.snapshot, self._source, self._request = wanted
        self.seconds = 0.0
        self.published = False
        self.error: FlybackupError | None = None
        self.notes: list[str] = []
        self._facts = chosen(self.snapshot.facts, self._request.options)
        self._compared: Comparison | None = None
        self._bytes = 0
        self._restoration: Restoration | None = None

    @property
    def name(self) -> str:
        return self.snapshot.source

    @property
    def target(self) -> str:
        return self._request.target

    @property
    def ready(self) -> bool:
        """It may be published: it was restored and, unless nobody asked for that, verified."""
        return self._restoration is not None and self._compared is not None and self._compared.ok

    def stage(self, held: ExitStack, reader: Reader, on_progress: OnProgress) -> None:
        """Restore beside the target and compare; *held* removes what is not published or kept. Raise any
        `FlybackupError`. What differs from the snapshot's facts is kept: it may be all there is."""
        streams = _Streams(reader, self.snapshot, self._request.options, on_progress)
        try:
            if self._request.dry_run:
                self._rehearse(streams)
            else:
                self._restore(held, streams)
        finally:
            self._bytes = streams.bytes

    def _rehearse(self, streams: "_Streams") -> None:
        names = []
        for entry in streams.entries():
            names.append(entry.path)
            streams.bytes += entry.size
        self.notes.append(f"Nothing was written. Would restore: {', '.join(names)}.")

    def _restore(self, held: ExitStack, streams: "_Streams") -> None:
        options = replace(self._request.options, facts=self.snapshot.facts)
        restoration = held.enter_context(self._source.restore(streams.read(), options, self._request.scratch))
        self._compared = self._comparison(restoration, streams.expected(self._facts))
        self._restoration = restoration
        if not self._compared.ok:
            self.notes.append(f"The target was not touched. What was restored is kept at {restoration.keep()}.")

    def _comparison(self, restoration: Restoration, expected: Facts) -> Comparison:
        if not self._request.verify:
            return Comparison((), None, ())
        return compare(expected, restoration.probe(checksums=has_checksums(expected)))

    def publish(self) -> None:
        """Move it into place. Raise `FlybackupError`."""
        assert self._restoration is not None
        self.notes += self._restoration.publish()
        self.published = True

    def keep(self) -> None:
        """Leave it beside its target: the others of its set are in place already."""
        assert self._restoration is not None
        try:
            self.notes.append(f"What was restored for it is complete, and kept at {self._restoration.keep()}.")
        except FlybackupError as exc:
            self.notes.append(f"What was restored for it could not be kept: {exc}")

    def report(self) -> RestoreReport:
        compared = self._compared or Comparison((), None, ())
        return RestoreReport(
            snapshot=self.snapshot.id,
            source=self.name,
            target=self.target,
            verified=self._request.verify and self._compared is not None and compared.ok,
            published=self.published,
            tables=compared.tables,
            files=compared.files,
            bytes=self._bytes,
            seconds=round(self.seconds, 3),
            problems=compared.problems,
            error="" if self.error is None else str(self.error),
            notes=tuple(self.notes),
        )


def chosen(facts: Facts, options: RestoreOptions) -> Facts:
    """Return the facts of the tables asked for. Raise `ConfigError` for a table the snapshot does not have."""
    if options.only and not is_volume(facts):
        raise ConfigError("--only takes entries of a volume, and this is none", hint="--table takes single tables.")
    if not options.tables:
        return facts
    tables = {name: facts.tables[name] for name in named_tables(options.tables, facts)}
    return replace(facts, tables=tables, sequences={}, files=None, file_bytes=None, tree_digest=None)


class _Streams:
    """The entries of a snapshot that are asked for, as streams, counted."""

    def __init__(self, reader: Reader, snapshot: Snapshot, options: RestoreOptions, on_progress: OnProgress) -> None:
        self._reader = reader
        self._snapshot = snapshot
        self._options = options
        self._on_progress = on_progress
        self._tree = TreeTally()
        self._databases: set[str] = set()
        self.bytes = 0

    def entries(self) -> Iterator[Entry]:
        return (entry for entry, _ in self._chosen())

    def read(self) -> Iterator[Stream]:
        for entry, extents in self._reader.contents(self._chosen()):
            yield Stream(entry, self._counted(extents, entry.size))

    def expected(self, facts: Facts) -> Facts:
        """Return what of *facts* has to be in the target, after `read`: of a part of a volume, that part's."""
        if not self._options.only:
            return facts
        tables = {name: table for name, table in facts.tables.items() if database_of(name, facts) in self._databases}
        tree = self._tree.facts()
        return replace(facts, tables=tables, files=tree.files, file_bytes=tree.file_bytes, tree_digest=tree.tree_digest)

    def _chosen(self) -> Iterator[ManifestEntry]:
        options, facts = self._options, self._snapshot.facts
        if options.only:
            return self._counted_part()
        entries = self._reader.entries(self._snapshot)
        if not (options.tables and is_volume(facts)):
            return entries
        databases = {database_of(name, facts) for name in chosen(facts, options).tables}
        return (each for each in entries if (each.entry.part_of or each.entry.path) in databases)

    def _counted_part(self) -> Iterator[ManifestEntry]:
        any_file = False
        for each in Subtree(self._options.only, lambda: self._reader.entries(self._snapshot)).read():
            any_file = any_file or each.entry.kind != "directory"
            self._tree.add(each.entry)
            if each.entry.database is not None:
                self._databases.add(each.entry.path)
            yield each
        if not any_file:
            patterns = ", ".join(self._options.only)
            raise ConfigError(f"no file of the snapshot matches {patterns}", hint="'flybackup show' lists its entries.")

    def _counted(self, extents: Iterator[Extent], size: int) -> Iterator[Extent]:
        before = self.bytes
        for extent in extents:
            self.bytes += len(extent.data)
            self._on_progress(Progress("restore", self.bytes, before + size))
            yield extent
