"""The store seam: where a repository's objects lie. Five methods; everything else is built on them.

The contract, which `tests/contract/test_store.py` proves for every implementation and wrapper:

- Keys are relative, slash-separated, made of `[a-z0-9._-]` and `/` (see `check_key`). Values are whole objects.
- An object is never seen half-written: after a crash it is there with all its bytes or not there at all.
- A read or listing that begins after a write has returned sees that write.
- `put` of the bytes a key already holds is harmless, so it may be repeated when its outcome is unknown.
  flybackup never puts other bytes under a key that exists.
- `create` succeeds for at most one of any number of concurrent callers.
- `get` returns exactly the bytes asked for, or raises: short data is an error, never a result.
- `list` is in ascending order of the key's bytes and complete, however many pages it takes.
- `delete` of an absent key is not an error.
- Every method may be called from several threads. Every failure is a `StoreError`.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple, Protocol

from flybackup.errors import StoreError

Buffer = bytes | bytearray | memoryview

_KEY = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")


class ObjectInfo(NamedTuple):
    key: str
    size: int


class Store(Protocol):
    @property
    def url(self) -> str:
        """Where this is, for messages: no credentials."""
        ...

    def put(self, key: str, data: Buffer) -> datetime:
        """Store *data* under *key* durably and return the store's own clock reading of that write (aware, UTC).

        The buffer belongs to the caller again when this returns.
        """
        ...

    def create(self, key: str, data: Buffer) -> datetime:
        """Like `put`, but raise `ObjectExistsError` when *key* is taken, by an atomic test in the store."""
        ...

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """Return *length* bytes from *offset* (to the end when None). Raise `ObjectNotFoundError`, `StoreError`."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with *prefix*, ascending."""
        ...

    def delete(self, key: str) -> None: ...


def check_key(key: str) -> str:
    """Return *key*, or raise `StoreError` when it is not one: a name from a hostile store must not leave its directory."""
    if not _KEY.fullmatch(key):
        raise StoreError(f"not a valid object key: {key!r}")
    return key
