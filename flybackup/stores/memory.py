"""A store in this process's memory: for tests, for `demo`, and as the plainest reading of the contract."""

from collections.abc import Iterator
from datetime import datetime
from threading import Lock

from flybackup.clock import Clock, SystemClock
from flybackup.errors import ObjectExistsError, ObjectNotFoundError
from flybackup.stores import Buffer, ObjectInfo, check_key, check_prefix, check_range, range_end


class MemoryStore:
    """Objects in a dictionary; *clock* is the store's own, which writes return."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._objects: dict[str, bytes] = {}
        self._lock = Lock()

    @property
    def url(self) -> str:
        return "memory:"

    def put(self, key: str, data: Buffer) -> datetime:
        content = bytes(data)
        with self._lock:
            self._objects[check_key(key)] = content
            return self._clock.now()

    def create(self, key: str, data: Buffer) -> datetime:
        content = bytes(data)
        with self._lock:
            if check_key(key) in self._objects:
                raise ObjectExistsError(f"{key} exists already in {self.url}")
            self._objects[key] = content
            return self._clock.now()

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        check_range(offset, length)
        content = self._content(check_key(key))
        return content[offset : range_end(key, len(content), offset, length)]

    def _content(self, key: str) -> bytes:
        with self._lock:
            content = self._objects.get(key)
        if content is None:
            raise ObjectNotFoundError(f"no object {key} in {self.url}")
        return content

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        with self._lock:
            found = sorted(ObjectInfo(key, len(data)) for key, data in self._objects.items() if key.startswith(prefix))
        yield from found

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(check_key(key), None)
