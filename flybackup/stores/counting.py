"""A store that counts what is asked of it: requests cost money and time."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock

from flybackup.stores import Buffer, ObjectInfo, Store

_PAGE = 1000
"""Objects in one answer of S3's ListObjectsV2."""


@dataclass(frozen=True, slots=True)
class Usage:
    """`requests` by method; bytes of objects sent and received. A listing counts one request for each 1000 objects."""

    requests: dict[str, int] = field(default_factory=dict)
    bytes_sent: int = 0
    bytes_received: int = 0

    @property
    def total(self) -> int:
        return sum(self.requests.values())


class CountingStore:
    """Counts requests as they are made, whether or not they succeed, and the bytes of those that did."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self._lock = Lock()
        self._requests: Counter[str] = Counter()
        self._sent = 0
        self._received = 0

    @property
    def url(self) -> str:
        return self._inner.url

    def usage(self) -> Usage:
        with self._lock:
            return Usage(dict(self._requests), self._sent, self._received)

    def put(self, key: str, data: Buffer) -> datetime:
        self._count("put")
        time = self._inner.put(key, data)
        self._count_bytes(sent=memoryview(data).nbytes)
        return time

    def create(self, key: str, data: Buffer) -> datetime:
        self._count("create")
        time = self._inner.create(key, data)
        self._count_bytes(sent=memoryview(data).nbytes)
        return time

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        self._count("get")
        content = self._inner.get(key, offset=offset, length=length)
        self._count_bytes(received=len(content))
        return content

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._count("list")
        for number, info in enumerate(self._inner.list(prefix)):
            if number and number % _PAGE == 0:
                self._count("list")
            yield info

    def delete(self, key: str) -> None:
        self._count("delete")
        self._inner.delete(key)

    def _count(self, method: str) -> None:
        with self._lock:
            self._requests[method] += 1

    def _count_bytes(self, *, sent: int = 0, received: int = 0) -> None:
        with self._lock:
            self._sent += sent
            self._received += received
