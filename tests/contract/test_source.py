"""Every kind of source keeps the contract of `flybackup.sources`, proved on real ones without a repository."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rigs
from rigs import Rig, stored

from flybackup.errors import ConfigError, RefusedError, SourceError
from flybackup.model import Facts
from flybackup.sources import Refusing, RestoreOptions, Source, Stream

_KINDS = sorted(module.name for module in pkgutil.iter_modules(rigs.__path__) if module.name.endswith("_rig"))
NewScratch = Callable[[], Path]


@pytest.fixture(params=_KINDS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    with importlib.import_module(f"rigs.{request.param}").rig(tmp_path) as made:
        yield made


@pytest.fixture
def new_scratch(tmp_path_factory: pytest.TempPathFactory) -> NewScratch:
    return lambda: tmp_path_factory.mktemp("scratch")


def capture(source: Source, new_scratch: NewScratch) -> tuple[list[Stream], Facts]:
    with source.capture(new_scratch()) as captured:
        return stored(captured), captured.finish().facts


def restore(
    source: Source, target: Source, new_scratch: NewScratch, *, replace: bool = False
) -> tuple[Facts, tuple[str, ...]]:
    streams, facts = capture(source, new_scratch)
    with target.restore(iter(streams), RestoreOptions(replace=replace, facts=facts), new_scratch()) as restoration:
        return restoration.probe(checksums=False), restoration.publish()


def test_what_is_restored_has_the_facts_of_the_capture(rig: Rig, new_scratch: NewScratch) -> None:
    source, target = rig.populated(), rig.fresh_target()
    streams, facts = capture(source, new_scratch)
    with target.restore(iter(streams), RestoreOptions(facts=facts), new_scratch()) as restoration:
        assert restoration.probe(checksums=False).tables == facts.tables
        assert restoration.publish() == ()
    assert len(facts.tables) >= 3
    assert min(table.rows for table in facts.tables.values()) == 0
    assert target.probe(checksums=False, scratch=new_scratch()).tables == facts.tables


def test_what_is_restored_has_the_same_content(rig: Rig, new_scratch: NewScratch) -> None:
    source, target = rig.populated(), rig.fresh_target()
    restore(source, target, new_scratch)
    rig.assert_same(source, target)


def test_checksums_agree_and_tell_contents_apart(rig: Rig, new_scratch: NewScratch) -> None:
    source, target = rig.populated(), rig.fresh_target()
    restore(source, target, new_scratch)
    before = source.probe(checksums=True, scratch=new_scratch()).tables
    assert all(table.checksum for table in before.values())
    assert target.probe(checksums=True, scratch=new_scratch()).tables == before
    rig.change(source)
    assert source.probe(checksums=True, scratch=new_scratch()).tables != before


def test_a_second_capture_sees_what_changed(rig: Rig, new_scratch: NewScratch) -> None:
    source = rig.populated()
    _, before = capture(source, new_scratch)
    rig.change(source)
    _, after = capture(source, new_scratch)
    assert after.tables.keys() == before.tables.keys()
    assert sum(t.rows for t in after.tables.values()) > sum(t.rows for t in before.tables.values())


def test_a_fixed_view_is_of_the_moment_it_was_opened(rig: Rig, new_scratch: NewScratch) -> None:
    """What does not fix its view is free to see the change or not."""
    source = rig.populated()
    _, before = capture(source, new_scratch)
    with source.capture(new_scratch()) as captured:
        rig.change(source)
        stored(captured)
        facts = captured.finish().facts
    assert facts.tables == before.tables or not source.fixes_view


def test_what_can_refuse_beforehand_refuses_what_a_restore_refuses(rig: Rig, new_scratch: NewScratch) -> None:
    target = rig.populated()
    before = rig.left_beside(target)
    if isinstance(target, Refusing):
        with pytest.raises(RefusedError):
            target.refuse(RestoreOptions())
        target.refuse(RestoreOptions(replace=True))
        with rig.in_use(target), pytest.raises(RefusedError):
            target.refuse(RestoreOptions(replace=True))
        fresh = rig.fresh_target()
        assert isinstance(fresh, Refusing)
        fresh.refuse(RestoreOptions())
    assert rig.left_beside(target) == before


def test_an_existing_target_is_refused_before_anything_is_read(rig: Rig, new_scratch: NewScratch) -> None:
    target = rig.populated()
    before = rig.left_beside(target)
    facts = target.probe(checksums=True, scratch=new_scratch())

    unread: Iterator[Stream] = map(pytest.fail, ["the snapshot was read"])
    with pytest.raises(RefusedError), target.restore(unread, RestoreOptions(), new_scratch()):
        pass
    assert rig.left_beside(target) == before
    assert target.probe(checksums=True, scratch=new_scratch()) == facts


def test_a_target_in_use_is_refused_even_with_replace(rig: Rig, new_scratch: NewScratch) -> None:
    streams, facts = capture(rig.populated(), new_scratch)
    target = rig.populated()
    options = RestoreOptions(replace=True, facts=facts)
    with (
        rig.in_use(target),
        pytest.raises(RefusedError),
        target.restore(iter(streams), options, new_scratch()) as restoration,
    ):
        restoration.publish()


def test_replacing_keeps_the_old_one_and_tells_how_to_undo(rig: Rig, new_scratch: NewScratch) -> None:
    source, target = rig.populated(), rig.populated()
    rig.change(target)
    old = target.probe(checksums=False, scratch=new_scratch()).tables
    new, sentences = restore(source, target, new_scratch, replace=True)
    assert target.probe(checksums=False, scratch=new_scratch()).tables == new.tables != old
    rig.undo(sentences)
    assert target.probe(checksums=False, scratch=new_scratch()).tables == old


def test_leaving_without_publishing_removes_everything(rig: Rig, new_scratch: NewScratch) -> None:
    streams, facts = capture(rig.populated(), new_scratch)
    target = rig.fresh_target()
    before = rig.left_beside(target)
    with target.restore(iter(streams), RestoreOptions(facts=facts), new_scratch()) as restoration:
        restoration.probe(checksums=False)
    assert rig.left_beside(target) == before


def test_a_failing_stream_leaves_nothing_behind(rig: Rig, new_scratch: NewScratch) -> None:
    streams, facts = capture(rig.populated(), new_scratch)
    target = rig.fresh_target()
    before = rig.left_beside(target)

    def failing() -> Iterator[Stream]:
        yield streams[0]
        raise SourceError("the store went away")

    options = RestoreOptions(facts=facts)
    with (
        pytest.raises(SourceError, match="the store went away"),
        target.restore(failing(), options, new_scratch()),
    ):
        pass
    assert rig.left_beside(target) == before


def test_what_did_not_verify_can_be_kept(rig: Rig, new_scratch: NewScratch) -> None:
    streams, facts = capture(rig.populated(), new_scratch)
    target = rig.fresh_target()
    before = rig.left_beside(target)
    with target.restore(iter(streams), RestoreOptions(facts=facts), new_scratch()) as restoration:
        where = restoration.keep()
    left = set(rig.left_beside(target)) - set(before)
    assert any(name in where for name in left), (where, left)


def test_one_table_can_be_restored_alone(rig: Rig, new_scratch: NewScratch) -> None:
    streams, facts = capture(rig.populated(), new_scratch)
    target = rig.fresh_target()
    options = RestoreOptions(tables=[rig.one_table], facts=facts)
    with target.restore(iter(streams), options, new_scratch()) as restoration:
        restoration.publish()
    tables = target.probe(checksums=False, scratch=new_scratch()).tables
    assert tables == {rig.one_table: facts.tables[rig.one_table]}


def test_an_unknown_table_is_refused_with_the_names_there_are(rig: Rig, new_scratch: NewScratch) -> None:
    streams, facts = capture(rig.populated(), new_scratch)
    options = RestoreOptions(tables=["no_such_table"], facts=facts)
    with (
        pytest.raises((RefusedError, ConfigError)) as refused,
        rig.fresh_target().restore(iter(streams), options, new_scratch()),
    ):
        pass
    assert rig.one_table in refused.value.hint


def test_what_cannot_be_read_is_a_source_error(rig: Rig, new_scratch: NewScratch) -> None:
    with pytest.raises(SourceError):
        capture(rig.unreadable(), new_scratch)


def test_a_capture_not_read_to_its_end_has_no_facts(rig: Rig, new_scratch: NewScratch) -> None:
    with rig.populated().capture(new_scratch()) as captured:
        streams = captured.streams()
        stream = next(each for each in streams if each.entry.kind in ("file", "dump"))
        assert iter(stream.extents) is stream.extents
        assert len(next(stream.extents).data)
        with pytest.raises(SourceError):
            captured.finish()
