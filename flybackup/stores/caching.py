"""A store that keeps copies of small sealed objects on the local disk, so that the next run need not fetch them.

    <directory>/<key>     the object as it is stored, then the BLAKE2b-256 of its key and bytes

Objects are immutable and sealed: a copy never becomes wrong, and holds no plaintext. The checksum tells a copy that the
disk damaged or a crash cut short; the reader's authentication tells one that somebody altered. A copy outlives the
deletion of its object by another process: who wants to know what exists lists. The cache may be deleted at any time,
several processes may share it, and no failure of it is ever a failure of the store.
"""

import hashlib
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from threading import Lock

from flybackup.stores import Buffer, ObjectInfo, Store, check_key

_log = logging.getLogger(__name__)

_CHECKSUM_BYTES = 32

_FULL_SHARE = 0.9
"""Eviction goes down to this share of the cap, so that it is not needed again at once."""


def is_metadata(key: str) -> bool:
    """Say whether *key* is of a kind that every run reads: index files and heads of snapshots."""
    return key.startswith(("index/", "snapshots/"))


class CachingStore:
    """Caches objects that *wanted* says yes to, when they are got whole or written; at most *max_bytes* of them.

    *content_name* returns the name that content-named objects bear for their bytes. Where the last part of a key looks
    like one and is not the content's, the store's copy is damaged and not kept: it may be repaired there.
    """

    def __init__(
        self,
        inner: Store,
        directory: Path,
        max_bytes: int,
        *,
        content_name: Callable[[bytes], str],
        wanted: Callable[[str], bool] = is_metadata,
    ) -> None:
        self._inner = inner
        self._copies = _Copies(directory, max_bytes)
        self._content_name = content_name
        self._wanted = wanted

    @property
    def url(self) -> str:
        return self._inner.url

    def put(self, key: str, data: Buffer) -> datetime:
        time = self._inner.put(key, data)
        self._keep(key, data)
        return time

    def create(self, key: str, data: Buffer) -> datetime:
        time = self._inner.create(key, data)
        self._keep(key, data)
        return time

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        if offset or length is not None or not self._wanted(check_key(key)):
            return self._inner.get(key, offset=offset, length=length)
        content = self._copies.read(key)
        if content is None:
            content = self._inner.get(key)
            self._keep(key, content)
        return content

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._inner.list(prefix)

    def delete(self, key: str) -> None:
        self._inner.delete(key)
        self._copies.remove(key)

    def _keep(self, key: str, data: Buffer) -> None:
        if self._wanted(key):
            content = bytes(data)
            name = key.rpartition("/")[2]
            computed = self._content_name(content)
            if len(name) != len(computed) or name == computed:
                self._copies.write(key, content)


class _Copies:
    """Checksummed files under *directory*, the least recently used of which make room.

    A file's modification time says when it was last used: access times are often switched off.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._room = 0  # what may be written before looking how much there is
        self._unseen = 0
        self._broken = False

    def read(self, key: str) -> bytes | None:
        path = self._directory / key
        try:
            stored = path.read_bytes()
            content, checksum = stored[:-_CHECKSUM_BYTES], stored[-_CHECKSUM_BYTES:]
            if checksum != _checksum(key, content):
                path.unlink(missing_ok=True)
                return None
            with suppress(PermissionError):  # another user's copy is as good
                os.utime(path)
        except OSError:
            return None
        return content

    def write(self, key: str, content: bytes) -> None:
        if self._broken or len(content) > self._max_bytes:
            return
        try:
            self._replace(self._directory / key, content, _checksum(key, content))
            self._make_room(len(content) + _CHECKSUM_BYTES)
        except FileNotFoundError:
            return  # another process is making room, or somebody deleted the cache
        except OSError as exc:
            self._broken = True
            _log.warning("cache.broken", extra={"directory": str(self._directory), "error": str(exc)})

    def remove(self, key: str) -> None:
        with suppress(OSError):
            (self._directory / key).unlink(missing_ok=True)

    def _replace(self, path: Path, content: bytes, checksum: bytes) -> None:
        _make_private(path.parent)
        new = path.parent / f".{secrets.token_hex(8)}"
        try:
            with open(new, "xb", opener=_private_opener) as file:
                file.write(content)
                file.write(checksum)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)

    def _make_room(self, added: int) -> None:
        """Look at the directory again after every 16th of the cap: other processes write there too."""
        with self._lock:
            self._unseen += added
            if self._unseen > min(self._max_bytes // 16, self._room):
                self._room = self._max_bytes - self._evict()
                self._unseen = 0

    def _evict(self) -> int:
        """Remove the files unused for longest if there are too many bytes; return how many are left."""
        files = sorted(_files(self._directory))
        total = sum(size for _, size, _ in files)
        if total <= self._max_bytes:
            return total
        for _, size, path in files:
            if total <= self._max_bytes * _FULL_SHARE:
                break
            path.unlink(missing_ok=True)
            total -= size
        return total


def _files(directory: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield last use, size and path of every file, also what a killed process left half-written."""
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            with suppress(FileNotFoundError):
                status = path.stat()
                yield status.st_mtime, status.st_size, path


def _make_private(directory: Path) -> None:
    # `mkdir(parents=True)` would give only the last directory this mode.
    if not directory.is_dir():
        _make_private(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)


def _private_opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _checksum(key: str, content: bytes) -> bytes:
    digest = hashlib.blake2b(key.encode(), digest_size=_CHECKSUM_BYTES)
    digest.update(b"\0")
    digest.update(content)
    return digest.digest()
