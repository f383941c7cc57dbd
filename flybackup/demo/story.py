"""The story of the demo, told by the real commands: each is run as a user would run it, and shown."""

import json
import os
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flybackup.errors import FlybackupError, SourceError

_APPLICATION = (sys.executable, "-m", "flybackup.demo.application")
_RUINED_BYTES = 1024 * 1024

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    seconds: float
    bytes_read: int | None = None
    bytes_stored: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """`expected` is what the snapshot says, `found` what DuckDB itself counts after the restore."""

    expected: dict[str, int]
    found: dict[str, int]
    steps: list[Step] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return bool(self.expected) and self.expected == self.found


class Story:
    """Everything lies in *directory*. Narration goes to *say*; the commands' own output to the file number *output*."""

    def __init__(self, directory: Path, say: Say, output: int) -> None:
        self._directory = directory
        self._say = say
        self._output = output
        self._steps: list[Step] = []
        self.database = directory / "tournament.duckdb"
        self.settings = {
            "FLYBACKUP_REPOSITORY": (directory / "repository").as_uri(),
            "FLYBACKUP_PASSPHRASE_FILE": str(directory / "passphrase"),
        }

    def tell(self, rows: int) -> Outcome:
        """Go through it all. Raise `FlybackupError` when a step fails."""
        self._set_out()
        self._say(f"An application has a DuckDB database, {self.database}.")
        self._timed("make the database", lambda: self._application("make", str(rows)))
        with self._busy_writer() as writer:
            self._say(f"It is in use: process {writer.pid} inserts, updates and checkpoints all the time.")
            self._say("Make a repository in a directory (in real life: in an S3 bucket):")
            self._timed("init", lambda: self._flybackup("init"))
            self._say("Back up while the application goes on writing:")
            self._back_up("first backup")
            self._say("And again. Only what changed in between is stored:")
            self._back_up("second backup")
        self._destroy(writer.pid)
        return self._bring_back()

    def _set_out(self) -> None:
        passphrase = self._directory / "passphrase"
        descriptor = os.open(passphrase, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(18))

    def _back_up(self, name: str) -> None:
        self._timed(name, lambda: self._flybackup("backup", str(self.database)))
        newest = self._asked("snapshots", "--limit", "1")["snapshots"][0]["summary"]
        last = self._steps.pop()
        self._steps.append(Step(last.name, last.seconds, newest["bytes_read"], newest["bytes_stored"]))

    def _destroy(self, writer: int) -> None:
        self._say(f"Disaster: kill -9 {writer}; the database is overwritten, then deleted.\n")
        with self.database.open("r+b") as file:
            file.write(bytes(_RUINED_BYTES))
        for path in self._directory.glob("tournament.duckdb*"):
            path.unlink()

    def _bring_back(self) -> Outcome:
        self._say("Restore the newest snapshot. Its rows are counted before it is moved into place:")
        self._timed("restore", lambda: self._flybackup("restore", "tournament", "--to", str(self.database)))
        self._say("Compare what is there now with the snapshot once more:")
        self._timed("verify", lambda: self._flybackup("verify", "tournament", str(self.database)))
        tables = self._asked("show", "tournament")["facts"]["tables"]
        expected = {name: int(facts["rows"]) for name, facts in tables.items()}
        return Outcome(expected, json.loads(self._application("count")), self._steps)

    @contextmanager
    def _busy_writer(self) -> Iterator["subprocess.Popen[str]"]:
        command = [*_APPLICATION, "work", str(self.database)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self._environment())
        try:
            assert writer.stdout is not None
            if not writer.stdout.readline():
                raise SourceError("the demo's application does not start")
            yield writer
            if writer.poll() is not None:
                raise SourceError("the demo's application was disturbed: it ended by itself")
        finally:
            writer.kill()
            writer.communicate()

    def _application(self, task: str, *arguments: str) -> str:
        command = [*_APPLICATION, task, str(self.database), *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=self._environment())
        if done.returncode:
            raise SourceError(f"the demo's application failed to {task} its database")
        return done.stdout

    def _flybackup(self, *arguments: str) -> None:
        self._say(f"  $ {shlex.join(['flybackup', *arguments])}")
        done = subprocess.run(
            self._command(*arguments),
            stdout=self._output,
            # A terminal shows progress. Elsewhere the log would stand between the sentences: it is for failures.
            stderr=None if sys.stderr.isatty() else subprocess.PIPE,
            check=False,
            cwd=self._directory,
            env=self._environment(),
        )
        if done.returncode:
            sys.stderr.write((done.stderr or b"").decode(errors="replace"))
            raise FlybackupError(f"flybackup {arguments[0]} ended with exit code {done.returncode}")
        self._say("")

    def _asked(self, *arguments: str) -> Any:
        answer = subprocess.run(
            self._command("--json", *arguments),
            stdout=subprocess.PIPE,
            check=False,
            cwd=self._directory,  # where no flybackup.toml lies
            env=self._environment(),
        )
        if answer.returncode:
            raise FlybackupError(f"flybackup {arguments[0]} --json ended with exit code {answer.returncode}")
        return json.loads(answer.stdout)

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "flybackup", *arguments]

    def _environment(self) -> dict[str, str]:
        """Return this environment without the user's own repository, keys and sources."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLYBACKUP_")}
        return {**kept, **self.settings, "FLYBACKUP_CACHE_DIR": str(self._directory / "cache")}

    def _timed(self, name: str, step: Callable[[], object]) -> None:
        begun = time.monotonic()
        step()
        self._steps.append(Step(name, round(time.monotonic() - begun, 3)))
