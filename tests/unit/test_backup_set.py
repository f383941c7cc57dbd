"""Several sources in one run: close together, one lost without the others, each said to belong to the set."""

import gc
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from engine.bytes_source import BytesSource
from engine.faulty_store import Fault, FaultyStore
from engine.simple import back_up, back_up_set, make_repository, restored

from flybackup.errors import FlybackupError, SourceError, StoreError
from flybackup.manifest import Kept
from flybackup.model import Snapshot, apart_seconds
from flybackup.operations.backup import Failure, Outcome
from flybackup.session import Session
from flybackup.stores.memory import MemoryStore


def source(name: str, *, fixes_view: bool = False, seen: list[str] | None = None) -> BytesSource:
    content = {"db": name.encode() * 30_000}
    return BytesSource(content, fixes_view=fixes_view, name=name, seen=[] if seen is None else seen)


def snapshots(outcomes: Iterable[Outcome]) -> list[Snapshot]:
    return [each for each in outcomes if isinstance(each, Snapshot)]


def failures(outcomes: Iterable[Outcome]) -> dict[str, FlybackupError]:
    return {each.source: each.error for each in outcomes if isinstance(each, Failure)}


def test_fixed_views_are_opened_first_and_read_last_and_all_are_let_go_as_soon_as_they_were_read() -> None:
    seen: list[str] = []
    kinds = {"a": True, "b": False, "c": True, "d": False}
    sources = [source(name, fixes_view=fixed, seen=seen) for name, fixed in kinds.items()]

    outcomes = back_up_set(make_repository(), sources)

    assert [snapshot.source for snapshot in snapshots(outcomes)] == ["a", "b", "c", "d"]
    assert seen == [
        *("open a", "open c"),
        *("open b", "stream b", "finish b", "close b"),
        *("open d", "stream d", "finish d", "close d"),
        *("stream a", "finish a", "close a"),
        *("stream c", "finish c", "close c"),
    ]


def test_a_set_has_one_id_and_names_its_sources() -> None:
    first, second = snapshots(back_up_set(make_repository(), [source("a"), source("b")]))

    assert first.set_id is not None
    assert re.fullmatch("[0-9a-f]{16}", first.set_id)
    assert first.set_id == second.set_id
    assert first.set_sources == second.set_sources == ("a", "b")
    assert first.session != second.session


def test_a_source_alone_is_no_set() -> None:
    alone = back_up(make_repository(), source("a"))

    assert (alone.set_id, alone.set_sources) == (None, ())


def test_a_view_that_was_fixed_early_is_what_is_stored() -> None:
    repository = make_repository()
    fixed = source("fixed", fixes_view=True)
    before = dict(fixed.content)

    @dataclass
    class Changing(BytesSource):
        def step(self, what: str) -> None:
            super().step(what)
            fixed.content["db"] = b"written while the other was read"

    back_up_set(repository, [fixed, Changing({"f": b"x"}, name="files")])

    assert restored(repository, "fixed") == before


class StandingClock:
    """Moves only when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return datetime(2026, 11, 20, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass
class Slow(BytesSource):
    """Takes a second to open, ten to stream."""

    clock: StandingClock | None = None

    def step(self, what: str) -> None:
        super().step(what)
        assert self.clock is not None
        self.clock.seconds += {"open": 1, "stream": 10}.get(what, 0)


def test_how_far_apart_the_views_are_and_when_they_were_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that was fixed long before its session began is not younger for that."""
    clock = StandingClock()
    monkeypatch.setattr("engine.simple.CLOCK", clock)
    repository = make_repository(MemoryStore(clock))
    begun = clock.now()
    fixed = Slow({"db": b"x"}, fixes_view=True, name="fixed", clock=clock)
    files = Slow({"db": b"y"}, name="files", clock=clock)

    first, second = snapshots(back_up_set(repository, [fixed, files]))

    assert [each.viewed for each in (first, second)] == [(0.0, 1.0), (1.0, 12.0)]
    assert apart_seconds([first, second]) == 12
    assert first.time == begun
    assert second.time == begun + timedelta(seconds=1)


@pytest.mark.parametrize("fixes_view", [False, True])
@pytest.mark.parametrize("fails_at", ["open", "stream", "finish", "close"])
def test_one_that_fails_does_not_lose_the_others(fails_at: str, fixes_view: bool) -> None:
    repository = make_repository()
    bad = source("bad", fixes_view=fixes_view)
    bad.fails_at = fails_at  # type: ignore[assignment]  # one of the steps
    sources = [source("a", fixes_view=True), bad, source("c")]

    outcomes = back_up_set(repository, sources)

    assert failures(outcomes).keys() == {"bad"}
    assert isinstance(failures(outcomes)["bad"], SourceError)
    assert [each.source for each in snapshots(outcomes)] == ["a", "c"]
    assert sorted(each.source for each in repository.snapshots()) == ["a", "c"]
    assert snapshots(outcomes)[0].set_sources == ("a", "bad", "c")
    assert all(restored(repository, each.name) == each.content for each in sources if each is not bad)
    for each in sources:
        assert sum(step.startswith("open") for step in each.seen) == 1
        if fails_at != "open" or each is not bad:
            assert sum(step.startswith("close") for step in each.seen) == 1


def test_when_the_store_is_gone_the_rest_is_not_tried_and_everything_is_closed() -> None:
    repository = make_repository()
    sources = [source("a", fixes_view=True), source("b"), source("c")]
    counting = FaultyStore(repository.store)
    back_up(repository.with_store(counting), source("b"), "b")
    store = FaultyStore(repository.store, Fault(counting.calls + 1, "before"))

    outcomes = back_up_set(repository.with_store(store), sources)

    assert [each.source for each in snapshots(outcomes)] == ["b"]
    assert all(isinstance(error, StoreError) for error in failures(outcomes).values())
    assert "not tried" in str(failures(outcomes)["a"])
    assert sources[0].seen == ["open a", "close a"]
    assert restored(repository, "b") == sources[1].content


class StopHereError(BaseException):
    """Stands for a signal."""


def test_a_stop_in_the_middle_keeps_what_is_committed_and_closes_what_is_open() -> None:
    repository = make_repository()

    @dataclass
    class Stopping(BytesSource):
        def step(self, what: str) -> None:
            super().step(what)
            if what == "stream":
                raise StopHereError

    sources = [source("fixed", fixes_view=True), source("done"), Stopping({"f": b"x"}, name="stopped")]

    with pytest.raises(StopHereError):
        back_up_set(repository, sources)

    assert [each.source for each in repository.snapshots()] == ["done"]
    assert all(any(step.startswith("close") for step in each.seen) for each in sources)


def test_one_session_is_in_memory_at_a_time_also_after_a_failure() -> None:
    alive: list[int] = []

    @dataclass
    class Counting(BytesSource):
        def step(self, what: str) -> None:
            if what == "stream":
                gc.collect()
                alive.append(sum(isinstance(each, Session) for each in gc.get_objects()))
            super().step(what)

    sources = [Counting({"f": b"x"}, name=name) for name in "abc"]
    sources[0].fails_at = "finish"
    back_up_set(make_repository(), sources)

    assert alive == [1, 1, 1]


def test_the_previous_snapshot_is_offered_also_to_a_view_that_was_opened_early() -> None:
    repository = make_repository()
    offered: dict[str, list[str]] = {}

    class Asking(BytesSource):
        def kept(self, previous: Iterable[Kept]) -> None:
            offered[self.name] = [kept.entry.path for kept in previous]

    both = [Asking({"f": b"x"}, name="a", fixes_view=True), Asking({"g": b"y"}, name="b")]
    back_up_set(repository, both)
    assert offered == {"a": [], "b": []}
    back_up_set(repository, both)
    assert offered == {"a": ["f"], "b": ["g"]}


# What was lost


def test_a_snapshot_that_lost_rows_is_kept_and_marked(caplog: pytest.LogCaptureFixture) -> None:
    repository = make_repository()
    logging.getLogger("flybackup").propagate = True
    before = back_up(repository, BytesSource({"matches": b"x" * 4711, "players": b"y" * 9}))
    marked = back_up(repository, BytesSource({"matches": b"x" * 12}))
    after = back_up(repository, BytesSource({"matches": b"x" * 12}))

    assert before.anomalies == after.anomalies == ()
    assert marked.anomalies == (
        "main.players: the table is gone, 9 rows before",
        "main.matches: 12 rows, 4,711 before",
    )
    assert marked.status == "complete"
    assert [each.anomalies for each in repository.snapshots("app")] == [(), marked.anomalies, ()]
    (told,) = [record for record in caplog.records if record.getMessage() == "backup.anomaly"]
    assert (told.levelname, vars(told)["subject"], vars(told)["snapshot"]) == ("WARNING", "app", marked.id)
    assert vars(told)["what"] == list(marked.anomalies)


def test_a_source_of_another_kind_is_not_compared() -> None:
    repository = make_repository()
    back_up(repository, BytesSource({"matches": b"x" * 4711}, kind="bytes"))

    assert back_up(repository, BytesSource({"other": b"x"}, kind="other bytes")).anomalies == ()
    assert back_up(repository, BytesSource({}, kind="third")).anomalies == ("empty: not one byte of data",)


def test_a_damaged_head_does_not_hide_what_was_lost() -> None:
    repository = make_repository()
    back_up(repository, BytesSource({"matches": b"x" * 100}))
    damaged = back_up(repository, BytesSource({"matches": b"x" * 100}))
    key = repository.snapshot_key("app", damaged.time, damaged.id)
    repository.store.put(key, b"rot")

    assert back_up(repository, BytesSource({"matches": b"x"})).anomalies == ("main.matches: 1 row, 100 before",)


def test_a_partial_snapshot_says_what_is_missing_and_is_compared_as_any_other() -> None:
    repository = make_repository()
    back_up(repository, BytesSource({"a": b"x" * 100}, problems=("b: permission denied",)))
    snapshot = back_up(repository, BytesSource({"a": b"x"}, problems=("b: permission denied",)))

    assert (snapshot.status, snapshot.problems) == ("partial", ("b: permission denied",))
    assert snapshot.anomalies == ("main.a: 1 row, 100 before",)
