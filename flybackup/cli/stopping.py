"""Signals end a command cleanly: they become an exception in the main thread, so every `finally` runs."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedError(BaseException):
    """A signal arrived. Not an `Exception`: nothing may take it for a failure that it can handle."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `StoppedError` in the block when a signal arrives. A second one ends the process there and then: clean-up
    that waits for a dead server must not hold a person, and the next start removes what is left."""
    before = {number: signal.signal(number, _stop) for number in _SIGNALS if _wanted(number)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wanted(number: signal.Signals) -> bool:
    return signal.getsignal(number) is not signal.SIG_IGN  # nohup, or a shell's background job


def _stop(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001  the interpreter's signature
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    raise StoppedError(signum)
