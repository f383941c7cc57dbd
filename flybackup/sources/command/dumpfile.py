"""A dump as a file: where a snapshot of a command can always be restored to, also without the configuration."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from flybackup.clock import Clock, SystemClock
from flybackup.crypto import new_digest
from flybackup.errors import ConfigError, RefusedError, SourceError
from flybackup.manifest import Kept
from flybackup.model import Facts
from flybackup.sources import Capture, Restoration, RestoreOptions, Stream
from flybackup.sources.files import publishing, staging
from flybackup.sources.files.family import Family
from flybackup.sources.files.refusals import refuse_taken, source_errors

_READ_BYTES: Final = 1024 * 1024


class DumpFile:
    """The file at *path*. It is written beside, synced and renamed. What is measured in it is its content's digest."""

    kind = "command"
    fixes_view = False

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        self.path = path
        self._clock = clock or SystemClock()

    def capture(
        self,
        scratch: Path,  # noqa: ARG002  # of the seam
        previous: Iterable[Kept] = (),  # noqa: ARG002  # likewise
    ) -> AbstractContextManager[Capture]:
        """Raise `ConfigError`: a file is where a dump can go, not where one comes from."""
        raise ConfigError(f"{self.path} is a file, not a command", hint="Configure a source of type command.")

    @contextmanager
    def restore(
        self,
        streams: Iterator[Stream],
        options: RestoreOptions,
        scratch: Path,  # noqa: ARG002  # of the seam; nothing is written there
    ) -> Iterator[Restoration]:
        """See `Source.restore`."""
        refuse_tables(options)
        refuse_taken(Family(self.path, ()), options)
        staged = Family(staging.staged_name(self.path), ())
        try:
            staging.write_streams(only_dump(streams), staged)
            yield _Restoration(staged, self.path, self._clock, replace=options.replace)
        finally:
            staged.remove()

    def probe(self, *, checksums: bool, scratch: Path) -> Facts:  # noqa: ARG002  # of the seam; the digest is always taken
        return _measured(self.path)


class _Restoration:
    def __init__(self, staged: Family, target: Path, clock: Clock, *, replace: bool) -> None:
        self._staged = staged
        self._target = target
        self._clock = clock
        self._replace = replace

    def probe(self, *, checksums: bool) -> Facts:  # noqa: ARG002  # of the seam; the digest is always taken
        return _measured(self._staged.path)

    def publish(self) -> tuple[str, ...]:
        return publishing.publish(self._staged, self._target, self._clock.now(), replace=self._replace)

    def keep(self) -> str:
        with source_errors(f"cannot keep the restored dump beside {self._target}"):
            return str(publishing.leave_aside(self._staged, self._target, self._clock.now()))


def only_dump(streams: Iterator[Stream]) -> Iterator[Stream]:
    """Yield the dump, which is all that a snapshot of a command holds. Raise `SourceError` when it holds another."""
    names = []
    for stream in streams:
        names.append(stream.entry.path)
        if names != ["dump"]:
            break
        yield stream
    if names != ["dump"]:
        raise SourceError(f"a command's snapshot is one dump, this one holds: {names}", hint="Choose another snapshot.")


def refuse_tables(options: RestoreOptions) -> None:
    """Raise `RefusedError` when single tables are wanted."""
    if options.tables:
        hint = "Restore to a file and take the table out of it with the tools of whatever wrote it."
        raise RefusedError("only the program that wrote a command's dump knows where a table is in it", hint=hint)


def _measured(path: Path) -> Facts:
    digest = new_digest()
    with source_errors(f"cannot read {path}"), path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return Facts(dump_digest=digest.hexdigest())
