"""Run `pg_dump` and `pg_restore`: bytes through a pipe in a bounded buffer, their last words kept for the error.

A program whose pipe breaks ends by itself, so none outlives us, however we die: pg_dump fails at its next write,
pg_restore reads the end of a truncated archive.
"""

import fcntl
import select
import subprocess
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import IO, Final, cast

from flybackup.chunking import Extent
from flybackup.errors import SourceError
from flybackup.sources.postgres.clients import Client
from flybackup.sources.postgres.connection import Address

EXTENT_BYTES: Final = 1024 * 1024
_PIPE_BYTES: Final = 1024 * 1024
_LAST_WORDS_BYTES: Final = 4096
_GRACE_SECONDS: Final = 5.0
_STATISTICS_SINCE: Final = 18


class Program:
    """A client program under way, from `running`."""

    def __init__(self, process: "subprocess.Popen[bytes]", address: Address, words: IO[bytes]) -> None:
        self._process = process
        self._address = address
        self._words = words

    @property
    def pid(self) -> int:
        return self._process.pid

    def has_output(self, seconds: float) -> bool:
        """Wait until there is output or its end, at most *seconds*; tell whether there is."""
        poll = select.poll()
        poll.register(cast("FileIO", self._process.stdout), select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def output(self) -> Iterator[Extent]:
        """Yield standard output as contiguous extents of one reused buffer; then raise unless the program succeeded."""
        pipe = cast("FileIO", self._process.stdout)
        buffer = bytearray(EXTENT_BYTES)
        offset = 0
        with memoryview(buffer) as view:
            while filled := _fill(pipe, view):
                yield Extent(offset, view[:filled])
                offset += filled
        self.wait()

    def feed(self, blocks: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write *blocks* to standard input, close it and wait. Raise `SourceError` with the program's last words."""
        pipe = cast("FileIO", self._process.stdin)
        remaining = iter(blocks)
        try:
            for block in remaining:
                _write_all(pipe, block)
        except BrokenPipeError:
            self.wait()
            # It succeeded, so it had all it needed; what is left is read all the same, to be checked by its giver.
            for _ in remaining:
                pass
        pipe.close()
        self.wait()

    def wait(self) -> None:
        """Wait for the end. Raise `SourceError` when the exit code is not 0."""
        if code := self._process.wait():
            how = f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
            raise SourceError(
                f"{self._address.url}: {self._name} {how}: {self.last_words() or 'it said nothing'}",
                hint="`flybackup doctor` tells what this server lacks or forbids",
            )

    def last_words(self) -> str:
        """Return the end of what the program wrote to standard error, without secrets."""
        self._words.seek(0, 2)
        self._words.seek(max(0, self._words.tell() - _LAST_WORDS_BYTES))
        return self._address.scrub(self._words.read().decode("utf-8", "replace")).strip()

    @property
    def _name(self) -> str:
        return Path(cast("list[str]", self._process.args)[0]).name


def dump_command(client: Client, address: Address, *options: str) -> list[str]:
    """Return the command line of a dump: one uncompressed stream, so that equal data are equal bytes."""
    start = [client.program("pg_dump"), "--format=custom", "--compress=0", "--no-password"]
    statistics = ["--no-statistics"] if client.major >= _STATISTICS_SINCE else []
    return [*start, *statistics, *options, f"--dbname={address.argument()}"]


def restore_command(client: Client, into: Address, *options: str) -> list[str]:
    """Return the command line of a restore: it stops at the first error, and asks for nothing."""
    start = [client.program("pg_restore"), "--format=custom", "--exit-on-error", "--no-password"]
    return [*start, *options, f"--dbname={into.argument()}"]


@contextmanager
def running(arguments: Sequence[str], address: Address, scratch: Path, *, feeding: bool = False) -> Generator[Program]:
    """Run *arguments* for the database at *address*; whatever happens in the block, the program is gone after it."""
    with (scratch / f"{Path(arguments[0]).name}.stderr").open("w+b") as words:
        process = _start(arguments, address, words, feeding=feeding)
        try:
            yield Program(process, address, words)
        finally:
            _end(process)


def run(arguments: Sequence[str], address: Address, scratch: Path) -> str:
    """Run *arguments* to their end and return what they said on standard error. Raise `SourceError`."""
    with running(arguments, address, scratch) as program:
        for _ in program.output():
            pass
        return program.last_words()


def _start(arguments: Sequence[str], address: Address, words: IO[bytes], *, feeding: bool) -> "subprocess.Popen[bytes]":
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE if feeding else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if feeding else subprocess.PIPE,
            stderr=words,
            env=address.environment(),
            bufsize=0,
        )
    except OSError as exc:
        raise SourceError(f"cannot run {arguments[0]}: {exc.strerror}") from exc
    if pipe := process.stdin or process.stdout:
        # A larger pipe lets the program work on while we hash; where it is not granted, it is only slower.
        with suppress(OSError, AttributeError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return process


def _end(process: "subprocess.Popen[bytes]") -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _fill(pipe: FileIO, view: memoryview) -> int:
    filled = 0
    while filled < len(view):
        # Unbuffered and blocking: None cannot come.
        count = pipe.readinto(view[filled:])
        if not count:
            break
        filled += count
    return filled


def _write_all(pipe: FileIO, block: bytes | bytearray | memoryview) -> None:
    with memoryview(block) as view:
        written = 0
        while written < len(view):
            written += pipe.write(view[written:]) or 0
