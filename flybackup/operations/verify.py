"""Compare what was measured in a snapshot with what is measured in a target."""

from dataclasses import dataclass
from pathlib import Path

from flybackup.clock import Clock
from flybackup.model import Facts, Snapshot, SnapshotId, TableFacts
from flybackup.sources import Source


@dataclass(frozen=True, slots=True)
class TableCheck:
    """`expected` and `actual` are row counts; `actual` None means that the table is not there."""

    name: str
    expected: int
    actual: int | None
    ok: bool


@dataclass(frozen=True, slots=True)
class FileCheck:
    expected: int
    actual: int | None
    ok: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """`problems` says in words what the numbers do not: a checksum that differs, a sequence that went back."""

    tables: tuple[TableCheck, ...]
    files: FileCheck | None
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems and all(t.ok for t in self.tables) and (self.files is None or self.files.ok)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReport:
    """What `restore` and `verify` print. `verified` is False also when nobody looked (`--no-verify`).

    `published`: what was restored is in place. `error` is why it is not, where that is no difference. `notes` are
    sentences for the user: where the old content lies, how to undo, where an unverified copy was left.
    """

    snapshot: SnapshotId
    source: str = ""
    target: str
    verified: bool
    published: bool = False
    tables: tuple[TableCheck, ...]
    files: FileCheck | None
    bytes: int
    seconds: float
    problems: tuple[str, ...] = ()
    error: str = ""
    notes: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """A comparison was made and did not hold; `verified` is False too when nobody looked."""
        compared = [table.ok for table in self.tables] + ([self.files.ok] if self.files else [])
        return bool(self.problems) or not all(compared)


def verify(snapshot: Snapshot, source: Source, *, target: str, scratch: Path, clock: Clock) -> RestoreReport:
    """Probe *source* and compare it with the facts of *snapshot*. Changes neither."""
    begun = clock.monotonic()
    compared = compare(snapshot.facts, source.probe(checksums=has_checksums(snapshot.facts), scratch=scratch))
    return RestoreReport(
        snapshot=snapshot.id,
        source=snapshot.source,
        target=target,
        verified=compared.ok,
        tables=compared.tables,
        files=compared.files,
        bytes=0,
        seconds=round(clock.monotonic() - begun, 3),
        problems=compared.problems,
    )


def has_checksums(facts: Facts) -> bool:
    return any(table.checksum is not None for table in facts.tables.values())


def compare(expected: Facts, actual: Facts) -> Comparison:
    """Pure. Tables that only the target has are no difference: an application may have made them since."""
    tables = tuple(_table(name, facts, actual.tables.get(name)) for name, facts in sorted(expected.tables.items()))
    files = None
    if expected.files is not None:
        files = FileCheck(expected.files, actual.files, expected.files == actual.files)
    problems = [
        *_tree_problems(expected, actual),
        *_checksum_problems(expected, actual),
        *_sequence_problems(expected, actual),
    ]
    return Comparison(tables, files, tuple(problems))


def _table(name: str, expected: TableFacts, actual: TableFacts | None) -> TableCheck:
    rows = None if actual is None else actual.rows
    return TableCheck(name, expected.rows, rows, rows == expected.rows and not _differs(expected, actual))


def _differs(expected: TableFacts, actual: TableFacts | None) -> bool:
    return actual is not None and expected.checksum is not None and expected.checksum != actual.checksum


def _tree_problems(expected: Facts, actual: Facts) -> list[str]:
    if expected.file_bytes is not None and expected.file_bytes != actual.file_bytes:
        return [f"the files have {actual.file_bytes or 0:,} bytes together, expected {expected.file_bytes:,}"]
    if expected.tree_digest is not None and expected.tree_digest != actual.tree_digest:
        return ["a name, permission, link or content of the files differs from the snapshot's"]
    return []


def _checksum_problems(expected: Facts, actual: Facts) -> list[str]:
    names = sorted(name for name, facts in expected.tables.items() if _differs(facts, actual.tables.get(name)))
    return [f"the content of {name} differs from the snapshot's" for name in names]


def _sequence_problems(expected: Facts, actual: Facts) -> list[str]:
    # A sequence is not part of a database snapshot: it may have moved on, but never back.
    problems = []
    for name, least in sorted(expected.sequences.items()):
        value = actual.sequences.get(name)
        if value is None or value < least:
            problems.append(f"the sequence {name} is at {value}, expected at least {least}")
    return problems
