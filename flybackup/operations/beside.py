"""One snapshot on its way back: written beside its target and verified; then published, kept, or let go."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from flybackup.chunking import Extent
from flybackup.errors import ConfigError, FlybackupError
from flybackup.model import Entry, Facts, OnProgress, Progress, Snapshot, TableFacts
from flybackup.operations.verify import Comparison, RestoreReport, compare, has_checksums
from flybackup.reading import Reader
from flybackup.sources import Restoration, RestoreOptions, Source, Stream


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
        self._facts = _chosen(self.snapshot.facts, self._request.options)
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
        streams = _Streams(reader, self.snapshot, on_progress)
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
        self._compared = self._comparison(restoration)
        self._restoration = restoration
        if not self._compared.ok:
            self.notes.append(f"The target was not touched. What was restored is kept at {restoration.keep()}.")

    def _comparison(self, restoration: Restoration) -> Comparison:
        if not self._request.verify:
            return Comparison((), None, ())
        return compare(self._facts, restoration.probe(checksums=has_checksums(self._facts)))

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


def _chosen(facts: Facts, options: RestoreOptions) -> Facts:
    """Return the facts of the tables asked for. Raise `ConfigError` for a table the snapshot does not have."""
    if not options.tables:
        return facts
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
