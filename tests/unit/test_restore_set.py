"""All of a set comes back, or nothing of it; what cannot be one step says how far it came."""

import itertools
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any

import pytest
from engine.bytes_source import BytesSource
from engine.faulty_store import Fault, FaultyStore
from engine.simple import CLOCK, SCRATCH, back_up, back_up_set, make_repository

from flybackup.errors import ConfigError, RefusedError, StoreError, VerificationError
from flybackup.model import Snapshot, SnapshotId
from flybackup.operations.restore import RestoreRequest, SetOutcome, Wanted, restore_set
from flybackup.operations.select import newest_first, select_set
from flybackup.repository import Repository
from flybackup.sources import RestoreOptions

NAMES = ("a", "b", "c")
CONTENT = {name: {"db": name.encode() * 30_000} for name in NAMES}


@pytest.fixture
def repository() -> Repository:
    repository = make_repository()
    back_up_set(repository, [BytesSource(dict(CONTENT[name]), name=name) for name in NAMES])
    return repository


def targets(seen: list[str] | None = None) -> list[BytesSource]:
    old = {"db": b"old"}
    return [BytesSource(dict(old), name=name, seen=[] if seen is None else seen) for name in NAMES]


def restored(
    repository: Repository, into: Sequence[BytesSource], *, verify: bool = True, dry_run: bool = False
) -> SetOutcome:
    found = select_set(repository, "a", timezone=UTC)
    assert [snapshot.source for snapshot in found.snapshots] == list(NAMES)
    wanted = [
        Wanted(snapshot, target, RestoreRequest(target.name, SCRATCH, RestoreOptions(), verify=verify, dry_run=dry_run))
        for snapshot, target in zip(found.snapshots, into, strict=True)
    ]
    return restore_set(repository, wanted, clock=CLOCK, watch=lambda _: nullcontext(lambda _: None))


def in_place(into: Sequence[BytesSource]) -> list[str]:
    """Name the targets that hold what was captured; the others hold what they held."""
    new = [target.name for target in into if target.content == CONTENT[target.name]]
    assert all(target.content == {"db": b"old"} for target in into if target.name not in new)
    return new


def test_all_are_verified_before_any_is_published(repository: Repository) -> None:
    seen: list[str] = []
    into = targets(seen)

    outcome = restored(repository, into)

    assert in_place(into) == list(NAMES)
    assert (outcome.error, outcome.exit_code) == (None, 0)
    assert all(report.verified and report.published and not report.error for report in outcome.reports)
    assert [report.source for report in outcome.reports] == list(NAMES)
    assert seen == [
        *("restore a", "probe a", "restore b", "probe b", "restore c", "probe c"),
        *("publish a", "publish b", "publish c", "leave c", "leave b", "leave a"),
    ]


@pytest.mark.parametrize(("bad", "fails_at"), list(itertools.product(range(3), ("restore", "probe"))))
def test_one_that_cannot_be_restored_publishes_none(repository: Repository, bad: int, fails_at: Any) -> None:
    into = targets()
    into[bad].fails_at = fails_at

    outcome = restored(repository, into)

    assert in_place(into) == []
    assert outcome.exit_code == 22
    assert [bool(report.error) for report in outcome.reports] == [number == bad for number in range(3)]
    assert not any(report.published for report in outcome.reports)
    for number, report in enumerate(outcome.reports):
        assert any("removed again" in note for note in report.notes) == (number < bad)
        assert report.verified == (number < bad)
        assert bool(into[number].seen) == (number <= bad)


@pytest.mark.parametrize("bad", range(3))
def test_one_that_does_not_verify_publishes_none_and_is_kept(repository: Repository, bad: int) -> None:
    into = targets()
    into[bad].lost_rows = 5

    outcome = restored(repository, into)

    assert in_place(into) == []
    assert outcome.exit_code == VerificationError.exit_code
    assert [report.differs for report in outcome.reports] == [number == bad for number in range(3)]
    assert any(f"kept at memory of {NAMES[bad]}" in note for note in outcome.reports[bad].notes)
    assert [target.name for target in into if f"keep {target.name}" in target.seen] == [NAMES[bad]]
    assert [target.name for target in into if not target.seen] == list(NAMES[bad + 1 :]), "no hours for nothing"


@pytest.mark.parametrize("bad", range(3))
def test_publishing_that_fails_half_way_says_what_is_in_place_and_keeps_the_rest(
    repository: Repository, bad: int
) -> None:
    into = targets()
    into[bad].fails_at = "publish"

    outcome = restored(repository, into)

    assert in_place(into) == list(NAMES[:bad])
    assert [report.source for report in outcome.reports if report.published] == list(NAMES[:bad])
    assert outcome.exit_code == 22
    assert "cannot publish" in outcome.reports[bad].error
    for number, (target, report) in enumerate(zip(into, outcome.reports, strict=True)):
        kept = f"keep {target.name}" in target.seen
        assert kept == (number >= bad > 0), "what was restored is wanted when half of the set is in place"
        assert any("kept at" in note for note in report.notes) == kept
        assert any("To undo" in note for note in report.notes) == report.published


def test_what_cannot_be_kept_either_is_told(repository: Repository) -> None:
    into = targets()
    into[1].fails_at = "publish"

    @dataclass
    class Lost(BytesSource):
        def step(self, what: str) -> None:
            super().step(what)
            if what == "keep":
                raise RefusedError("no room")

    into[2] = Lost({"db": b"old"}, name="c")

    outcome = restored(repository, into)

    assert "could not be kept: no room" in outcome.reports[2].notes[-1]


class StopHereError(BaseException):
    """Stands for a signal."""


def test_a_stop_while_publishing_logs_what_is_in_place(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    @dataclass
    class Stopping(BytesSource):
        def step(self, what: str) -> None:
            super().step(what)
            if what == "publish":
                raise StopHereError

    logging.getLogger("flybackup").propagate = True
    into = targets()
    into[1] = Stopping({"db": b"old"}, name="b")

    with pytest.raises(StopHereError):
        restored(repository, into)

    assert in_place(into) == ["a"]
    (told,) = [record for record in caplog.records if record.getMessage() == "restore.half_done"]
    assert vars(told)["in_place"] == {"a": ["To undo: a"]}
    assert vars(told)["not_in_place"] == ["b", "c"]
    assert all("leave" in step for target in into for step in target.seen[-1:])


def test_what_speaks_against_any_target_is_told_before_anything_is_read(repository: Repository) -> None:
    @dataclass
    class Taken(BytesSource):
        def refuse(self, options: RestoreOptions) -> None:
            assert options.facts.tables
            raise RefusedError(f"{self.name} is taken", hint="Say --replace.")

    into = targets()
    into[1], into[2] = Taken({"db": b"old"}, name="b"), Taken({"db": b"old"}, name="c")

    with pytest.raises(RefusedError, match=r"nothing was restored: b is taken; c is taken") as caught:
        restored(repository, into)

    assert caught.value.hint == "Say --replace."
    assert [target.seen for target in into] == [[], [], []]
    assert restored(repository, into, dry_run=True).exit_code == 0


def test_unverified_and_rehearsed(repository: Repository) -> None:
    into = targets()
    rehearsed = restored(repository, into, dry_run=True)
    assert in_place(into) == []
    assert not any(report.published or report.verified for report in rehearsed.reports)

    unverified = restored(repository, into, verify=False)
    assert in_place(into) == list(NAMES)
    assert all(report.published and not report.verified for report in unverified.reports)


def restore_calls(repository: Repository) -> int:
    counting = FaultyStore(repository.store)
    restored(repository.with_store(counting), targets())
    return counting.calls


def test_a_store_that_fails_at_any_call_publishes_none(repository: Repository) -> None:
    calls = restore_calls(repository)
    assert calls > 6
    for call in range(calls):
        into = targets()
        store = FaultyStore(repository.store, Fault(call, "before"))
        try:
            outcome = restored(repository.with_store(store), into)
        except StoreError:
            pass  # before the first was begun
        else:
            assert outcome.exit_code == StoreError.exit_code
        assert store.reached
        assert in_place(into) == []


# Which set is meant


def heads(repository: Repository) -> dict[str, Snapshot]:
    return {snapshot.source: snapshot for snapshot in repository.snapshots()}


def test_a_set_is_named_by_its_id_or_by_any_of_its_snapshots(repository: Repository) -> None:
    first = heads(repository)
    set_id = first["a"].set_id
    assert set_id is not None
    back_up_set(repository, [BytesSource(dict(CONTENT[name]), name=name) for name in NAMES])

    time = first["b"].time.isoformat()
    for what in (set_id, set_id[:9], set_id[:9].upper(), first["c"].id, first["a"].id[:9], f"b@{time}"):
        found = select_set(repository, what, timezone=UTC)
        assert found.id == set_id, what
        assert found.snapshots == tuple(first[name] for name in NAMES)
        assert found.missing == ()
    assert select_set(repository, "b", timezone=UTC).id != set_id
    assert len(list(newest_first(repository, set_id=set_id[:9]))) == 3


def test_a_set_says_which_of_its_sources_it_lacks() -> None:
    repository = make_repository()
    bad = BytesSource({}, name="bad", fails_at="open")
    back_up_set(repository, [bad, BytesSource({"f": b"x"}, name="good"), BytesSource({"f": b"x"}, name="also")])

    found = select_set(repository, "good", timezone=UTC)

    assert [each.source for each in found.snapshots] == ["good", "also"]
    assert found.missing == ("bad",)


@pytest.mark.parametrize("what", ["", "nothing-like-it", "alone"])
def test_what_is_no_set_is_refused(repository: Repository, what: str) -> None:
    back_up(repository, BytesSource({"f": b"x"}), "alone")

    with pytest.raises(ConfigError) as caught:
        select_set(repository, what, timezone=UTC)
    assert caught.value.hint


def test_a_prefix_of_two_sets_is_refused(repository: Repository) -> None:
    for number, set_id in enumerate(("feed000000000001", "feed000000000002")):
        head = heads(repository)["a"]
        repository.put_snapshot(replace(head, id=SnapshotId(f"{number:016x}"), set_id=set_id))

    with pytest.raises(ConfigError, match="2 sets or snapshots begin with 'feed'"):
        select_set(repository, "feed", timezone=UTC)


def test_a_source_is_preferred_to_the_beginning_of_an_id(repository: Repository) -> None:
    head = heads(repository)["a"]
    repository.put_snapshot(replace(head, source="fee", set_id="1" * 16))
    repository.put_snapshot(replace(head, id=SnapshotId("0" * 16), set_id="feed000000000002"))

    assert select_set(repository, "fee", timezone=UTC).id == "1" * 16


def test_a_rotten_head_of_another_set_stands_before_nothing(repository: Repository) -> None:
    set_id = heads(repository)["a"].set_id
    assert set_id is not None
    back_up(repository, BytesSource({"f": b"x"}), "other")
    (key,) = repository.snapshot_keys("other")
    repository.store.put(key, b"rot")

    assert len(select_set(repository, set_id, timezone=UTC).snapshots) == 3
