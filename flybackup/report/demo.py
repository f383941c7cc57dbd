"""How the demo ends."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from flybackup.demo.story import Outcome, Step
from flybackup.report.documents import Document
from flybackup.report.table import Block, Table
from flybackup.report.units import human_bytes, human_seconds


def demo_document(outcome: Outcome) -> Document:
    tables = [
        {"name": name, "expected": rows, "actual": outcome.found.get(name), "ok": outcome.found.get(name) == rows}
        for name, rows in outcome.expected.items()
    ]
    return {"ok": outcome.ok, "tables": tables, "steps": [asdict(step) for step in outcome.steps]}


def demo_text(outcome: Outcome, kept: Path | None, settings: Mapping[str, str], program: str) -> Iterator[Block]:
    """*program* is how to call flybackup from where the user is."""
    yield "Rows in the snapshot, and rows that DuckDB itself counts in what was restored:\n"
    yield _rows(outcome)
    yield ""
    yield Table(("STEP", ">TIME", ">READ", ">STORED"), [_step(step) for step in outcome.steps])
    yield ""
    yield "Every row is back." if outcome.ok else "ROWS ARE MISSING: this is a fault of flybackup. Please report it."
    yield from _next(kept, settings, program)


def _rows(outcome: Outcome) -> Table:
    names = sorted({*outcome.expected, *outcome.found})
    rows = [(name, _number(outcome.expected, name), _number(outcome.found, name)) for name in names]
    total = ("total", f"{sum(outcome.expected.values()):,}", f"{sum(outcome.found.values()):,}")
    marked = frozenset(at for at, name in enumerate(names) if outcome.expected.get(name) != outcome.found.get(name))
    return Table(("TABLE", ">EXPECTED", ">FOUND"), [*rows, total], marked)


def _number(rows: Mapping[str, int], name: str) -> str:
    return f"{rows[name]:,}" if name in rows else "missing"


def _step(step: Step) -> tuple[str, ...]:
    sizes = ("" if size is None else human_bytes(size) for size in (step.bytes_read, step.bytes_stored))
    return (step.name, human_seconds(step.seconds), *sizes)


def _next(kept: Path | None, settings: Mapping[str, str], program: str) -> Iterator[str]:
    if kept is None:
        yield "\nNothing of this was kept. Try next: the same, to look around in; a repository of"
        yield "your own; a snapshot of your database."
        yield f"  {program} demo --keep ./demo"
        yield f"  {program} init -r s3://BUCKET/PREFIX"
        yield f"  {program} backup -r s3://BUCKET/PREFIX FILE"
        return
    yield f"\nAll of it lies in {kept}. Try next:"
    yield from (f"  export {name}={shlex.quote(value)}" for name, value in settings.items())
    yield f"  {program} snapshots"
    yield f"  {program} show tournament"
    yield f"  {program} restore tournament --to {shlex.quote(str(kept / 'copy.duckdb'))}"
