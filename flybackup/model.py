"""The values every layer speaks: ids, entries, facts, snapshots. Frozen; fields carry their unit in their name.

These are also what is stored (MessagePack, `docs/format.md`) and what `--json` prints, so a field may be added with a
default but never renamed or removed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple, NewType

import msgspec

ChunkId = NewType("ChunkId", bytes)
"""Keyed BLAKE3-256 of a chunk's plaintext, 32 bytes."""

PackId = NewType("PackId", bytes)
"""BLAKE3-256 of a pack's stored bytes, 32 bytes."""

SnapshotId = NewType("SnapshotId", str)
"""Sixteen lowercase hexadecimal digits, random."""

EntryKind = Literal[
    "file", "directory", "symlink", "hardlink", "fifo", "socket", "character-device", "block-device", "dump"
]
Status = Literal["complete", "partial"]


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file, directory, link, database file or dump inside a snapshot.

    `path` is relative, slash-separated; for a database file its name, for a dump what it holds (`dump`, `globals`). A
    file name that is not UTF-8 stands there with escapes, and as it is in `raw_path`. `size` is in bytes. `mode` is the
    permission bits (07777), or None where there are none to keep. `target` is where a symlink leads, and for a hard
    link the raw path of the entry that it is another name of. `device` is a device's numbers (major, minor).

    `digest` is the BLAKE3-256 of a file's content, for comparing a restored tree with. `inode` and `ctime_ns` let the
    next capture know an unchanged file; both are missing when the file was too young for that. `database` names the
    kind of source that captured this file of a volume; `part_of` the path of the database whose log it is. `torn`: it
    changed under every try to read it.
    """

    path: str
    kind: EntryKind
    size: int = 0
    mode: int | None = None
    mtime_ns: int | None = None
    raw_path: bytes | None = None
    target: bytes | None = None
    uid: int | None = None
    gid: int | None = None
    device: tuple[int, int] | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    digest: bytes | None = None
    inode: int | None = None
    ctime_ns: int | None = None
    database: str | None = None
    part_of: str | None = None
    torn: bool = False

    @property
    def name(self) -> bytes:
        """The path as the file system has it."""
        return self.path.encode() if self.raw_path is None else self.raw_path


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFacts:
    """`rows` is an exact count; `checksum` an order-independent digest of the content where one was asked for."""

    rows: int
    checksum: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was measured in the source's own snapshot.

    `tables` is keyed `schema.table` (see `table_key`), in a volume `path:schema.table`. `sequences` hold the last
    value: a restored one may not be lower. Of a volume, `files` counts the files, `file_bytes` sums their sizes, and
    `tree_digest` (hexadecimal) is that of `tree.TreeTally`. `engine` says what wrote the data ("DuckDB v2.0.0 …",
    "PostgreSQL 18.1"); it is empty where nobody could count tables. `dump_digest` (hexadecimal) is the BLAKE3-256 of a
    command's dump, or of the file that it was restored to. `details` is what a restore may need to know, as text
    (client version, extensions, encoding).
    """

    tables: dict[str, TableFacts] = field(default_factory=dict)
    files: int | None = None
    file_bytes: int | None = None
    tree_digest: str | None = None
    engine: str = ""
    sequences: dict[str, int] = field(default_factory=dict)
    dump_digest: str | None = None
    details: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a backup cost. `bytes_new` of the `bytes_read` were not stored yet and took `bytes_stored` in the store."""

    entries: int
    bytes_read: int
    bytes_new: int
    bytes_stored: int
    chunks: int
    chunks_new: int
    requests: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The head of a snapshot: everything but its entries, which lie in the manifest.

    `time` is when the capture began, by the store's clock. `method` says how a consistent view was got, in the
    source's words. `problems` say what is missing from a partial one, `anomalies` what was lost since the snapshot
    before. `set_id` is common to the snapshots that were taken together, and `set_sources` names all sources of that
    run, also those that failed. The view is of a moment between the two of `viewed`, in seconds since the run began:
    comparable within a set. `session` names the writing session that this commits. `manifest` lists the chunks (id,
    size) of the manifest stream, in order.
    """

    id: SnapshotId
    source: str
    kind: str
    time: datetime
    tags: tuple[str, ...] = ()
    status: Status
    method: str
    facts: Facts
    summary: Summary
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    anomalies: tuple[str, ...] = ()
    set_id: str | None = None
    set_sources: tuple[str, ...] = ()
    viewed: tuple[float, float] | None = None
    tool: str
    session: str
    manifest: tuple[tuple[bytes, int], ...]


def apart_seconds(snapshots: Iterable[Snapshot]) -> float | None:
    """Return within how many seconds the views of a set were taken; None where that is not known of each."""
    views = [snapshot.viewed for snapshot in snapshots]
    known = [view for view in views if view is not None]
    if not known or len(known) < len(views):
        return None
    return round(max(end for _, end in known) - min(begin for begin, _ in known), 3)


class Progress(NamedTuple):
    """How far a long operation is: `done_bytes` of `total_bytes`, which is an estimate, or None when nobody knows."""

    phase: Literal["capture", "restore", "verify", "check"]
    done_bytes: int
    total_bytes: int | None


OnProgress = Callable[[Progress], None]


def table_key(schema: str, table: str) -> str:
    """Return `schema.table`; a part that holds a dot or a double quote is quoted as in SQL, so that keys are unique."""
    return f"{_part(schema)}.{_part(table)}"


def _part(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if "." in name or '"' in name else name
