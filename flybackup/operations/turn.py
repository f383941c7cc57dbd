"""One source of a backup: opened, read, committed."""

import logging
import os
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from flybackup import __version__
from flybackup.anomalies import anomalies
from flybackup.clock import Clock
from flybackup.errors import FlybackupError, IntegrityError, ObjectNotFoundError
from flybackup.manifest import Kept
from flybackup.model import OnProgress, Snapshot, SnapshotId
from flybackup.operations.tally import Tally
from flybackup.packer import Pace
from flybackup.reading import Reader
from flybackup.repository import Repository
from flybackup.session import Session
from flybackup.sources import Capture, Captured, Source
from flybackup.stores.counting import CountingStore

_log = logging.getLogger(__name__)
_LOGGED = 20
"""Sentences of one snapshot in the log; its head has all."""


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """`name` is the source's name in the repository, `scratch` an empty private directory the caller removes."""

    name: str
    tags: Sequence[str]
    scratch: Path
    pace: Pace = field(default_factory=Pace)


class Run:
    """What the sources *names* that are backed up together have in common."""

    def __init__(self, repository: Repository, clock: Clock, names: tuple[str, ...]) -> None:
        together = len(names) > 1
        self.repository = repository
        self.clock = clock
        self.set_id = os.urandom(8).hex() if together else None
        self.set_sources = names if together else ()
        self._begun = clock.monotonic()

    def seconds(self) -> float:
        """Return how long the run has been going on."""
        return self.clock.monotonic() - self._begun


class Turn:
    """*source* within *run*. *held* closes what is opened: at the end of the turn, or by its owner at the latest."""

    def __init__(self, run: Run, source: Source, request: BackupRequest, held: ExitStack) -> None:
        self.source = source
        self._run = run
        self._request = request
        self._held = held
        self._opened: Capture | FlybackupError | None = None
        self._opening = 0.0, 0.0
        self._reading: tuple[Session, Repository, Snapshot | None] | None = None
        self._previous = self._kept()

    @property
    def name(self) -> str:
        return self._request.name

    def open_early(self) -> None:
        """Fix the view. What goes wrong is told when it is this source's turn."""
        try:
            self._opened = self._open()
        except FlybackupError as exc:
            self._opened = exc

    def take(self, on_progress: OnProgress) -> Snapshot:
        """Read the source and commit its snapshot. Raise `FlybackupError`: then there is none."""
        if isinstance(self._opened, FlybackupError):
            raise self._opened
        begun = self._run.seconds()
        counting = CountingStore(self._run.repository.store)
        counted = self._run.repository.with_store(counting)
        with Session(counted, self._run.clock, self._request.pace) as session:
            tally = Tally(session, on_progress)
            before = _newest(counted, self.name)
            self._reading = session, counted, before
            manifest, captured = self._read(session, tally)
            ended = self._run.seconds()
            session.flush()
            snapshot = Snapshot(
                id=SnapshotId(session.id),
                source=self.name,
                kind=self.source.kind,
                time=self._time(session.started, begun),
                tags=tuple(self._request.tags),
                status="partial" if captured.problems else "complete",
                method=captured.method,
                facts=captured.facts,
                summary=tally.summary(counting.usage().total + 1, self._spent(begun)),
                warnings=(*session.warnings, *captured.warnings),
                problems=captured.problems,
                anomalies=self._anomalies(before, captured, tally.size_bytes),
                set_id=self._run.set_id,
                set_sources=self._run.set_sources,
                viewed=self._viewed(ended),
                tool=f"flybackup {__version__}",
                session=session.id,
                manifest=manifest,
            )
            session.commit(snapshot)
        _log_marks(snapshot)
        return snapshot

    def _open(self) -> Capture:
        begun = self._run.seconds()
        capture = self._held.enter_context(self.source.capture(self._request.scratch, self._previous))
        self._opening = begun, self._run.seconds()
        return capture

    def _read(self, session: Session, tally: "Tally") -> tuple[tuple[tuple[bytes, int], ...], Captured]:
        """Store everything, then let go of the source: its locks must not last until the commit."""
        try:
            with closing(self._previous), self._held:
                capture = self._open() if self._opened is None else self._opened
                assert not isinstance(capture, FlybackupError)
                manifest = session.store_manifest(tally.records(capture.streams()))
                return manifest, capture.finish()
        finally:
            self._opened = self._reading = None  # the run goes on, and must not hold what they hold

    def _kept(self) -> Generator[Kept, None, None]:
        """Yield what the snapshot before holds, as far as it can be read: the rest is then captured anew."""
        assert self._reading is not None
        session, repository, before = self._reading
        if before is None or before.kind != self.source.kind:
            return
        with Reader(repository, session.index) as reader:
            try:
                yield from reader.kept(before)
            except IntegrityError as exc:
                _log.warning("backup.previous_damaged", extra={"subject": before.source, "problem": str(exc)})

    def _viewed(self, ended: float) -> tuple[float, float]:
        opened, fixed = self._opening
        return round(opened, 3), round(fixed if self.source.fixes_view else ended, 3)

    def _time(self, started: datetime, begun: float) -> datetime:
        """Return when the capture began, by the store's clock: a view may have been fixed long before its session."""
        return started - timedelta(seconds=max(begun - self._opening[0], 0))

    def _spent(self, begun: float) -> float:
        opened, fixed = self._opening
        return self._run.seconds() - begun + (fixed - opened if self.source.fixes_view else 0)

    def _anomalies(self, before: Snapshot | None, captured: Captured, size_bytes: int) -> tuple[str, ...]:
        """Another kind's tables have other names: after a move, only what is empty can be seen."""
        comparable = before is not None and before.kind == self.source.kind
        return anomalies(before.facts if before and comparable else None, captured.facts, size_bytes=size_bytes)


def _newest(repository: Repository, source: str) -> Snapshot | None:
    """Return the snapshot before this one, the newest that opens: a damaged head neither stops a backup nor hides what
    was lost."""
    for key in sorted(repository.snapshot_keys(source), reverse=True):
        try:
            return repository.read_snapshot(key)
        except (IntegrityError, ObjectNotFoundError) as exc:  # it may have been forgotten meanwhile
            _log.warning("backup.previous_damaged", extra={"subject": source, "problem": str(exc)})
    return None


def _log_marks(snapshot: Snapshot) -> None:
    for event, sentences in (("backup.partial", snapshot.problems), ("backup.anomaly", snapshot.anomalies)):
        if sentences:
            said = {"subject": snapshot.source, "snapshot": snapshot.id, "count": len(sentences)}
            _log.warning(event, extra={**said, "what": list(sentences[:_LOGGED])})
