"""A capture: the tree as it is walked, unchanged files as they were kept, databases by their own kind's method."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from flybackup.chunking import Extent
from flybackup.errors import SourceError
from flybackup.manifest import Kept
from flybackup.model import Entry, Facts
from flybackup.sources import Captured, Stream
from flybackup.sources.volume.content import Content
from flybackup.sources.volume.databases import HEAD_BYTES, DatabaseCapture, DatabaseKind, merged, recognise
from flybackup.sources.volume.entries import Previous, entry_of, kind_of, place_of, xattrs_of
from flybackup.sources.volume.paths import shown
from flybackup.sources.volume.walking import Found, Walk
from flybackup.tree import TreeTally

_NOTHING: tuple[Extent, ...] = ()


class VolumeCapture:
    """One capture of the open directory *root*. *scratch* is for the databases.

    A file last changed before *old_ns* (nanoseconds since 1970) can be recognised by the next capture.
    """

    def __init__(
        self,
        root: int,
        path: Path,
        scratch: Path,
        *,
        walk: Walk,
        kinds: Sequence[DatabaseKind],
        previous: Iterable[Kept],
        old_ns: int,
    ) -> None:
        self._root = root
        self._path = path
        self._walk = walk
        self._kinds = kinds
        self._previous = Previous(previous)
        self._scratch = scratch
        self._old_ns = old_ns
        self._tally = TreeTally()
        self._facts = Facts()
        self._links: dict[tuple[int, int], bytes] = {}
        self._companions: set[bytes] = set()
        self._kept = 0
        self._methods: dict[str, str] = {}
        self._finished = False
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def note_problem(self, path: bytes, problem: str) -> None:
        self.problems.append(f"{shown(path)}: {problem}")

    def streams(self) -> Iterator[Stream]:
        """Yield the tree in the order of its paths. An extent's buffer is used again for the next."""
        for found in self._walk.tree(self._root, self.note_problem):
            if found.path in self._companions:
                self._companions.discard(found.path)
                continue
            kept = self._previous.find(found.path, found.status)
            if (linked := self._linked(found)) is not None:
                yield self._plain(linked)
            elif kept is not None:
                self._kept += 1
                self._tally.add(kept.entry)
                yield Stream(kept.entry, iter(_NOTHING), kept=kept)
            elif stat.S_ISREG(found.status.st_mode):
                yield from self._file(found)
            else:
                yield from self._other(found)
        self._finished = True

    def finish(self) -> Captured:
        if not self._finished:
            raise SourceError(f"{self._path} was not read to its end")
        tree = self._tally.facts()
        facts = replace(
            self._facts,
            files=tree.files,
            file_bytes=tree.file_bytes,
            tree_digest=tree.tree_digest,
            engine=self._facts.engine or "files",
            details=self._methods,
        )
        method = f"walked, {self._kept:,} entries unchanged"
        return Captured(facts, method, tuple(self.warnings), tuple(self.problems))

    def _linked(self, found: Found) -> Entry | None:
        """Return the entry of another name for a file that was met before."""
        status = found.status
        if status.st_nlink == 1 or stat.S_ISDIR(status.st_mode):
            return None
        first = self._links.setdefault((status.st_dev, status.st_ino), found.path)
        if first == found.path:
            return None
        entry = entry_of(found, status, old_ns=0, target=first)
        return msgspec.structs.replace(entry, kind="hardlink", size=0)

    def _plain(self, entry: Entry) -> Stream:
        self._tally.add(entry)
        return Stream(entry, iter(_NOTHING))

    def _other(self, found: Found) -> Iterator[Stream]:
        place = place_of(found)
        try:
            target = _target(place) if kind_of(found.status) == "symlink" else None
        except OSError as exc:
            self._lost(found, exc)
            return
        yield self._plain(entry_of(found, found.status, old_ns=self._old_ns, target=target, xattrs=xattrs_of(place)))

    def _file(self, found: Found) -> Iterator[Stream]:
        try:
            with Content(found.name, found.parent) as content:
                whole = content.whole()
                head = content.head(HEAD_BYTES) if whole is None else whole[:HEAD_BYTES]
                if (kind := recognise(self._kinds, head)) is None:
                    yield self._content(found, content, whole)
                    self._note_content(found.path, content)
                    return
                entry = self._entry(found, content)
        except OSError as exc:
            self._lost(found, exc)
            return
        yield from self._database(DatabaseCapture(kind, found, entry, self._path, self._scratch))

    def _lost(self, found: Found, exc: OSError) -> None:
        """Note what could not be read. What has vanished since its directory was listed was not there."""
        self._links.pop((found.status.st_dev, found.status.st_ino), None)
        if not isinstance(exc, FileNotFoundError):
            self.note_problem(found.path, f"cannot be read: {exc.strerror}")

    def _content(self, found: Found, content: Content, data: bytes | None) -> Stream:
        if data is not None:
            entry = self._entry(found, content)
            self._tally.add(entry)
            return Stream(entry, iter((Extent(0, data),) if data else _NOTHING), whole=data)
        return Stream(self._entry(found, content), content.extents(), amended=self._amended(found, content))

    def _amended(self, found: Found, content: Content) -> Callable[[], Entry]:
        def amended() -> Entry:
            entry = self._entry(found, content)
            self._tally.add(entry)
            return entry

        return amended

    def _entry(self, found: Found, content: Content) -> Entry:
        return entry_of(
            found,
            content.status,
            old_ns=0 if content.torn else self._old_ns,
            xattrs=xattrs_of(content.fd),
            digest=content.digest,
            torn=content.torn,
        )

    def _note_content(self, path: bytes, content: Content) -> None:
        if content.error is not None:
            self.note_problem(path, f"only its beginning could be read: {content.error.strerror}")
        elif content.torn:
            self.note_problem(path, "changed each time it was read; what is stored may mix several states of it")

    def _database(self, capture: DatabaseCapture) -> Iterator[Stream]:
        path = capture.entry.path
        self._companions |= capture.companions()
        self._tally.add(capture.entry)
        yield from capture.streams()
        if capture.problem:
            self.problems.append(f"{path}: {capture.problem}")
        if capture.captured is not None:
            self._facts = merged(self._facts, capture.entry.name, capture.captured.facts)
            self._methods[path] = f"{capture.entry.database}: {capture.captured.method}"
            self.warnings += [f"{path}: {warning}" for warning in capture.captured.warnings]
            self.problems += [f"{path}: {problem}" for problem in capture.captured.problems]


def _target(place: str) -> bytes:
    return os.fsencode(os.readlink(place))  # noqa: PTH115  # a Path would tidy up what the link says
