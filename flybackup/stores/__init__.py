"""The store seam: where a repository's objects lie. Five methods; everything else is built on them.

The contract, which `tests/contract/test_store.py` proves for every implementation and wrapper:

- Keys are relative, slash-separated, made of `[a-z0-9._-]` and `/` (see `check_key`). Values are whole objects.
- An object is never seen half-written: after a crash it is there with all its bytes or not there at all.
- A read or listing that begins after a write has returned sees that write.
- `put` of the bytes a key already holds is harmless, so it may be repeated when its outcome is unknown.
  flybackup never puts other bytes under a key that exists.
- `create` succeeds for at most one of any number of concurrent callers.
- `get` returns exactly the bytes asked for, or raises: short data is an error, never a result. A range holds at least
  one byte and lies inside the object.
- `list` is in ascending order of the key's bytes and complete, however many pages it takes. Objects with names that are
  no keys (a console's folder markers, a file system's own files) are passed over.
- `delete` of an absent key is not an error.
- Every method may be called from several threads. Every failure is a `StoreError`; one with `retryable` leaves the
  outcome of a write unknown.

What callers owe: no key is the directory of another (`a` and `a/b`), because directories and several S3 servers cannot
hold both; and no name beside a directory extends its name by `-` or `.` (`a/b` and `a-b`), because servers that keep
keys in directories list those in another order. `S3Store` raises rather than list out of order.
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


def is_key(name: str) -> bool:
    return _KEY.fullmatch(name) is not None


def check_key(key: str) -> str:
    """Return *key*, or raise `StoreError` when it is not one: a hostile store's name must not leave its directory."""
    if not is_key(key):
        raise StoreError(f"not a valid object key: {key!r}")
    return key


def check_prefix(prefix: str) -> str:
    """Return *prefix*, or raise `StoreError` when no key can start with it."""
    if prefix:
        check_key(f"{prefix}0")
    return prefix


def check_range(offset: int, length: int | None) -> None:
    """Raise `StoreError` for a range that no object has: HTTP cannot ask for no bytes, so no store does."""
    if offset < 0 or (length is not None and length < 1):
        raise StoreError(f"not a range of bytes: offset {offset}, length {length}")


def range_end(key: str, size: int, offset: int, length: int | None) -> int:
    """Return where a range of an object of *size* bytes ends, or raise `StoreError` when it does not lie inside."""
    end = size if length is None else offset + length
    if end > size or (offset and offset >= size):
        raise StoreError(f"{key} holds {size} bytes: no range of {length or 'all'} bytes at {offset}")
    return end
