"""Restore one snapshot: read, write beside the target, verify, move into place."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from flybackup.chunking import Extent
from flybackup.clock import Clock
from flybackup.errors import ConfigError, IntegrityError
from flybackup.manifest import ManifestEntry
from flybackup.model import Entry, Facts, OnProgress, Progress, Snapshot
from flybackup.operations.verify import Comparison, RestoreReport, compare, has_checksums
from flybackup.reading import Reader
from flybackup.repository import Repository
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


def restore(
    repository: Repository,
    snapshot: Snapshot,
    source: Source,
    request: RestoreRequest,
    *,
    clock: Clock,
    on_progress: OnProgress,
) -> RestoreReport:
    """Restore *snapshot* into the location *source* and return what was compared.

    When verification fails the target is left as it was, and the report says where the restored data was kept.
    Raise `WrongKeyError` with only the write key, `IntegrityError` for damaged objects, `RefusedError` for a target
    that is taken or in use.
    """
    begun = clock.monotonic()
    repository.require_master("restoring")
    facts = wanted(snapshot.facts, request.options)
    options = replace(request.options, facts=snapshot.facts)
    damaged: list[IntegrityError] = []  # one rotten index file must not stand before data that needs it not
    with Reader(repository, repository.load_index_for_reading(damaged)) as reader:
        streams = _Streams(reader, snapshot, options, on_progress)
        if request.dry_run:
            compared, notes = _dry_run(streams)
        else:
            with source.restore(streams.read(), options, request.scratch) as restoration:
                compared, notes = _finish(restoration, streams.expected(facts), verify=request.verify)
    return RestoreReport(
        snapshot=snapshot.id,
        target=request.target,
        verified=request.verify and not request.dry_run and compared.ok,
        tables=compared.tables,
        files=compared.files,
        bytes=streams.bytes,
        seconds=round(clock.monotonic() - begun, 3),
        problems=compared.problems,
        notes=(*notes, *(f"Not needed for this, but damaged: {damage}. Run: flybackup check" for damage in damaged)),
    )


def _finish(restoration: Restoration, facts: Facts, *, verify: bool) -> tuple[Comparison, tuple[str, ...]]:
    if not verify:
        return Comparison((), None, ()), restoration.publish()
    compared = compare(facts, restoration.probe(checksums=has_checksums(facts)))
    if compared.ok:
        return compared, restoration.publish()
    return compared, (f"The target was not touched. What was restored is kept at {restoration.keep()}.",)


def _dry_run(streams: "_Streams") -> tuple[Comparison, tuple[str, ...]]:
    names = []
    for entry in streams.entries():
        names.append(entry.path)
        streams.bytes += entry.size
    return Comparison((), None, ()), (f"Nothing was written. Would restore: {', '.join(names)}.",)


def wanted(facts: Facts, options: RestoreOptions) -> Facts:
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
        databases = {database_of(name, facts) for name in wanted(facts, options).tables}
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
