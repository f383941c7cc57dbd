"""Restore one snapshot: read, write beside the target, verify, move into place."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from flybackup.chunking import Extent
from flybackup.clock import Clock
from flybackup.errors import ConfigError, IntegrityError
from flybackup.model import Entry, Facts, OnProgress, Progress, Snapshot, TableFacts
from flybackup.operations.verify import Comparison, RestoreReport, compare, has_checksums
from flybackup.reading import Reader
from flybackup.repository import Repository
from flybackup.sources import InTarget, Restoration, RestoreOptions, Source, Stream


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

    When verification fails the target is left as it was, and the report says where the restored data was kept; unless
    nothing could be restored beside it (`InTarget`).
    Raise `WrongKeyError` with only the write key, `IntegrityError` for damaged objects, `RefusedError` for a target
    that is taken or in use.
    """
    begun = clock.monotonic()
    repository.require_master("restoring")
    facts = _wanted(snapshot.facts, request.options)
    options = replace(request.options, facts=snapshot.facts)
    damaged: list[IntegrityError] = []  # one rotten index file must not stand before data that needs it not
    with Reader(repository, repository.load_index_for_reading(damaged)) as reader:
        streams = _Streams(reader, snapshot, on_progress)
        if request.dry_run:
            compared, notes, changed = _dry_run(streams)
        else:
            with source.restore(streams.read(), options, request.scratch) as restoration:
                compared, notes, changed = _finish(restoration, facts, verify=request.verify)
    return RestoreReport(
        snapshot=snapshot.id,
        target=request.target,
        verified=request.verify and not request.dry_run and compared.ok and compared.looked,
        tables=compared.tables,
        files=compared.files,
        bytes=streams.bytes,
        seconds=round(clock.monotonic() - begun, 3),
        problems=compared.problems,
        target_changed=changed,
        notes=(*notes, *(f"Not needed for this, but damaged: {damage}. Run: flybackup check" for damage in damaged)),
    )


class _Outcome(NamedTuple):
    compared: Comparison
    notes: tuple[str, ...]
    target_changed: bool


def _finish(restoration: Restoration, facts: Facts, *, verify: bool) -> _Outcome:
    if not verify:
        return _Outcome(Comparison((), None, ()), restoration.publish(), target_changed=True)
    compared = compare(facts, restoration.probe(checksums=has_checksums(facts)))
    if compared.ok:
        return _Outcome(compared, restoration.publish(), target_changed=True)
    if isinstance(restoration, InTarget):
        told = f"Nothing could be restored beside the target: {restoration.keep()}."
        return _Outcome(compared, (told,), target_changed=True)
    told = f"The target was not touched. What was restored is kept at {restoration.keep()}."
    return _Outcome(compared, (told,), target_changed=False)


def _dry_run(streams: "_Streams") -> _Outcome:
    names = []
    for entry in streams.entries():
        names.append(entry.path)
        streams.bytes += entry.size
    told = f"Nothing was written. Would restore: {', '.join(names)}."
    return _Outcome(Comparison((), None, ()), (told,), target_changed=False)


def _wanted(facts: Facts, options: RestoreOptions) -> Facts:
    """Return the facts of the tables asked for. Raise `ConfigError` for a table the snapshot does not have."""
    if not options.tables or facts.dump_digest is not None:
        return facts  # of a dump of unknown form single tables cannot be restored: its source says so
    found: dict[str, TableFacts] = {}
    for wanted in options.tables:
        names = [name for name in facts.tables if wanted in (name, name.partition(".")[2])]
        if len(names) != 1:
            known = ", ".join(sorted(facts.tables)) or "none"
            raise ConfigError(f"{len(names)} tables match {wanted!r}", hint=f"The snapshot has: {known}.")
        found[names[0]] = facts.tables[names[0]]
    return replace(facts, tables=found, sequences={})


class _Streams:
    """The entries of a snapshot as streams, counted."""

    def __init__(self, reader: Reader, snapshot: Snapshot, on_progress: OnProgress) -> None:
        self._reader = reader
        self._snapshot = snapshot
        self._on_progress = on_progress
        self.bytes = 0

    def entries(self) -> Iterator[Entry]:
        return (entry for entry, _ in self._reader.entries(self._snapshot))

    def read(self) -> Iterator[Stream]:
        for entry, extents in self._reader.contents(self._reader.entries(self._snapshot)):
            yield Stream(entry, self._counted(extents, entry.size))

    def _counted(self, extents: Iterator[Extent], size: int) -> Iterator[Extent]:
        before = self.bytes
        for extent in extents:
            self.bytes += len(extent.data)
            self._on_progress(Progress("restore", self.bytes, before + size))
            yield extent
