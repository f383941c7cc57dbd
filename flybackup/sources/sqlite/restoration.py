"""A restored SQLite database beside its target: probed there."""

from pathlib import Path

from flybackup.clock import Clock
from flybackup.errors import SourceError
from flybackup.model import Facts
from flybackup.sources.files.family import Family
from flybackup.sources.files.refusals import source_errors
from flybackup.sources.files.restoration import FileRestoration
from flybackup.sources.sqlite.capture import facts_of
from flybackup.sources.sqlite.header import HEADER_BYTES, parse_header
from flybackup.sources.sqlite.measuring import Measuring

_INTEGRITY = "integrity_check"


class SqliteRestoration(FileRestoration):
    """The database *staged*, one file; *expected* are the snapshot's facts."""

    def __init__(
        self, staged: Family, target: Path, mode: int | None, expected: Facts, clock: Clock, *, replace: bool
    ) -> None:
        super().__init__(staged, target, mode, clock, replace=replace)
        self._expected = expected

    def probe(self, *, checksums: bool) -> Facts:
        """Measure the staged file. Raise `SourceError` when it is damaged and what was captured was sound."""
        with source_errors(f"cannot read {self._staged.path}"), self._staged.path.open("rb") as file:
            header = parse_header(file.read(HEADER_BYTES))
        if header is None:
            raise SourceError("what was restored is not a SQLite database", hint="Try another snapshot.")
        with Measuring(self._staged.path, "the restored database", checksums=checksums) as measuring:
            facts = facts_of(header, measuring.result(), checksums=checksums)
        found = facts.details[_INTEGRITY]
        if self._expected.details.get(_INTEGRITY) == "ok" and found not in ("ok", "not checked"):
            hint = "The snapshot was sound: is the disk of the target? Restore to another one."
            raise SourceError(f"the restored database is damaged: {found}", hint=hint)
        return facts
