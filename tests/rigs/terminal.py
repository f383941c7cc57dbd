"""The program as a person runs it: on a pseudo-terminal."""

import os
import re
import subprocess
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rigs.program import Program

COLUMNS = 80
_LIMIT_SECONDS = 60
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A program on a pseudo-terminal, 80 columns wide. `shown` is all that was written so far."""

    def __init__(self, program: Program, *arguments: str | Path) -> None:
        self._fd, inner = os.openpty()
        termios.tcsetwinsize(inner, (24, COLUMNS))
        self._process = subprocess.Popen(
            program.command(*arguments),
            cwd=program.cwd,
            env={**program.environment(), "TERM": "xterm-256color"},
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
        )
        os.close(inner)
        os.set_blocking(self._fd, False)
        self.shown = ""

    def answer(self, question: str, text: str) -> None:
        """Wait until *question* has been asked, and type *text*."""
        asked = self.shown.count(question)
        self._read_until(lambda: self.shown.count(question) > asked)
        os.write(self._fd, f"{text}\n".encode())

    def ended(self) -> int:
        self._read_until(lambda: self._process.poll() is not None)
        self._read()
        return self._process.returncode

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)

    def lines(self) -> list[str]:
        return _CONTROL.sub("", self.shown).replace("\r", "\n").splitlines()

    def _read_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _LIMIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.shown
            self._read()
            time.sleep(0.005)

    def _read(self) -> None:
        with suppress(BlockingIOError, OSError):  # nothing yet; or the other end is closed (EIO)
            while data := os.read(self._fd, 65536):
                self.shown += data.decode()
