"""A store that fails on schedule: faults are data, and a fault that was not reached fails the test."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Literal, NoReturn, TypeVar

from flybackup.errors import StoreError
from flybackup.stores import Buffer, ObjectInfo, Store

T = TypeVar("T")


def fail() -> NoReturn:
    raise StoreError("this fault was ordered")


@dataclass(frozen=True)
class Fault:
    """At the `call`-th call (from 0), `act` runs before the call takes effect or after it did; later calls fail too."""

    call: int
    moment: Literal["before", "after"]
    act: Callable[[], NoReturn] = fail


@dataclass
class FaultyStore:
    inner: Store
    fault: Fault | None = None
    calls: int = 0
    reached: bool = False
    _lock: Lock = field(default_factory=Lock)

    @property
    def url(self) -> str:
        return self.inner.url

    def put(self, key: str, data: Buffer) -> datetime:
        return self._call(lambda: self.inner.put(key, data))

    def create(self, key: str, data: Buffer) -> datetime:
        return self._call(lambda: self.inner.create(key, data))

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        return self._call(lambda: self.inner.get(key, offset=offset, length=length))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(self._call(lambda: tuple(self.inner.list(prefix))))

    def delete(self, key: str) -> None:
        self._call(lambda: self.inner.delete(key))

    def _call(self, effect: Callable[[], T]) -> T:
        with self._lock:
            number = self.calls
            self.calls += 1
            dead = self.reached
            due = self.fault is not None and number == self.fault.call
            self.reached = self.reached or due
        if dead:
            fail()
        if self.fault is None or not due:
            return effect()
        if self.fault.moment == "after":
            effect()
        return self.fault.act()
