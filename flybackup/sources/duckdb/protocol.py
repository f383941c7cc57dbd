"""When a copy of a file that is being written is consistent: the raw-copy protocol.

1. Header N and the free list; both must hold, and the header must still be the same after the list was read.
2. The log, up to its last commit: an entry is appended after the blocks it refers to, so blocks read later are there.
   A checkpoint that is under way is waited for.
3. Every block that may have changed since it was last given.
4. Accept when header, inode and the log's copied beginning are unchanged and no checkpoint runs; else again.

Why it is right: as long as header N is the active one, DuckDB writes only to blocks that neither state N nor the log
refers to; freed blocks are re-used after header N+1. Metadata blocks are the exception: rewritten in place, so they
are copied in every pass and a torn one is seen by its checksum. After a step from N to N+1 a block that both use was
never free in between, so it needs no second copy: a file whose pass takes longer than the time between two
checkpoints converges all the same. A skipped iteration breaks that argument and everything is copied again.
"""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from flybackup.chunking import Extent
from flybackup.clock import Clock
from flybackup.errors import SourceError
from flybackup.sources.duckdb.kept import KeptBlocks
from flybackup.sources.duckdb.layout import HEADER_BYTES, BlockMap, Header, Mask, TornError, block_offset
from flybackup.sources.duckdb.live import LiveFile
from flybackup.sources.duckdb.runs import RunReader, TornRunError, runs
from flybackup.sources.duckdb.version import duckdb_version_of
from flybackup.sources.duckdb.walcopy import WalCopy, checkpoint_running, checkpoint_seen, copy_logs, still_begins
from flybackup.sources.files.holders import Holder, network_filesystem_of

Grade = Literal["clean", "clean-with-wal", "crash-image", "degraded"]

_CHECKPOINT_PAUSE_SECONDS = 0.005
_STATIC_TRIES = 20
_DAMAGE_SECONDS = 5.0
_SETTLE_SECONDS = 0.05


class _NotYetError(Exception):
    """The database cannot be understood at this moment; ask again after `pause_seconds`."""

    def __init__(self, reason: str, pause_seconds: float = 0.001) -> None:
        super().__init__(reason)
        self.reason = reason
        self.pause_seconds = pause_seconds


@dataclass(frozen=True, slots=True)
class View:
    """What one pass believes of the database, before it copies blocks. `size` in bytes, without a trailing hole."""

    header: Header
    blocks: BlockMap
    logs: tuple[WalCopy, ...]
    writer: Holder | None
    checkpointing: bool
    size: int
    writer_version: str | None
    """The writer's DuckDB, where it can be told."""
    filesystem: str | None
    """The network file system it lies on, None on a local one."""

    @property
    def log_bytes(self) -> int:
        return sum(log.size for log in self.logs)

    @property
    def grade(self) -> Grade:
        if self.checkpointing:
            return "degraded" if self.writer else "crash-image"
        return "clean-with-wal" if self.log_bytes else "clean"


class RawCopy:
    """Copies of one live file, all given to the same consumer. The logs are copied beside the path *logs_beside*."""

    def __init__(self, live: LiveFile, logs_beside: Path, clock: Clock, bound_seconds: float) -> None:
        self._live = live
        self._kept: KeptBlocks | None = None
        self._logs_beside = logs_beside
        self._clock = clock
        self._bound_seconds = bound_seconds
        self._began = clock.monotonic()
        self._reader = RunReader(live)
        self._last: Header | None = None
        self._valid: Mask = np.zeros(0, np.bool_)
        self._given: Mask = np.zeros(0, np.bool_)
        self._static_tries = 0
        self._damage: tuple[int, bytes, float] | None = None
        self._reason = "nothing was tried"
        self.passes = 0

    def extents(self, kept: KeptBlocks) -> Generator[Extent, None, View]:
        """Yield passes until one is accepted; return its view, whose `size` is the end of the file.

        A pass gives what may have changed since it was last given, or everything when *kept* is not that of the last
        call. The buffer of an extent is used again for the next one. Raises `SourceError` when the bound is reached.
        """
        afresh = kept is not self._kept
        if afresh:
            self._kept = kept
            self._valid[:] = False
        while True:
            self._check_bound()
            try:
                view = self._view()
            except _NotYetError as exc:
                self._wait(exc)
                continue
            self.passes += 1
            whole = yield from self._copy(view, kept)
            if afresh:
                self._began = self._clock.monotonic()  # a pass over the whole file lasts as long as its consumer likes
                afresh = False
            if whole and self._accept(view):
                kept.finish(view.size)
                return view

    def _check_bound(self) -> None:
        if self._clock.monotonic() - self._began > self._bound_seconds:
            message = f"no consistent copy of {self._live.path} within {self._bound_seconds:g} s: {self._reason}"
            raise SourceError(message, hint="Back up when fewer checkpoints run, or raise wal_autocheckpoint.")

    def _view(self) -> View:
        header = self._live.header(self._clock)
        _refuse_encrypted(self._live, header)
        try:
            blocks = self._live.block_map(header)
        except TornError as exc:
            raise _NotYetError(f"{exc} changed while it was read") from exc
        if self._live.raw_header() != header.raw:
            raise _NotYetError("checkpoints followed each other too fast")
        self._advance(header, blocks)
        return self._view_with_logs(header, blocks)

    def _view_with_logs(self, header: Header, blocks: BlockMap) -> View:
        writer = self._live.writer()
        logs = copy_logs(self._live.path, self._logs_beside, whole=writer is None)
        checkpointing = checkpoint_seen(logs)
        if checkpointing and writer is not None:
            if self._clock.monotonic() - self._began < self._bound_seconds / 2:
                raise _NotYetError("a checkpoint is running", _CHECKPOINT_PAUSE_SECONDS)
            logs = copy_logs(self._live.path, self._logs_beside, whole=True)
        size = self._size(header)
        if block_offset(blocks.used_count, header.block_bytes) > size:
            raise _NotYetError("it is shorter than its header says")
        version = duckdb_version_of(writer.pid) if writer is not None else None
        filesystem = network_filesystem_of(self._live.path)
        return View(header, blocks, logs, writer, checkpointing, size, version, filesystem)

    def _size(self, header: Header) -> int:
        """Return the file's size without a hole at its end that is no part of the database."""
        size, end = self._live.size(), header.blocks_end
        for _, data_end in self._live.data_ranges(size):
            end = max(end, data_end)
        return min(size, block_offset(-(-(end - HEADER_BYTES) // header.block_bytes), header.block_bytes))

    def _advance(self, header: Header, blocks: BlockMap) -> None:
        """Forget which given blocks may have changed between the last pass's header and this one."""
        last, self._last = self._last, header
        if last is None or header.raw == last.raw:
            return
        if header.iteration != last.iteration + 1 or header.block_bytes != last.block_bytes:
            self._valid[:] = False
            return
        self._valid = _resized(self._valid, header.block_count)
        self._valid &= ~blocks.free & ~blocks.metadata

    def _copy(self, view: View, kept: KeptBlocks) -> Generator[Extent, None, bool]:
        """Yield the header and every block that is not valid. Return False when the header changed meanwhile."""
        block_bytes = view.header.block_bytes
        count = -(-(view.size - HEADER_BYTES) // block_bytes)
        used = _resized(~view.blocks.free, count)
        metadata = _resized(view.blocks.metadata, count)
        data = self._data_mask(view, count)
        self._valid = _resized(self._valid, count)
        self._given = _resized(self._given, max(count, self._given.size))
        kept.ensure_space(int((data | used).sum()) * block_bytes)
        kept.begin(view.header, count)
        yield Extent(0, view.header.raw)
        for first, last in runs(self._given[:count] & ~data & ~used, block_bytes):
            extent = self._reader.zeros(view.size, first, last, block_bytes)
            yield kept.keep(extent, first, metadata[first:last], block_bytes)
        wanted = runs(~self._valid & (data | used), block_bytes)
        try:
            for first, last, extent in self._reader.read(view.size, wanted, used, block_bytes):
                yield kept.keep(extent, first, metadata[first:last], block_bytes)
                self._given[first:last] = True
                self._valid[first:last] = used[first:last] & ~metadata[first:last]
                if self._live.raw_header() != view.header.raw:
                    self._reason = "a checkpoint ended while blocks were copied"
                    return False
        except TornRunError as exc:
            self._note_damage(exc.block, view)
            return False
        return True

    def _note_damage(self, block: int, view: View) -> None:
        """Raise `SourceError` when the same block of the same state stays bad: that is no torn read."""
        self._reason = f"block {block} was being written"
        now = self._clock.monotonic()
        if self._damage is None or self._damage[:2] != (block, view.header.raw):
            self._damage = (block, view.header.raw, now)
        patient = view.writer is not None and now - self._damage[2] <= _DAMAGE_SECONDS
        if not patient and self._live.raw_header() == view.header.raw and self._live.writer() == view.writer:
            message = f"block {block} of {self._live.path} is damaged: its checksum does not hold"
            raise SourceError(message, hint="The file on disk is bad. Restore the newest snapshot beside it.")

    def _data_mask(self, view: View, count: int) -> Mask:
        mask = np.zeros(count, np.bool_)
        block_bytes = view.header.block_bytes
        for start, end in self._live.data_ranges(view.size):
            first = max(start - HEADER_BYTES, 0) // block_bytes
            mask[first : -(-max(end - HEADER_BYTES, 0) // block_bytes)] = True
        return mask

    def _accept(self, view: View) -> bool:
        self._reason = self._objection(view)
        return not self._reason

    def _objection(self, view: View) -> str:
        """Return why a finished pass is not consistent, nothing when it is. The header is asked first and last."""
        static = view.writer is None
        if self._live.raw_header() != view.header.raw:
            return "a checkpoint ended while blocks were copied"
        if not self._live.is_at_its_path():
            raise SourceError(f"{self._live.path} was replaced by another file meanwhile", hint="Back up again.")
        if static and self._live.writer() is not None:
            return "a process opened it for writing meanwhile"
        if not all(still_begins(log, may_checkpoint=view.checkpointing) for log in view.logs):
            return "the log was replaced while blocks were copied"
        if not view.checkpointing and checkpoint_running(self._live.path):
            return "a checkpoint began while blocks were copied"
        self._settle(view)
        return "" if self._live.raw_header() == view.header.raw else "a checkpoint ended while blocks were copied"

    def _settle(self, view: View) -> None:
        """DuckDB 1.5 has a window in which freed blocks are re-used before the header is written: let it pass."""
        if view.writer_version is not None and view.writer_version.startswith("1.5."):
            self._clock.sleep(_SETTLE_SECONDS)

    def _wait(self, why: _NotYetError) -> None:
        """Wait a little for a view. Raise `SourceError` when nobody writes, so that waiting will not help."""
        self._reason = why.reason
        self._static_tries = 0 if self._live.writer() else self._static_tries + 1
        if self._static_tries > _STATIC_TRIES:
            message = f"{self._live.path} is damaged: {why.reason}, and nobody is writing it"
            raise SourceError(message, hint="Restore the newest snapshot beside it.")
        self._clock.sleep(why.pause_seconds)


def _refuse_encrypted(live: LiveFile, header: Header) -> None:
    if header.encrypted:
        message = f"{live.path} is encrypted by DuckDB: its blocks and log cannot be checked without the key"
        hint = "There is no setting for that key yet. Keep the file plain: what flybackup stores is encrypted."
        raise SourceError(message, hint=hint)


def _resized(mask: Mask, size: int) -> Mask:
    out = np.zeros(size, np.bool_)
    out[: min(size, mask.size)] = mask[:size]
    return out
