"""A restored tree beside its target: measured there, then published, kept aside, or removed."""

import ctypes
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from flybackup.errors import SourceError
from flybackup.model import Facts
from flybackup.sources import Stream
from flybackup.sources.volume import placing
from flybackup.sources.volume.attributes import Shortfalls
from flybackup.sources.volume.placing import Target
from flybackup.sources.volume.writing import TreeWriter


class VolumeRestoration:
    """The tree at *tree*, complete and flushed; its target is *target*. *measure* is the source's own way."""

    def __init__(
        self,
        tree: Path,
        target: Target,
        shortfalls: Shortfalls,
        measure: Callable[[Path, bool], Facts],
        now: datetime,
        *,
        replace: bool,
    ) -> None:
        self._tree = tree
        self._target = target
        self._shortfalls = shortfalls
        self._measure = measure
        self._now = now
        self._replace = replace

    def probe(self, *, checksums: bool) -> Facts:
        return self._measure(self._tree, checksums)

    def publish(self) -> tuple[str, ...]:
        placing.refuse_in_use(self._target)
        moved = placing.publish(self._tree, self._target, self._now, replace=self._replace)
        return (*moved, *self._shortfalls.sentences())

    def keep(self) -> str:
        return str(placing.leave_aside(self._tree, self._target, self._now))


def write_tree(streams: Iterator[Stream], root: int) -> Shortfalls:
    """Write *streams* below the open directory *root*, flushed to the disk."""
    with TreeWriter(root) as writer:
        for stream in streams:
            writer.write(stream)
    _flush(root)
    return writer.shortfalls


def _flush(fd: int) -> None:
    """Flush the file system at once: a flush for each of many small files would take longer than all the rest."""
    if ctypes.CDLL(None, use_errno=True).syncfs(fd):
        raise SourceError(f"cannot flush the restored tree to the disk: {os.strerror(ctypes.get_errno())}")
