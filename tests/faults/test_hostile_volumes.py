"""A forged manifest must not write outside of the target: names come from the store."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from trees import pictured

from flybackup.app import source_at
from flybackup.chunking import Extent
from flybackup.errors import RefusedError
from flybackup.model import Entry
from flybackup.sources import RestoreOptions, Stream

ROOT = Entry(path=".", kind="directory", mode=0o755)


def file(path: str, raw_path: bytes | None = None) -> Entry:
    return Entry(path=path, kind="file", size=4, mode=0o644, raw_path=raw_path)


def link(path: str, target: bytes) -> Entry:
    return Entry(path=path, kind="symlink", target=target)


def directory(path: str) -> Entry:
    return Entry(path=path, kind="directory", mode=0o755)


def hard(path: str, target: bytes) -> Entry:
    return Entry(path=path, kind="hardlink", target=target)


HOSTILE = {
    "above": [file("../evil")],
    "absolute": [file("/evil")],
    "absolute inside": [file("a"), file("//tmp/evil")],
    "above by detour": [directory("a"), file("a/../../evil")],
    "above in the raw path": [file("harmless", b"../evil")],
    "nothing": [file("")],
    "an empty name": [directory("a"), file("a//b")],
    "itself": [file("./evil")],
    "a zero byte": [file("a\0b")],
    "through a link": [link("a", b".."), file("a/evil")],
    "through a link to a directory": [directory("d"), link("a", b"d"), file("a/evil")],
    "through an absolute link": [link("a", b"/tmp"), file("a/evil")],
    "a link's name again": [link("a", b"../evil"), file("a")],
    "a file's name again": [file("a"), file("a")],
    "below a file": [file("a"), file("a/b")],
    "below nothing": [file("a/b")],
    "a directory twice": [directory("a"), directory("a")],
    "a hard link to above": [hard("a", b"../secret")],
    "a hard link to what is there above": [hard("a", b"../../secret")],
    "a hard link to an absolute path": [hard("a", b"/etc/passwd")],
    "a hard link through a link": [link("a", b".."), hard("b", b"a/secret")],
    "a hard link to nothing": [hard("a", b"missing")],
    "names of a restore under way": [directory(".flybackup-restore-clearing-x")],
    "a fifo in a link": [link("a", b".."), Entry(path="a/evil", kind="fifo")],
    "a link in a link": [link("a", b".."), link("a/evil", b"x")],
    "a device in a link": [link("a", b".."), Entry(path="a/evil", kind="character-device", device=(1, 3))],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_path_that_would_escape_is_refused_and_nothing_is_left(case: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "secret").write_text("not yours")
    before = pictured(tmp_path)

    def streams() -> Iterator[Stream]:
        for entry in [ROOT, *HOSTILE[case]]:
            yield Stream(entry, iter([Extent(0, b"evil")] if entry.size else []))

    target = source_at("volume", str(place / "target"))
    scratch = tmp_path / "scratch"
    with (
        pytest.raises(RefusedError) as refused,
        target.restore(streams(), RestoreOptions(), scratch) as restoration,
    ):
        restoration.publish()
    assert refused.value.hint
    after = pictured(tmp_path)
    assert {path: what[-1] for path, what in after.items()} == {path: what[-1] for path, what in before.items()}


def test_the_same_ways_are_open_to_what_is_honest(tmp_path: Path) -> None:
    honest = [
        ROOT,
        directory("a"),
        file("a/b"),
        hard("a/c", b"a/b"),
        link("a/d", b"../../evil"),
        file("..a"),
        file("a.."),
    ]
    target = source_at("volume", str(tmp_path / "target"))
    streams = (Stream(entry, iter([Extent(0, b"good")] if entry.size else [])) for entry in honest)
    with target.restore(streams, RestoreOptions(), tmp_path) as restoration:
        restoration.publish()
    assert (tmp_path / "target" / "a" / "c").read_text() == "good"
    assert (tmp_path / "target" / "a" / "d").readlink() == Path("../../evil")
