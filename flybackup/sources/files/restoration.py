"""A restored database beside its target: published, kept aside, or removed. Each kind adds how it is probed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from flybackup.clock import Clock
from flybackup.sources import Stream
from flybackup.sources.files import publishing, staging
from flybackup.sources.files.family import Family
from flybackup.sources.files.refusals import refuse_in_use, source_errors


class FileRestoration:
    """The database *staged*, complete and synced; its target is *target*."""

    def __init__(self, staged: Family, target: Path, mode: int | None, clock: Clock, *, replace: bool) -> None:
        self._staged = staged
        self._target = target
        self._mode = mode
        self._clock = clock
        self._replace = replace

    def publish(self) -> tuple[str, ...]:
        refuse_in_use(self._staged.at(self._target))
        with source_errors(f"cannot set the mode of the restored {self._target.name}"):
            self._set_mode()
        return publishing.publish(self._staged, self._target, self._clock.now(), replace=self._replace)

    def keep(self) -> str:
        with source_errors(f"cannot keep the restored database beside {self._target}"):
            return str(publishing.leave_aside(self._staged, self._target, self._clock.now()))

    def _set_mode(self) -> None:
        """Give the files the entry's mode and, run by root, the owner of what they replace: the application's user."""
        like = (self._target if self._target.exists() else self._target.parent).stat()
        for path in self._staged.members():
            path.chmod(self._mode if self._mode is not None else staging.PRIVATE_MODE)
            with contextlib.suppress(PermissionError):
                os.chown(path, like.st_uid, like.st_gid)


def first_entry_mode(streams: Iterator[Stream], modes: list[int | None]) -> Iterator[Stream]:
    """Pass *streams* on and note each entry's mode in *modes*."""
    for stream in streams:
        modes.append(stream.entry.mode)
        yield stream
