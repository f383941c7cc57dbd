"""What is measured of a tree of files: how many, how large, and a digest of what and where they are. Pure."""

import msgspec

from flybackup.crypto import new_digest
from flybackup.model import Entry, Facts

_PIECE_BYTES = 64 * 1024
_ENCODER = msgspec.msgpack.Encoder()


class TreeTally:
    """Adds up entries in the order of a manifest.

    The digest covers paths, kinds, permission bits (0777), and the content of files: whatever every user on every file
    system can restore. Owners, times and extended attributes are not in it. Of a database file only that it is there:
    its tables are compared instead, because an engine may rewrite it without changing anything, and its size does not
    count. FIFOs, sockets and
    devices are not in it either: not everybody may make them.
    """

    def __init__(self) -> None:
        self._digest = new_digest()
        self._waiting = bytearray()
        self.files = 0
        self.file_bytes = 0

    def add(self, entry: Entry) -> None:
        if entry.part_of is not None or entry.kind not in ("file", "hardlink", "directory", "symlink"):
            return
        permissions = None if entry.kind in ("symlink", "hardlink") else (entry.mode or 0) & 0o777
        said: tuple[object, ...] = (entry.name, entry.kind, permissions, entry.target)
        if entry.kind in ("file", "hardlink"):
            self.files += 1
            self.file_bytes += 0 if entry.database is not None else entry.size
        if entry.kind == "file":
            said += ("database",) if entry.database is not None else (entry.size, entry.digest)
        self._waiting += _ENCODER.encode(said)
        if len(self._waiting) >= _PIECE_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._digest.update(self._waiting)
        self._waiting.clear()

    def digest(self) -> str:
        """Return the digest so far, in hexadecimal."""
        self._flush()
        return self._digest.hexdigest()

    def facts(self) -> Facts:
        return Facts(files=self.files, file_bytes=self.file_bytes, tree_digest=self.digest())
