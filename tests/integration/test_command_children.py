"""Children that misbehave: whatever they do, a command source ends, tells why, and leaves nobody behind."""

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from servers.postgres import command_lines, until

from flybackup.chunking import Extent
from flybackup.errors import ConfigError, RefusedError, SourceError
from flybackup.model import Entry, Facts, TableFacts
from flybackup.sources import Captured, RestoreOptions, Stream
from flybackup.sources.command import Commands, CommandSource, without_secrets
from flybackup.sources.programs import running as programs
from flybackup.sources.programs.running import EXTENT_BYTES, Invocation, running

PATIENCE_SECONDS = 60.0
"""A grace that a busy machine does not use up."""
GRACE_SECONDS = 0.2
HOUR = 3600.0
MIB = 1024 * 1024


class MovableClock:
    """The real clock, moved on by hand, or by an hour as soon as a file exists: nobody waits for an hour."""

    def __init__(self, file: Path | None = None) -> None:
        self.ahead = 0.0
        self._file = file

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        if self._file is not None and self._file.exists():
            self.ahead = HOUR
        return time.monotonic() + self.ahead

    def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"import os, signal, subprocess, sys\nwrite = sys.stdout.buffer.write\n{code}")


def source(
    dump: str = "",
    *,
    restore: str | None = None,
    count: str | None = None,
    clock: MovableClock | None = None,
    timeout_seconds: float | None = None,
    grace_seconds: float = PATIENCE_SECONDS,
) -> CommandSource:
    commands = Commands(
        dump=python(dump),
        restore=python(restore) if restore is not None else (),
        count=python(count) if count is not None else (),
        timeout_seconds=timeout_seconds,
        grace_seconds=grace_seconds,
    )
    return CommandSource(commands, without_secrets(os.environ, {}), clock=clock)


def captured(of: CommandSource, scratch: Path) -> tuple[bytes, Captured]:
    with of.capture(scratch) as capture:
        (stream,) = capture.streams()
        data = b"".join(bytes(extent.data) for extent in stream.extents)
        return data, capture.finish()


def restored(into: CommandSource, blocks: Iterator[bytes], scratch: Path, size: int = 0) -> Facts:
    def extents() -> Iterator[Extent]:
        offset = 0
        for block in blocks:
            yield Extent(offset, block)
            offset += len(block)

    stream = Stream(Entry(path="dump", kind="dump", size=size), extents())
    with into.restore(iter([stream]), RestoreOptions(replace=True), scratch) as restoration:
        return restoration.probe(checksums=False)


def gone(pid: int) -> bool:
    """Tell whether a process has ended; one that is not ours may wait to be reaped by init."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def zombies() -> list[str]:
    """Name our own children that ended and were not reaped."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError as exc:
            assert exc.errno in (errno.ENOENT, errno.ESRCH)  # noqa: PT017
            continue
        state, parent = text.rpartition(") ")[2].split()[:2]
        if state == "Z" and int(parent) == os.getpid():
            found.append(text)
    return found


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Iterator[None]:
    yield
    assert zombies() == []


# What a good one gives


def test_the_dump_goes_through_one_bounded_buffer(tmp_path: Path) -> None:
    pieces = "for n in range(2000): write(bytes([n % 256]) * 4099)"
    with source(pieces).capture(tmp_path) as capture:
        (stream,) = capture.streams()
        sizes, data = [], bytearray()
        for extent in stream.extents:
            assert extent.offset == len(data)
            sizes.append(len(extent.data))
            data += extent.data
        done = capture.finish()
    assert data == b"".join(bytes([n % 256]) * 4099 for n in range(2000))
    assert set(sizes[:-1]) == {EXTENT_BYTES}
    assert (stream.entry.kind, stream.chunking) == ("dump", None)
    name = Path(sys.executable).name
    assert (done.facts.engine, done.method) == ("", f"output of {name}")
    assert done.facts.tables == {}
    assert list(tmp_path.iterdir()) == []


def test_no_output_and_success_is_an_empty_dump(tmp_path: Path) -> None:
    data, done = captured(source(""), tmp_path)
    assert data == b""
    assert (
        done.facts.dump_digest == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    )  # BLAKE3 of nothing


def test_what_count_prints_are_facts_and_it_is_told_what_it_counts(tmp_path: Path) -> None:
    count = "import json; print(json.dumps({'a.b': 3, os.environ['FLYBACKUP_COUNTS']: 0}))"
    of = source("write(b'x')", count=count, restore="sys.stdin.read()")
    assert captured(of, tmp_path)[1].facts.tables == {"a.b": TableFacts(rows=3), "dump": TableFacts(rows=0)}
    assert set(of.probe(checksums=False, scratch=tmp_path).tables) == {"a.b", "target"}
    assert set(restored(of, iter([b"x"]), tmp_path, 1).tables) == {"a.b", "target"}


def test_warnings_and_errors_of_a_dump_that_ended_well_are_told(tmp_path: Path) -> None:
    said = "print('Dumping a', '[Warning] no PROCESS right', 'Error: b was left out', sep='\\n', file=sys.stderr)"
    assert captured(source(said), tmp_path)[1].warnings == ("[Warning] no PROCESS right", "Error: b was left out")


def test_a_command_cannot_ask_on_the_terminal(tmp_path: Path) -> None:
    data, _ = captured(source("write(b'%d %d' % (os.getsid(0) == os.getpid(), len(sys.stdin.read())))"), tmp_path)
    assert data == b"1 0"


# Failures


def test_an_exit_code_fails_the_capture_with_the_last_lines(tmp_path: Path) -> None:
    said = "[print('line', n, file=sys.stderr) for n in range(1000)]; write(b'x'); sys.exit(3)"
    with pytest.raises(SourceError, match="failed with exit code 3") as failed:
        captured(source(said), tmp_path)
    lines = str(failed.value).splitlines()
    assert lines[0].startswith("dump: python")
    assert lines[0].endswith("line 990")
    assert lines[1:] == [f"line {number}" for number in range(991, 1000)]


def test_words_cannot_move_the_cursor_nor_break_the_message(tmp_path: Path) -> None:
    said = r"os.write(2, b'\x1b[2J\x07\xff\xfe \xe2\x80\xae\r\nT\xc3\xbcr\n'); sys.exit(1)"
    with pytest.raises(SourceError) as failed:
        captured(source(said), tmp_path)
    assert str(failed.value).endswith("exit code 1: \\x1b[2J\\x07�� \\u202e\nTür")


def test_a_signal_fails_the_capture(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="was killed by SIGKILL: it said nothing"):
        captured(source("write(b'x' * 5000); sys.stdout.flush(); os.kill(os.getpid(), 9)"), tmp_path)


def test_a_flood_of_complaints_neither_blocks_nor_fills_anything(tmp_path: Path) -> None:
    flood = """
for n in range(200):
    os.write(2, b'no ' * 50_000)
    write(b'x' * 10_000)
os.write(2, b'\\nthe end')
sys.exit(1)
"""
    with pytest.raises(SourceError) as failed:
        captured(source(flood), tmp_path)
    assert str(failed.value).endswith("\nthe end")
    assert len(str(failed.value)) < 5000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [("absent-program", "No such file"), ("directory", "ermission denied"), ("text", "ermission denied")],
)
def test_what_cannot_be_started_says_what_to_look_at(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "text").write_text("hello")
    program = name if name.startswith("absent") else str(tmp_path / name)
    with pytest.raises(SourceError, match=f"dump: cannot run .*{name}: .*{reason}") as failed:
        captured(CommandSource(Commands(dump=(program, "hunter2")), without_secrets(os.environ, {})), tmp_path)
    assert "PATH" in failed.value.hint
    assert "hunter2" not in str(failed.value)


def test_a_failure_that_comes_after_the_data_still_counts(tmp_path: Path) -> None:
    """It closes its output, lives on, and only then fails."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    late = f"write(b'x' * {EXTENT_BYTES}); sys.stdout.flush(); os.close(1); open({str(fifo)!r}).read(); os._exit(4)"
    with source(late).capture(tmp_path) as capture:
        (stream,) = capture.streams()
        extents = stream.extents
        next(extents)
        with fifo.open("w"):  # opens when the child, whose output is closed by then, opens its end
            pass
        with pytest.raises(SourceError, match="failed with exit code 4"):
            next(extents)
        with pytest.raises(SourceError, match="not read to its end"):
            capture.finish()


def test_a_failed_count_fails_the_capture(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"count: python.* failed with exit code 1: no server"):
        captured(source("write(b'x')", count="sys.exit('no server')"), tmp_path)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        ("", "understand what was printed: nothing"),
        ("print('users: 3')", "users: 3"),
        ("print('[1]')", r"\[1\]"),
        ("print('{\"a\": 1.5}')", '"a": 1.5'),
        ("print('{\"a\": true}')", "true"),
        ("print('{\"a\": null}')", "null"),
        ("print('{\"a\": -1}')", "-1"),
        ("print('{\"a\": 9223372036854775808}')", "9223372036854775808"),
        ('print(\'{"a": 1} {"b": 2}\')', '"b"'),
        ("print('[' * 100_000)", r"\[\["),
        (r"write(b'\xff\x1b')", r"�\\x1b"),
        ("write(b'{' + b' ' * 5_000_000)", "more than 1 MiB"),
    ],
)
def test_what_count_may_not_print(count: str, shown: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=shown) as failed:
        captured(source("write(b'x')", count=count), tmp_path)
    assert "JSON" in failed.value.hint
    assert len(str(failed.value)) < 300


# Children that do not end


def lingering(directory: Path, *, deaf: bool = False, output: bool = True) -> str:
    """Return a child that starts another one, notes both process ids, gives 1 MiB, and stays; *deaf* to SIGTERM."""
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if deaf else ""
    pause = f"import signal, os\n{ignore}print(flush=True)\nwhile True: signal.pause()"
    return f"""
{ignore}
other = subprocess.Popen([sys.executable, "-c", {pause!r}], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
other.stdout.readline()
with open({str(directory / "pids.new")!r}, "w") as file:
    print(os.getpid(), other.pid, file=file)
os.replace({str(directory / "pids.new")!r}, {str(directory / "pids")!r})
if {output}:
    write(b"x" * {EXTENT_BYTES})
    sys.stdout.flush()
while True: signal.pause()
"""


def pids(directory: Path) -> list[int]:
    until((directory / "pids").exists)
    return [int(pid) for pid in (directory / "pids").read_text().split()]


@pytest.mark.parametrize("deaf", [False, True])
def test_when_the_time_is_over_the_whole_group_ends(deaf: bool, tmp_path: Path) -> None:
    clock = MovableClock()
    of = source(lingering(tmp_path, deaf=deaf), clock=clock, timeout_seconds=HOUR, grace_seconds=GRACE_SECONDS)
    with of.capture(tmp_path) as capture:
        extents = next(capture.streams()).extents
        next(extents)
        assert not any(map(gone, pids(tmp_path)))
        clock.ahead = HOUR
        with pytest.raises(SourceError, match="did not end within 3600 seconds and was ended"):
            next(extents)
    until(lambda: all(map(gone, pids(tmp_path))))


def test_an_output_without_an_end_is_ended_by_the_time_as_well(tmp_path: Path) -> None:
    clock = MovableClock()
    of = source("while True: write(b'x' * 4096)", clock=clock, timeout_seconds=HOUR)

    def read(extents: Iterator[Extent]) -> None:
        for extent in extents:
            clock.ahead += HOUR / 8
            assert extent.offset < 16 * EXTENT_BYTES

    with of.capture(tmp_path) as capture, pytest.raises(SourceError, match="did not end within"):
        read(next(capture.streams()).extents)


def test_the_time_is_over_also_for_one_that_closed_its_output(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    closing = f"os.close(1); os.write(2, b'waiting for a lock'); open({str(ready)!r}, 'w').close(); signal.pause()"
    with pytest.raises(SourceError, match="did not end within 3600 seconds and was ended: waiting for a lock"):
        captured(source(closing, timeout_seconds=HOUR, clock=MovableClock(ready)), tmp_path)


def test_the_time_is_over_also_for_count_and_restore(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"count: python.* did not end within"):
        source(count="signal.pause()", timeout_seconds=0.2).probe(checksums=False, scratch=tmp_path)
    endless = (b"x" * MIB for _ in range(100))
    with pytest.raises(SourceError, match=r"restore: python.* did not end within"):
        restored(source(restore="signal.pause()", timeout_seconds=0.2), endless, tmp_path)


@pytest.mark.parametrize("deaf", [False, True])
def test_a_reader_that_gives_up_leaves_nobody_behind(deaf: bool, tmp_path: Path) -> None:
    with source(lingering(tmp_path, deaf=deaf), grace_seconds=GRACE_SECONDS).capture(tmp_path) as capture:
        next(next(capture.streams()).extents)
    assert gone(pids(tmp_path)[0])
    until(lambda: all(map(gone, pids(tmp_path))))


def test_a_child_may_tidy_up_before_it_ends(tmp_path: Path) -> None:
    tidied = tmp_path / "tidied"
    tidy = f"""
signal.signal(signal.SIGTERM, lambda *_: (open({str(tidied)!r}, "w").close(), os._exit(0)))
write(b"x" * {EXTENT_BYTES}); sys.stdout.flush()
while True: signal.pause()
"""
    with source(tidy).capture(tmp_path) as capture:
        next(next(capture.streams()).extents)
    assert tidied.exists()


def test_one_that_leaves_another_holding_its_output_does_not_count_as_whole(tmp_path: Path) -> None:
    """Its exit code is 0, but what it started may not have written all: nobody can tell."""
    leaving = f"""
other = subprocess.Popen([sys.executable, "-c", "import signal\\nsignal.pause()"])
open({str(tmp_path / "pids")!r}, "w").write(str(other.pid))
write(b"x"); sys.stdout.flush()
os._exit(0)
"""
    with pytest.raises(SourceError, match="left a process behind that holds its pipe"):
        captured(source(leaving, grace_seconds=GRACE_SECONDS), tmp_path)
    until(lambda: all(map(gone, pids(tmp_path))))


def test_what_another_one_still_writes_belongs_to_the_dump(tmp_path: Path) -> None:
    """As in `sh -c 'mysqldump … &'`: the end of the output is the end, if it comes."""
    code = "import os, sys\nos.read(0, 1)\nfor n in range(300): os.write(1, b'y' * 9999)"
    leaving = f"""
other = subprocess.Popen([sys.executable, "-c", {code!r}], stdin=subprocess.PIPE)
write(b"x"); sys.stdout.flush()
os._exit(0)
"""
    data, _ = captured(source(leaving), tmp_path)
    assert data == b"x" + b"y" * 300 * 9999


def test_what_a_successful_one_leaves_running_is_left_alone(tmp_path: Path) -> None:
    answered = tmp_path / "answered"
    code = f"""
import signal, sys
signal.signal(signal.SIGUSR1, lambda *_: (open({str(answered)!r}, "w").close(), sys.exit()))
print(flush=True)
signal.pause()
"""
    leaving = f"""
other = subprocess.Popen([sys.executable, "-c", {code!r}], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
other.stdout.readline()
open({str(tmp_path / "pids")!r}, "w").write(str(other.pid))
write(b"x"); sys.stdout.flush()
os._exit(0)
"""
    assert captured(source(leaving), tmp_path)[0] == b"x"
    os.kill(pids(tmp_path)[0], signal.SIGUSR1)
    until(answered.exists)


# Restoring


def test_a_dump_is_fed_as_it_comes_and_its_program_believed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    into = source(restore=f"open({str(out)!r}, 'wb').write(sys.stdin.buffer.read())")
    blocks = [bytes([n]) * (MIB + n) for n in range(8)]
    assert restored(into, iter(blocks), tmp_path, sum(map(len, blocks))) == Facts()
    assert out.read_bytes() == b"".join(blocks)


def test_a_restore_that_fails_says_why(tmp_path: Path) -> None:
    blocks = (b"x" * MIB for _ in range(100))
    with pytest.raises(SourceError, match=r"restore: python.* failed with exit code 1: ERROR 1045: Access denied"):
        restored(source(restore="sys.stdin.read(10); sys.exit('ERROR 1045: Access denied')"), blocks, tmp_path)


def test_a_restore_that_did_not_read_all_is_no_success(tmp_path: Path) -> None:
    blocks = (b"x" * MIB for _ in range(8))
    with pytest.raises(SourceError, match="did not read the whole dump"):
        restored(source(restore="os.read(0, 10)"), blocks, tmp_path, 8 * MIB)


def test_half_a_dump_is_never_taken_for_all_of_it(tmp_path: Path) -> None:
    """A child that sees the end of its input writes what it has: so it must be gone before it could see one."""
    out, begun = tmp_path / "out", tmp_path / "begun"
    code = f"""
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open({str(begun)!r}, "w").close()
data = sys.stdin.buffer.read()
open({str(out)!r}, "wb").write(data)
"""

    def failing() -> Iterator[bytes]:
        yield b"x" * MIB
        until(begun.exists)
        raise SourceError("the store went away")

    with pytest.raises(SourceError, match="the store went away"):
        restored(source(restore=code, grace_seconds=GRACE_SECONDS), failing(), tmp_path)
    assert not out.exists()


def test_a_restore_is_not_started_before_the_store_has_given_something(tmp_path: Path) -> None:
    mark = f"# {tmp_path}"

    def missing(_: int) -> bytes:
        assert not any(mark in line for line in command_lines())
        raise SourceError("the store went away")

    with pytest.raises(SourceError, match="the store went away"):
        restored(source(restore=f"sys.stdin.read() {mark}"), map(missing, range(2)), tmp_path)


def test_an_empty_dump_is_loaded_as_well(tmp_path: Path) -> None:
    out = tmp_path / "out"
    restored(source(restore=f"open({str(out)!r}, 'w').write(sys.stdin.read())"), iter([]), tmp_path)
    assert out.read_bytes() == b""


def test_a_source_without_restore_or_count_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no `restore` command") as refused:
        restored(source(), iter([]), tmp_path)
    assert "file" in refused.value.hint
    with pytest.raises(ConfigError, match="no `count` command"):
        source().probe(checksums=False, scratch=tmp_path)


def test_writing_where_it_likes_has_to_be_allowed(tmp_path: Path) -> None:
    unread: Iterator[Stream] = map(pytest.fail, ["the snapshot was read"])
    with (
        pytest.raises(RefusedError, match="writes where it likes") as refused,
        source(restore="").restore(unread, RestoreOptions(), tmp_path),
    ):
        pass
    assert "--replace" in refused.value.hint


def test_a_snapshot_of_something_else_is_refused(tmp_path: Path) -> None:
    streams = [Stream(Entry(path="globals", kind="dump"), iter([]))]
    with (
        pytest.raises(SourceError, match="globals"),
        source(restore="").restore(iter(streams), RestoreOptions(replace=True), tmp_path),
    ):
        pass


# The environment


def environment_of_a_command(tmp_path: Path, env: dict[str, str], given: dict[str, str]) -> dict[str, Any]:
    dump = python("import json; write(json.dumps(dict(os.environ)).encode())")
    data, _ = captured(CommandSource(Commands(dump=dump), without_secrets(env, given)), tmp_path)
    found: dict[str, Any] = json.loads(data)
    return found


def test_what_opens_the_repository_or_its_store_is_not_handed_on(tmp_path: Path) -> None:
    ours = [f"FLYBACKUP_{name}" for name in ("PASSPHRASE", "WRITE_KEY", "RECOVERY_KEY", "NEW_PASSPHRASE", "TOKEN")]
    ours += ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"]
    env = {**dict.fromkeys([*ours, *(f"{name}_FILE" for name in ours)], "hunter2"), "MYSQL_PWD": "db", "LC_ALL": "C"}
    assert environment_of_a_command(tmp_path, env, {}) == {"MYSQL_PWD": "db", "LC_ALL": "C"}
    handed = environment_of_a_command(tmp_path, env, {"AWS_PROFILE": "dumps", "LC_ALL": "C.UTF-8", "EMPTY": ""})
    assert handed == {"MYSQL_PWD": "db", "LC_ALL": "C.UTF-8", "AWS_PROFILE": "dumps", "EMPTY": ""}


def test_secrets_are_taken_out_of_a_programs_words(tmp_path: Path) -> None:
    env = {
        "FLYBACKUP_PASSPHRASE": "correct horse",
        "PGPASSWORD": "correct horse battery",
        "KEY": "us",
        "TERM": "xterm-256",
    }
    words = "sys.exit('correct horse battery, correct horse, given secret, usual, xterm-256')"
    environment = without_secrets(env, {"TOKEN": "given secret"})
    with pytest.raises(SourceError, match=r": \*\*\*, \*\*\*, \*\*\*, usual, xterm-256"):
        captured(CommandSource(Commands(dump=python(words)), environment), tmp_path)
    assert "horse" not in repr(environment)
    assert "horse" not in repr(Commands(dump=("a", "horse")))


def test_a_program_of_another_user_cannot_hold_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sudo` may not be killed by us: its pipe is closed, and it is waited for no longer than the grace."""
    invocation = Invocation(
        arguments=python(lingering(tmp_path)), environment=os.environ, subject="dump", grace_seconds=GRACE_SECONDS
    )

    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    with running(invocation) as program:
        next(program.output())
        monkeypatch.setattr(os, "killpg", refuse)
        monkeypatch.setattr(programs, "_REAP_SECONDS", GRACE_SECONDS)
    assert not gone(program.pid)
    monkeypatch.undo()
    os.killpg(program.pid, signal.SIGKILL)
    program._process.wait()
    assert gone(program.pid)
