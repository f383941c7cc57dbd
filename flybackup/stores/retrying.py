"""A store that tries again: for answers that broke off, servers that were busy, shares that hiccuped."""

import logging
import random
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TypeVar

from flybackup.clock import Clock, SystemClock
from flybackup.errors import ObjectExistsError, StoreError
from flybackup.stores import Buffer, ObjectInfo, Store

T = TypeVar("T")

_log = logging.getLogger(__name__)

_LONGEST_SECONDS = 30.0


class RetryingStore:
    """Repeats what failed with a `retryable` error, *attempts* times in all.

    It waits `first_seconds`, then twice as long each time, up to 30 s; less a random part, up to half, so that agents
    which failed together do not come back together.
    """

    def __init__(
        self,
        inner: Store,
        clock: Clock | None = None,
        *,
        attempts: int = 3,
        first_seconds: float = 1.0,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._inner = inner
        self._clock = clock or SystemClock()
        self._attempts = attempts
        self._first_seconds = first_seconds
        self._chance = chance

    @property
    def url(self) -> str:
        return self._inner.url

    def put(self, key: str, data: Buffer) -> datetime:
        return self._retry(lambda: self._inner.put(key, data))

    def create(self, key: str, data: Buffer) -> datetime:
        """Like any `create`. A repetition that finds *key* taken by our own bytes finds what an earlier attempt made:
        what flybackup creates holds a random id, so nobody else's are equal."""
        for failures in range(self._attempts):
            try:
                return self._inner.create(key, data)
            except ObjectExistsError:
                if not failures or self._retry(lambda: self._inner.get(key)) != data:
                    raise
                return self.put(key, data)  # the same bytes, for the store's clock
            except StoreError as exc:
                self._wait_or_raise(exc, failures)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        return self._retry(lambda: self._inner.get(key, offset=offset, length=length))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Begin again where the listing broke off; attempts count anew with each object that was got."""
        last, failures = "", 0
        while True:
            try:
                for info in self._inner.list(prefix):
                    if info.key > last:
                        last, failures = info.key, 0
                        yield info
            except StoreError as exc:
                self._wait_or_raise(exc, failures)
                failures += 1
            else:
                return

    def delete(self, key: str) -> None:
        self._retry(lambda: self._inner.delete(key))

    def _retry(self, request: Callable[[], T]) -> T:
        for failures in range(self._attempts):
            try:
                return request()
            except StoreError as exc:
                self._wait_or_raise(exc, failures)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _wait_or_raise(self, exc: StoreError, failures: int) -> None:
        """Called while *exc* is handled, after *failures* earlier ones."""
        if not exc.retryable or failures + 1 >= self._attempts:
            raise exc
        longest = min(_LONGEST_SECONDS, self._first_seconds * 2**failures)
        seconds = longest * (1 - self._chance() / 2)
        _log.warning(
            "store.retrying", extra={"error": str(exc), "seconds": round(seconds, 1), "failures": failures + 1}
        )
        self._clock.sleep(seconds)
