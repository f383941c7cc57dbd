"""The only place that knows about futures."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")


def ordered_map(pool: Executor, fn: Callable[[A], B], items: Iterable[A], *, ahead: int) -> Iterator[B]:
    """Apply *fn* in threads and yield its results in the order of *items*.

    Holds at most *ahead* + 1 items and results. The first error is raised where its result would have come; calls not
    begun by then are cancelled, and those under way are waited for, so that no thread outlives its buffers.
    """
    pending: deque[Future[B]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(fn, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
        for future in pending:
            if not future.cancelled():
                future.exception()


class Conveyor(Generic[A, B]):
    """Like `ordered_map`, for items that are pushed: results go to *sink* in order, in the calling thread.

    Holds at most *ahead* + 1 items and results. An error surfaces at the next `push` or `drain`.
    """

    def __init__(self, pool: Executor, fn: Callable[[A], B], sink: Callable[[B], None], *, ahead: int) -> None:
        self._pool = pool
        self._fn = fn
        self._sink = sink
        self._ahead = ahead
        self._pending: deque[Future[B]] = deque()

    def push(self, item: A) -> None:
        self._pending.append(self._pool.submit(self._fn, item))
        while len(self._pending) > self._ahead:
            self._hand_on()

    def drain(self) -> None:
        while self._pending:
            self._hand_on()

    def _hand_on(self) -> None:
        result = self._pending[0].result()  # still pending while waited for: a signal must leave it to `salvage`
        self._pending.popleft()
        self._sink(result)

    def salvage(self) -> None:
        """Hand on the results of those that succeeded, in order; forget the others. The pool has been shut down."""
        for future in self._pending:
            if not future.cancelled() and future.exception() is None:
                self._sink(future.result())
        self._pending.clear()
