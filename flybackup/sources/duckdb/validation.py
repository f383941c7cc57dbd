"""The validating child, seen from here: started early, asked, watched, and replaced when it crashed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import flybackup
from flybackup.errors import SourceError
from flybackup.model import TableFacts

_MEMORY_BYTES = 512 << 20
_THREADS = 2
_START_SECONDS = 60.0
_SLOWEST_BYTES_PER_SECOND = 10e6
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")


class ValidationError(Exception):
    """DuckDB could not read the database: its own words, or how its process ended."""


class Validator:
    """One child at a time, for as long as the `with` block lasts. *scratch* is where DuckDB may spill."""

    def __init__(self, scratch: Path, *, inherit: tuple[int, ...] = ()) -> None:
        self._scratch = scratch
        self._inherit = inherit
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._end()

    def start(self) -> None:
        """Start the child, so that its imports overlap with the copying. Raise `SourceError` when there can be none."""
        if self._child is not None:
            return
        with (self._scratch / "child.log").open("ab") as log:
            try:
                self._child = subprocess.Popen(
                    [sys.executable, "-P", "-m", "flybackup.sources.duckdb.child"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    pass_fds=self._inherit,
                    env=_environment(),
                    start_new_session=True,
                    umask=0o077,
                )
            except OSError as exc:
                raise SourceError(f"cannot start the validating process: {exc.strerror}") from exc

    def ask(self, job: dict[str, Any], *, size: int, log_bytes: int = 0) -> dict[str, Any]:
        """Return the answer to *job* about *size* bytes. Raise `ValidationError`, also when the child crashed.

        DuckDB replays a log into memory, and up to 1.0 whole bulk inserts lie there, so its size adds to the limit.
        """
        self.start()
        assert self._child is not None
        limits = {
            "memory_bytes": _MEMORY_BYTES + 2 * log_bytes,
            "threads": _THREADS,
            "spill": str(self._scratch / "spill"),
        }
        watchdog = threading.Timer(_START_SECONDS + size / _SLOWEST_BYTES_PER_SECOND, self._child.kill)
        watchdog.start()
        try:
            line = self._exchange(self._child, json.dumps(job | limits))
        finally:
            watchdog.cancel()
        if not line:
            raise ValidationError(self._how_it_ended())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ValidationError(str(answer["error"]))
        return answer

    @staticmethod
    def _exchange(child: subprocess.Popen[str], line: str) -> str:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(line + "\n")
            child.stdin.flush()
        except BrokenPipeError:
            return ""
        return child.stdout.readline()

    def _how_it_ended(self) -> str:
        assert self._child is not None
        code = self._child.wait()
        self._end()
        if code < 0:
            return f"DuckDB's process was ended by {signal.Signals(-code).name} while it read the copy"
        tail = (self._scratch / "child.log").read_text(errors="replace").strip().splitlines()[-1:]
        return f"DuckDB's process ended with code {code}: {''.join(tail)}"

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # what was not sent any more
                    pipe.close()


def _environment() -> dict[str, str]:
    """Pass on nothing that may be a secret. The child finds the same flybackup, wherever it was started."""
    package_root = str(Path(flybackup.__file__).parent.parent)
    search = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {"PYTHONPATH": search}


def table_facts(answer: dict[str, Any]) -> dict[str, TableFacts]:
    return {name: TableFacts(rows=rows, checksum=checksum) for name, (rows, checksum) in answer["tables"].items()}
