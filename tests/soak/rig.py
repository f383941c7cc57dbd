"""Runs the ledger application, copies its database in several ways while it works, and has every copy checked."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from flybackup.chunking import Extent
from flybackup.clock import SystemClock
from flybackup.errors import FlybackupError
from flybackup.model import Facts, Progress
from flybackup.operations.backup import BackupRequest, backup
from flybackup.operations.restore import RestoreRequest, restore
from flybackup.packer import Pace
from flybackup.repository import Repository
from flybackup.sources import RestoreOptions
from flybackup.sources.duckdb.source import DuckdbSource
from flybackup.sources.duckdb.wal import WAL_SUFFIXES
from flybackup.sources.files.family import Family
from flybackup.sources.files.staging import write_streams
from soak.ledger import acknowledged

_TESTS = Path(__file__).resolve().parent.parent


@dataclass
class Tally:
    """What happened to the copies of one method."""

    tried: int = 0
    accepted: int = 0
    wrong: list[str] = field(default_factory=list)
    gave_up: list[str] = field(default_factory=list)
    methods: dict[str, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        times = sorted(self.seconds) or [0.0]
        return (
            f"accepted {self.accepted}/{self.tried}, wrong {len(self.wrong)}, gave up {len(self.gave_up)}, "
            f"p50 {times[len(times) // 2]:.3f} s, max {times[-1]:.3f} s, {self.methods}"
        )


class Rig:
    """The application in *directory*, run by the DuckDB that *wheel* holds (None: the installed one)."""

    def __init__(self, directory: Path, seed: int, *, wheel: Path | None = None) -> None:
        self.directory = directory
        self.database = directory / "ledger.duckdb"
        self.ack = directory / "ack"
        self.random = random.Random(seed)
        self.kills = 0
        self._environment = dict(os.environ, PYTHONPATH=os.pathsep.join(str(p) for p in (wheel, _TESTS) if p))
        self._writer: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        if self._writer is None:
            seed = str(self.random.randrange(1 << 30))
            self._writer = self._run("write", self.database, str(self.ack), seed)
            assert self._writer.stdout is not None
            assert self._writer.stdout.readline() == "ready\n"

    def kill(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
            self.kills += 1

    def disturb(self) -> None:
        """Sometimes kill the application, and leave it dead now and then, so that a crash image is copied."""
        if self._writer is None or self.random.random() < 0.12:
            self.kill()
            if self.random.random() < 0.7:
                self.start()

    def _run(self, command: str, database: Path, *arguments: str) -> subprocess.Popen[str]:
        # -P: this directory holds a duckdb.py of its own.
        line = [sys.executable, "-P", "-m", "soak.ledger", command, str(database), *arguments]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self._environment)

    def check(self, copy: Path, acked: list[int], facts: Facts | None, tally: Tally, *, quick: bool) -> None:
        """Note in *tally* whether *copy* is right: what DuckDB finds in it, and the facts that the capture claimed."""
        out, err = self._run("glance" if quick else "check", copy, *map(str, acked)).communicate()
        verdict: dict[str, Any] = json.loads(out) if out else {"wrong": f"DuckDB crashed: {err[-300:]}", "tables": {}}
        wrong = verdict["wrong"]
        if wrong is None and facts is not None:
            claimed = {name: table.rows for name, table in facts.tables.items()}
            wrong = None if claimed == verdict["tables"] else f"facts {claimed}, not {verdict['tables']}"
        tally.accepted += 1
        if wrong is not None:
            tally.wrong.append(wrong)


def capture_once(
    rig: Rig, tally: Tally, *, checksums: bool = False, pause_seconds: float = 0.0, quick: bool = False
) -> None:
    """Capture the live database into a file and have that checked. *pause_seconds* slows every extent's consumer."""
    acked = acknowledged(str(rig.ack))
    began = time.monotonic()
    tally.tried += 1
    with tempfile.TemporaryDirectory(dir=rig.directory) as directory:
        copy, scratch = Path(directory) / "copy.duckdb", Path(directory) / "scratch"
        scratch.mkdir()
        try:
            with DuckdbSource(rig.database, checksums=checksums, bound_seconds=60).capture(scratch) as capture:
                streams = (
                    stream._replace(extents=_slowly(stream.extents, pause_seconds)) for stream in capture.streams()
                )
                write_streams(streams, Family(copy, WAL_SUFFIXES))
                captured = capture.finish()
        except FlybackupError as exc:
            tally.gave_up.append(str(exc))
            return
        tally.seconds.append(time.monotonic() - began)
        method = captured.method
        tally.methods[method] = tally.methods.get(method, 0) + 1
        rig.check(copy, acked, captured.facts, tally, quick=quick)


def _slowly(extents: Iterator[Extent], pause_seconds: float) -> Iterator[Extent]:
    for extent in extents:
        yield extent
        if pause_seconds:
            time.sleep(pause_seconds)


def round_trip_once(rig: Rig, repository: Repository, tally: Tally) -> None:
    """Back the live database up into *repository*, restore it, and have that checked."""
    acked = acknowledged(str(rig.ack))
    began = time.monotonic()
    tally.tried += 1
    with tempfile.TemporaryDirectory(dir=rig.directory) as directory:
        copy = Path(directory) / "copy.duckdb"
        out, back = Path(directory) / "out", Path(directory) / "back"
        out.mkdir()
        back.mkdir()
        pace = Pace(pack_bytes=1 << 20, batch_bytes=1 << 18, index_every_bytes=1 << 22)
        request = BackupRequest("ledger", (), out, pace)
        snapshot = backup(repository, DuckdbSource(rig.database), request, clock=SystemClock(), on_progress=_ignore)
        report = restore(
            repository,
            snapshot,
            DuckdbSource(copy),
            RestoreRequest(str(copy), back, RestoreOptions()),
            clock=SystemClock(),
            on_progress=_ignore,
        )
        assert report.verified, report
        tally.seconds.append(time.monotonic() - began)
        tally.methods[snapshot.method] = tally.methods.get(snapshot.method, 0) + 1
        rig.check(copy, acked, snapshot.facts, tally, quick=True)


def _ignore(_: Progress) -> None:
    """Nobody watches."""


def plain_copy_once(rig: Rig, tally: Tally, *, pause_seconds: float = 0.002) -> None:
    """Do what `cp` does, on a disk slow enough to be seen: the database, then its log."""
    acked = acknowledged(str(rig.ack))
    tally.tried += 1
    with tempfile.TemporaryDirectory(dir=rig.directory) as directory:
        copy = Path(directory) / "copy.duckdb"
        for suffix in ("", ".wal", ".wal.checkpoint"):
            _copy_slowly(Path(f"{rig.database}{suffix}"), Path(f"{copy}{suffix}"), pause_seconds)
        rig.check(copy, acked, None, tally, quick=True)


def _copy_slowly(source: Path, target: Path, pause_seconds: float) -> None:
    try:
        data = source.open("rb")
    except FileNotFoundError:
        return
    with data, target.open("wb") as out:
        while piece := data.read(1 << 18):
            out.write(piece)
            time.sleep(pause_seconds)
