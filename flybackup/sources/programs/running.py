"""Run a program with bytes through a pipe: a bounded buffer, a bounded time, nothing left behind.

One loop waits for the pipe, standard error and the time together, so that a program which complains a lot is neither
blocked by it nor fills a disk, and no thread has to be ended.

A program leads a session and a process group of its own: it cannot ask on the terminal, where nobody would answer, and
what it starts is ended with it. That happens when it failed, when its time was over, or when the reader gave up: the
whole group gets SIGTERM, after a grace SIGKILL, and only then is its input closed. So a program that loads a dump never
takes a part of it for the whole. What a program that succeeded has left running is left alone: it may have been asked
to start it.
"""

import fcntl
import math
import os
import select
import signal
import subprocess
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Final, cast

from flybackup.chunking import Extent
from flybackup.clock import Clock, SystemClock
from flybackup.errors import SourceError
from flybackup.sources.programs.words import LastWords

EXTENT_BYTES: Final = 1024 * 1024
GRACE_SECONDS: Final = 5.0
_PIPE_BYTES: Final = 1024 * 1024
_TOLD_LINES: Final = 10
_REAP_SECONDS: Final = 10.0
# The end of a program shows in no pipe when something it left behind holds them; so it is looked for, ever less often.
_SHORTEST_LOOK_SECONDS: Final = 0.001
_LONGEST_LOOK_SECONDS: Final = 0.1


def _unchanged(text: str) -> str:
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """What to run, and how to speak of it.

    `subject` begins every message, `hint` goes with a failure, `hide` takes secrets out of the program's own words.
    `timeout_seconds` counts from the start, with the time that the other end of the pipe takes; None is no limit.
    `grace_seconds` is between SIGTERM and SIGKILL, and how long a pipe may stay open but silent after the end.
    """

    arguments: Sequence[str] = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    subject: str
    hint: str = ""
    hide: Callable[[str], str] = _unchanged
    timeout_seconds: float | None = None
    grace_seconds: float = GRACE_SECONDS

    @property
    def program(self) -> str:
        return Path(self.arguments[0]).name


class Program:
    """A program under way, from `running`. Every method raises `SourceError` when its time is over."""

    def __init__(self, process: "subprocess.Popen[bytes]", invocation: Invocation, clock: Clock) -> None:
        self._process = process
        self._invocation = invocation
        self._clock = clock
        self._words = LastWords(cast("FileIO", process.stderr))
        self._deadline = clock.monotonic() + (invocation.timeout_seconds or math.inf)
        self._ended_at: float | None = None
        self._succeeded = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def has_output(self, seconds: float) -> bool:
        """Wait until there is output or its end, at most *seconds*; tell whether there is."""
        return self._await(cast("FileIO", self._process.stdout), select.POLLIN, seconds)

    def output(self) -> Iterator[Extent]:
        """Yield standard output as contiguous extents of one reused buffer; then raise unless the program succeeded."""
        buffer = bytearray(EXTENT_BYTES)
        offset = 0
        with memoryview(buffer) as view:
            while filled := self._fill(view):
                yield Extent(offset, view[:filled])
                offset += filled
        self.wait()

    def feed(self, blocks: Iterable[bytes | bytearray | memoryview]) -> bool:
        """Write *blocks* to standard input, close it and wait. Tell whether the program read them all.

        Raise `SourceError` with the program's last words when it failed.
        """
        pipe = cast("FileIO", self._process.stdin)
        os.set_blocking(pipe.fileno(), False)
        remaining = iter(blocks)
        try:
            for block in remaining:
                self._write(pipe, block)
        except BrokenPipeError:
            self.wait()
            # It succeeded, so it had all it needed; what is left is read all the same, to be checked by its giver.
            for _ in remaining:
                pass
            return False
        pipe.close()
        self.wait()
        return True

    def wait(self) -> None:
        """Wait for the end. Raise `SourceError` when the exit code is not 0."""
        look = _SHORTEST_LOOK_SECONDS
        while (code := self._exit_code()) is None:
            self._refuse_when_over(self._clock.monotonic())
            self._poll(look)
            look = min(2 * look, _LONGEST_LOOK_SECONDS)
        self._words.take()
        if code:
            how = f"was killed by {_signal_name(-code)}" if code < 0 else f"failed with exit code {code}"
            raise self._error(f"{how}: {self._told() or 'it said nothing'}", self._invocation.hint)
        self._succeeded = True

    def last_words(self) -> str:
        """Return the end of what the program wrote to standard error, without secrets."""
        return self._invocation.hide(self._words.text())

    def end(self) -> None:
        """End the group unless the program has succeeded. Then close the pipes, and leave no zombie."""
        if not self._succeeded:
            self._signal(signal.SIGTERM)
            self._await_silence()
            self._signal(signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        with suppress(subprocess.TimeoutExpired):  # of another user's program (sudo), which we may not kill
            self._process.wait(_REAP_SECONDS)

    def _fill(self, view: memoryview) -> int:
        pipe = cast("FileIO", self._process.stdout)
        filled = 0
        while filled < len(view):
            self._await(pipe, select.POLLIN)
            count = pipe.readinto(view[filled:])  # a blocking descriptor, and there is something: None cannot come
            if not count:
                break
            filled += count
        return filled

    def _write(self, pipe: FileIO, block: bytes | bytearray | memoryview) -> None:
        with memoryview(block) as view:
            written = 0
            while written < len(view):
                self._await(pipe, select.POLLOUT)
                written += pipe.write(view[written:]) or 0

    def _await(self, pipe: FileIO, event: int, seconds: float = math.inf) -> bool:
        """Wait until *pipe* is ready, at most *seconds*, and tell whether it is. Raise when no waiting will help."""
        begun = now = self._clock.monotonic()
        look = _SHORTEST_LOOK_SECONDS
        while True:
            self._refuse_when_over(now)
            if self._poll(look, pipe, event):
                return True
            now = self._clock.monotonic()
            self._refuse_what_was_left_behind(now, begun)
            if now - begun >= seconds:
                return False
            look = min(2 * look, _LONGEST_LOOK_SECONDS)

    def _poll(self, seconds: float, pipe: FileIO | None = None, event: int = 0) -> bool:
        """Take in standard error for at most *seconds*; return at once, and True, when *pipe* is ready."""
        poll = select.poll()
        if pipe is not None:
            poll.register(pipe, event)
        if not self._words.ended:
            poll.register(self._words.pipe, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(seconds * 1000)}
        if self._words.pipe.fileno() in ready:
            self._words.take()
        return pipe is not None and pipe.fileno() in ready

    def _exit_code(self) -> int | None:
        """Return the exit code, minus the signal, or None while it runs. As long as it is not reaped, its number, which
        is its group's too, belongs to nobody else."""
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return None
        self._ended_at = self._clock.monotonic() if self._ended_at is None else self._ended_at
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    def _refuse_when_over(self, now: float) -> None:
        if now < self._deadline:
            return
        self._words.take()
        words = self._told()
        what = f"did not end within {self._invocation.timeout_seconds:g} seconds and was ended"
        hint = "Look at what it waits for, or give the source a longer `timeout`."
        raise self._error(f"{what}: {words}" if words else what, hint)

    def _refuse_what_was_left_behind(self, now: float, begun: float) -> None:
        """Raise when the program has ended, but something that it started holds the pipe and does nothing.

        Whether it would still have written or read something nobody knows; so it counts as a failure, not as the end.
        """
        if self._exit_code() is None or self._ended_at is None:
            return
        if now - max(begun, self._ended_at) >= self._invocation.grace_seconds:
            what = "ended, but left a process behind that holds its pipe: nobody can tell whether the data is whole"
            hint = "Let it wait for what it starts, or start that with `< /dev/null > /dev/null`."
            raise self._error(what, hint)

    def _await_silence(self) -> None:
        """Wait until the program has ended and nobody is left who could complain; at most the grace."""
        until = self._clock.monotonic() + self._invocation.grace_seconds
        look = _SHORTEST_LOOK_SECONDS
        while (self._exit_code() is None or not self._words.ended) and self._clock.monotonic() < until:
            self._poll(look)
            look = min(2 * look, _LONGEST_LOOK_SECONDS)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _told(self) -> str:
        return "\n".join(self.last_words().splitlines()[-_TOLD_LINES:])

    def _error(self, what: str, hint: str) -> SourceError:
        return SourceError(f"{self._invocation.subject}: {self._invocation.program} {what}", hint=hint)


@contextmanager
def running(invocation: Invocation, *, feeding: bool = False, clock: Clock | None = None) -> Generator[Program]:
    """Run a program; whatever happens in the block, it is gone after it. Raise `SourceError` when it cannot be started.

    *feeding*: its input is written and its output thrown away; else the reverse.
    """
    program = Program(_start(invocation, feeding=feeding), invocation, clock or SystemClock())
    try:
        yield program
    finally:
        program.end()


def _start(invocation: Invocation, *, feeding: bool) -> "subprocess.Popen[bytes]":
    try:
        process = subprocess.Popen(
            list(invocation.arguments),
            stdin=subprocess.PIPE if feeding else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if feeding else subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(invocation.environment),
            bufsize=0,
            start_new_session=True,
        )
    except OSError as exc:
        hint = "Is it installed and on the PATH? Each argument is a string of its own."
        raise SourceError(
            f"{invocation.subject}: cannot run {invocation.arguments[0]}: {exc.strerror}", hint=hint
        ) from exc
    if pipe := process.stdin or process.stdout:
        # A larger pipe lets the program work on while we hash; where it is not granted, it is only slower.
        with suppress(OSError, AttributeError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return process


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
