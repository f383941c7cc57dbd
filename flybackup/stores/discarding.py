"""A store that reads through and throws writes away: what a dry run works on."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from flybackup.clock import Clock
from flybackup.stores import Buffer, ObjectInfo, Store


@dataclass(frozen=True, slots=True)
class DiscardingStore:
    inner: Store
    clock: Clock

    @property
    def url(self) -> str:
        return self.inner.url

    def put(self, key: str, data: Buffer) -> datetime:  # noqa: ARG002  the point is to ignore them
        return self.clock.now()

    def create(self, key: str, data: Buffer) -> datetime:  # noqa: ARG002  likewise
        return self.clock.now()

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        return self.inner.get(key, offset=offset, length=length)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self.inner.list(prefix)

    def delete(self, key: str) -> None: ...
