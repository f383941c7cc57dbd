"""Paths inside a volume: bytes relative to its root, `/` between names, `.` for the root itself. Pure."""

from flybackup.errors import RefusedError
from flybackup.model import Entry

ROOT = b"."
OWN_PREFIX = ".flybackup-restore"
"""How names at a volume's root begin under which a restore keeps what is not in place yet, or was: never captured."""


def order(path: bytes) -> bytes:
    """Return what paths are sorted by: a directory stands right before what is in it."""
    return b"" if path == ROOT else path.replace(b"/", b"\0")


def shown(path: bytes) -> str:
    """Return the path as text; what is no UTF-8 stands there with escapes."""
    return path.decode(errors="backslashreplace")


def raw(path: bytes) -> bytes | None:
    """Return what an entry has to keep beside the text: the path, where the text would not lead back to it."""
    try:
        path.decode()
    except UnicodeDecodeError:
        return path
    return None


def components(entry: Entry) -> list[bytes]:
    """Return the names on the way to *entry*, none for the root.

    Raise `RefusedError` for a path that does not simply lead down: names come from the store, and whoever has the write
    key can forge a manifest that points out of the target.
    """
    return checked(entry.name)


def checked(path: bytes) -> list[bytes]:
    if path == ROOT:
        return []
    names = path.split(b"/")
    if names[0].startswith(OWN_PREFIX.encode()) or any(name in (b"", b".", b"..") or b"\0" in name for name in names):
        raise RefusedError(
            f"the snapshot names {shown(path)!r}, which does not lead into the target",
            hint="It was not written by flybackup. Restore another snapshot, and ask who has the write key.",
        )
    return names
