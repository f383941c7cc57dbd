"""The command source: captured, restored and measured by programs of the user."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final, Literal

from flybackup.chunking import Extent
from flybackup.clock import Clock, SystemClock
from flybackup.crypto import new_digest
from flybackup.errors import ConfigError, RefusedError, SourceError
from flybackup.manifest import Kept
from flybackup.model import Entry, Facts, TableFacts
from flybackup.sources import Capture, Captured, Restoration, RestoreOptions, Stream
from flybackup.sources.command import counting
from flybackup.sources.command.dumpfile import only_dump, refuse_tables
from flybackup.sources.command.environment import Environment
from flybackup.sources.programs import arrival
from flybackup.sources.programs.running import GRACE_SECONDS, Invocation, Program, running

Counted = Literal["dump", "target"]

COUNTS: Final = "FLYBACKUP_COUNTS"
"""The variable that tells a `count` command what it counts (`Counted`)."""
_NOTHING: Final[Mapping[str, str]] = {}
_TOLD_LINES: Final = 5
_HINTS: Final = {"restore": "A part of the data may have been written. Remove the cause and restore again."}


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """Programs with their arguments. Without `restore` only files can be restored to, without `count` nothing is
    counted. `timeout_seconds` is for each of them; None is no limit."""

    dump: tuple[str, ...] = field(repr=False)
    restore: tuple[str, ...] = field(default=(), repr=False)
    count: tuple[str, ...] = field(default=(), repr=False)
    timeout_seconds: float | None = None
    grace_seconds: float = GRACE_SECONDS

    @property
    def program(self) -> str:
        """The name of the program that dumps."""
        return Path(self.dump[0]).name


class CommandSource:
    """Data that *commands* dump, load and count, each run in *environment*, in the current working directory."""

    kind = "command"
    fixes_view = False

    def __init__(self, commands: Commands, environment: Environment, *, clock: Clock | None = None) -> None:
        self._commands = commands
        self._environment = environment
        self._clock = clock or SystemClock()

    @contextmanager
    def capture(
        self,
        scratch: Path,  # noqa: ARG002  # of the seam; nothing is written
        previous: Iterable[Kept] = (),  # noqa: ARG002  # likewise; all is read
    ) -> Iterator[Capture]:
        """See `Source.capture`. `count` runs after the dump: they see one state only if the user's commands do."""
        with self._running("dump", self._commands.dump) as program:
            yield CommandCapture(program, self._commands, self)

    @contextmanager
    def restore(self, streams: Iterator[Stream], options: RestoreOptions, scratch: Path) -> Iterator[Restoration]:
        """See `Source.restore`. The command writes where it likes, so nothing is beside and nothing is kept aside."""
        refuse_tables(options)
        if not self._commands.restore:
            raise ConfigError("the source has no `restore` command", hint="Name a file that the dump is written to.")
        if not options.replace:
            hint = "Say --replace when it may overwrite what is there, or name a file that the dump is written to."
            what = "a restore command writes where it likes: nothing is restored beside, and what is there is not kept"
            raise RefusedError(what, hint=hint)
        for stream in only_dump(streams):
            self._load(arrival.in_order(stream, scratch))
        yield CommandRestoration(self, counted=bool(options.facts.tables))

    def _load(self, blocks: Iterator[bytes | bytearray | memoryview]) -> None:
        # A command may empty the target first: it is not started before the store has given something.
        first = next(blocks, b"")
        with self._running("restore", self._commands.restore, feeding=True) as program:
            if not program.feed(chain([first], blocks)):
                hint = "Let it read to the end: a part of the data may be missing now."
                raise SourceError("restore: the program ended well, but did not read the whole dump", hint=hint)

    def probe(self, *, checksums: bool, scratch: Path) -> Facts:  # noqa: ARG002  # of the seam; there are none
        """Run `count`. Raise `ConfigError` when there is none."""
        if not self._commands.count:
            raise ConfigError("the source has no `count` command, so nothing can be compared", hint="Configure one.")
        return Facts(tables=self.tables("target"), engine=self._commands.program)

    @property
    def counts(self) -> bool:
        return bool(self._commands.count)

    def tables(self, of: Counted) -> dict[str, TableFacts]:
        """Return what `count` prints; without one, nothing. The command is told what it counts: only of a dump may it
        give numbers that were noted while it was written."""
        if not self._commands.count:
            return {}
        with self._running("count", self._commands.count, extra={COUNTS: of}) as program:
            return counting.tables(counting.printed(program.output()))

    @contextmanager
    def _running(
        self, which: str, arguments: tuple[str, ...], *, feeding: bool = False, extra: Mapping[str, str] = _NOTHING
    ) -> Iterator[Program]:
        invocation = Invocation(
            arguments=arguments,
            environment={**self._environment.variables, **extra},
            subject=which,
            hint=_HINTS.get(which, ""),
            hide=self._environment.hide,
            timeout_seconds=self._commands.timeout_seconds,
            grace_seconds=self._commands.grace_seconds,
        )
        with running(invocation, feeding=feeding, clock=self._clock) as program:
            yield program


class CommandCapture:
    """A dump under way."""

    def __init__(self, program: Program, commands: Commands, source: CommandSource) -> None:
        self._program = program
        self._commands = commands
        self._source = source
        self._digest: str | None = None

    def streams(self) -> Iterator[Stream]:
        yield Stream(Entry(path="dump", kind="dump"), self._extents())

    def finish(self) -> Captured:
        """Count. Raise `SourceError` when `count` failed, and before the dump's exit code is known to be 0."""
        if self._digest is None:
            raise SourceError("the dump was not read to its end")
        name = self._commands.program
        # Without `count` nobody looked for tables, which must not look like a database that has none.
        engine = name if self._commands.count else ""
        facts = Facts(tables=self._source.tables("dump"), engine=engine, dump_digest=self._digest)
        return Captured(facts, f"output of {name}", self._complaints())

    def _extents(self) -> Iterator[Extent]:
        digest = new_digest()
        for extent in self._program.output():
            digest.update(extent.data)
            yield extent
        self._digest = digest.hexdigest()

    def _complaints(self) -> tuple[str, ...]:
        """Return what a dump that ended well said of warnings and errors: some tools go on without some of the data."""
        lines = self._program.last_words().splitlines()
        told = [line for line in lines if "warning" in line.lower() or "error" in line.lower()]
        return tuple(told[-_TOLD_LINES:])


class CommandRestoration:
    """What a restore command has written, wherever that is."""

    in_target: Literal[True] = True

    def __init__(self, source: CommandSource, *, counted: bool) -> None:
        self._source = source
        self._counted = counted

    def probe(self, *, checksums: bool) -> Facts:  # noqa: ARG002  # of the seam; there are none
        """Run `count`. Raise `SourceError` when there is none, but the snapshot has counts to compare with."""
        if self._counted and not self._source.counts:
            what = "the restore command ended well, but what it wrote cannot be counted: there is no `count` command"
            raise SourceError(what, hint="Configure one and say `flybackup verify`; or restore with --no-verify.")
        return Facts(tables=self._source.tables("target"))

    def publish(self) -> tuple[str, ...]:
        return ("The restore command wrote it there itself: what was there before is not kept, and there is no undo.",)

    def keep(self) -> str:
        return "the restore command has written it, and what was there before is not kept"
