"""`python -m soak.sqlite --seconds 60`: captures of a SQLite database under writers that are killed at random.

Half of the time with a write-ahead log, half with a rollback journal; every copy is checked, plain ones as well.
"""

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

from flybackup.errors import FlybackupError
from flybackup.sources.files.family import Family
from flybackup.sources.files.staging import write_streams
from flybackup.sources.sqlite.connecting import SUFFIXES
from flybackup.sources.sqlite.source import SqliteSource
from soak.rig import Tally
from soak.sqlite_ledger import acknowledged, wrong_with

_TESTS = Path(__file__).resolve().parent.parent


class Rig:
    """The application in *directory*, with the journal mode *mode*."""

    def __init__(self, directory: Path, mode: str, seed: int) -> None:
        self.mode = mode
        self.database = directory / "application" / "ledger.db"
        self.database.parent.mkdir()
        self.ack = directory / "ack"
        self.work = directory
        self.random = random.Random(seed)
        self.kills = 0
        self.longest_seconds = 0.0
        self._writer: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def is_alive(self) -> bool:
        return self._writer is not None

    def start(self) -> None:
        seed = str(self.random.randrange(1 << 30))
        line = [sys.executable, "-P", "-m", "soak.sqlite_ledger", str(self.database), str(self.ack), seed, self.mode]
        environment = dict(os.environ, PYTHONPATH=str(_TESTS))
        self._writer = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment)
        assert self._writer.stdout is not None
        assert self._writer.stdout.readline() == "ready\n"

    def kill(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.kill()
            writer.communicate()
            self.longest_seconds = max(self.longest_seconds, acknowledged(self.ack)[1])
            self.kills += 1

    def disturb(self) -> None:
        """Sometimes kill the application, and leave it dead now and then."""
        if self._writer is None or self.random.random() < 0.2:
            self.kill()
            if self.random.random() < 0.6:
                self.start()

    def state(self) -> dict[str, tuple[bytes, int]]:
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in self.database.parent.iterdir()}


def capture_once(rig: Rig, tally: Tally) -> None:
    """Capture into a file and check that. Of a dead application's files none may have changed."""
    acked, _ = acknowledged(rig.ack)
    before = None if rig.is_alive else rig.state()
    began = time.monotonic()
    tally.tried += 1
    with tempfile.TemporaryDirectory(dir=rig.work) as directory:
        copy, scratch = Path(directory) / "copy.db", Path(directory) / "scratch"
        scratch.mkdir()
        try:
            with SqliteSource(rig.database, bound_seconds=60).capture(scratch) as capture:
                write_streams(capture.streams(), Family(copy, SUFFIXES))
                captured = capture.finish()
        except FlybackupError as exc:
            tally.gave_up.append(str(exc))
            return
        tally.seconds.append(time.monotonic() - began)
        method = re.sub(r"\d+ steps?", "steps", captured.method)
        tally.methods[method] = tally.methods.get(method, 0) + 1
        tally.accepted += 1
        claimed = {name: table.rows for name, table in captured.facts.tables.items()}
        wrong = wrong_with(copy, acked, claimed)
        if before is not None and before != rig.state():
            wrong = wrong or "a capture changed the files of an application that was not running"
        if wrong or captured.problems:
            tally.wrong.append(wrong or str(captured.problems))


def plain_copy_once(rig: Rig, tally: Tally) -> None:
    """Do what `cp` does: the database, then its logs, a little slower than memory."""
    acked, _ = acknowledged(rig.ack)
    tally.tried += 1
    with tempfile.TemporaryDirectory(dir=rig.work) as directory:
        copy = Path(directory) / "copy.db"
        for suffix in ("", "-journal", "-wal"):
            _copy_slowly(Path(f"{rig.database}{suffix}"), Path(f"{copy}{suffix}"))
        tally.accepted += 1
        if (wrong := wrong_with(copy, acked, None)) is not None:
            tally.wrong.append(wrong)


def _copy_slowly(source: Path, target: Path) -> None:
    try:
        data = source.open("rb")
    except FileNotFoundError:
        return
    with data, target.open("wb") as out:
        while piece := data.read(1 << 18):
            out.write(piece)
            time.sleep(0.002)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for each of the two journal modes")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    bad = False
    for mode in ("WAL", "DELETE"):
        with tempfile.TemporaryDirectory() as directory:
            ours, plain = Tally(), Tally()
            with Rig(Path(directory), mode, options.seed) as rig:
                until = time.monotonic() + options.seconds
                while time.monotonic() < until:
                    rig.disturb()
                    capture_once(rig, ours)
                    if ours.tried % 10 == 0:
                        plain_copy_once(rig, plain)
            print(f"{mode}, seed {options.seed}, kill -9: {rig.kills}, longest commit {rig.longest_seconds:.2f} s")
            print(f"  flybackup: {ours}\n  cp:        {plain}")
            for reason in (*ours.wrong, *ours.gave_up):
                print("  !", reason)
            bad = bad or bool(ours.wrong)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
