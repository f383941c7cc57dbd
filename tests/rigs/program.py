"""The program as a user runs it: a process with arguments and an environment. Every run is searched for secrets."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

PASSPHRASE = "correct horse battery staple"
_LIMIT_SECONDS = 120


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Program:
    """Run in *cwd* with *env* and nothing else of this process's environment but PATH and HOME.

    `secrets` are texts that must not appear in any output; keys that were asked for are added by who got them.
    """

    cwd: Path
    env: Mapping[str, str]
    secrets: set[str] = field(default_factory=lambda: {PASSPHRASE})

    def having(self, **env: str | None) -> "Program":
        """Return this program with other variables; None removes one."""
        merged = {**self.env, **env}
        return replace(self, env={name: value for name, value in merged.items() if value is not None})

    def run(self, *arguments: str | Path, code: int = 0, reveals: bool = False) -> Done:
        """Run to the end and expect an exit code. Only a command that *reveals* keys may print one."""
        ended = subprocess.run(
            self.command(*arguments),
            cwd=self.cwd,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_LIMIT_SECONDS,
        )
        done = Done(ended.returncode, ended.stdout, ended.stderr)
        assert done.code == code, done
        self._assert_discreet(done.stderr if reveals else done.stdout + done.stderr, *arguments)
        return done

    def json(self, *arguments: str | Path, code: int = 0, reveals: bool = False) -> Any:
        """Run with --json and return the one document on stdout."""
        done = self.run("--json", *arguments, code=code, reveals=reveals)
        assert done.stdout.count("\n") == 1, done
        return json.loads(done.stdout)

    def stopped(self, signum: signal.Signals, when: Callable[[], bool], *arguments: str | Path) -> Done:
        """Start, send *signum* as soon as *when* holds, and return how it ended."""
        process = subprocess.Popen(
            self.command(*arguments),
            cwd=self.cwd,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + _LIMIT_SECONDS
        while not when():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signum)
        stdout, stderr = process.communicate(timeout=_LIMIT_SECONDS)
        self._assert_discreet(stdout + stderr, *arguments)
        return Done(process.returncode, stdout, stderr)

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "flybackup", *map(str, arguments)]

    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.cwd), **self.env}

    def _assert_discreet(self, output: str, *arguments: str | Path) -> None:
        for secret in self.secrets:
            assert secret not in output
            assert secret not in map(str, arguments)
