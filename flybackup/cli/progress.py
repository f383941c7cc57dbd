"""Long work says how far it is: a line on a terminal, log events where there is none."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flybackup.cli.terminal import progress_line
from flybackup.errors import FlybackupError
from flybackup.model import OnProgress, Progress

_EVERY_SECONDS = 30.0

_log = logging.getLogger(__name__)


@contextmanager
def progress(work: str, subject: str, *, quiet: bool) -> Iterator[OnProgress]:
    """Tell about *work* (`backup`, `restore`, …) on *subject* while the block runs.

    Logs `work.started`, `work.progress` about every 30 s, and `work.finished` or `work.failed`.
    """
    begun = time.monotonic()
    _log.info("%s.started", work, extra={"subject": subject})
    try:
        with _shown(work, subject, quiet=quiet) as on_progress:
            yield on_progress
    except BaseException as exc:
        reason = str(exc) if isinstance(exc, FlybackupError) else type(exc).__name__
        _log.info("%s.failed", work, extra={"subject": subject, "error": reason, "seconds": _since(begun)})
        raise
    _log.info("%s.finished", work, extra={"subject": subject, "seconds": _since(begun)})


@contextmanager
def _shown(work: str, subject: str, *, quiet: bool) -> Iterator[OnProgress]:
    if sys.stderr.isatty() and not quiet:
        with progress_line(f"{work} {subject}") as on_progress:
            yield on_progress
    else:
        yield LoggedProgress(work, subject, time.monotonic)


class LoggedProgress:
    """Logs an event when `_EVERY_SECONDS` have passed since the last one."""

    def __init__(self, work: str, subject: str, monotonic: Callable[[], float]) -> None:
        self._work = work
        self._subject = subject
        self._monotonic = monotonic
        self._begun = self._last = monotonic()

    def __call__(self, progress: Progress) -> None:
        now = self._monotonic()
        if now - self._last < _EVERY_SECONDS:
            return
        self._last = now
        details = {
            "subject": self._subject,
            "done_bytes": progress.done_bytes,
            "total_bytes": progress.total_bytes,
            "bytes_per_second": int(progress.done_bytes / (now - self._begun)),
        }
        _log.info("%s.progress", self._work, extra=details)


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 3)
