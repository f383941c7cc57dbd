"""What is kept and why: what holds for every policy and history, then tables."""

import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from zoneinfo import ZoneInfo

import pytest
from engine.dated import head
from hypothesis import HealthCheck, given, settings, strategies as st

from flybackup.model import Snapshot, SnapshotId
from flybackup.retention import FUTURE, HOLD, RetentionPolicy, Verdict, judge

START = datetime(2025, 12, 20, tzinfo=UTC)
END = datetime(2027, 2, 1, tzinfo=UTC)
LATER = datetime(2027, 3, 1, tzinfo=UTC)
ZONES = ["UTC", "America/Los_Angeles", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia"]
COUNTS = ("keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")
PERIODS: dict[str, Callable[[datetime], Hashable]] = {
    "keep_hourly": lambda local: (local.date(), local.hour, local.utcoffset()),
    "keep_daily": lambda local: local.date(),
    "keep_weekly": lambda local: local.strftime("%G %V"),
    "keep_monthly": lambda local: local.strftime("%Y %m"),
    "keep_yearly": lambda local: local.year,
}

# Quarters of an hour: anywhere in fourteen months, or crowded around the hours in which Los Angeles sets its clocks.
QUARTER = timedelta(minutes=15)
times = st.one_of(
    st.integers(0, (END - START) // QUARTER).map(lambda quarters: START + quarters * QUARTER),
    st.integers(0, 16).map(lambda quarters: datetime(2026, 3, 8, 8, tzinfo=UTC) + quarters * QUARTER),
    st.integers(0, 16).map(lambda quarters: datetime(2026, 11, 1, 7, tzinfo=UTC) + quarters * QUARTER),
)
TIME = datetime(2026, 1, 1, tzinfo=UTC)
SHAPES = [
    *[head(0, TIME)] * 3,
    head(0, TIME, status="partial"),
    head(0, TIME, tags=["pre-deploy"]),
    head(0, TIME, tags=["nightly", "pre-deploy"]),
    head(0, TIME, tags=[HOLD]),
    head(0, TIME, anomalies=["table lost"]),
    head(0, TIME, anomalies=["table lost"], tags=["nightly"]),
    head(0, TIME, status="partial", anomalies=["table lost"]),
    head(0, TIME, status="partial", tags=["nightly", HOLD]),
]
dated = st.lists(st.tuples(times, st.sampled_from(SHAPES)), max_size=20)


def histories() -> st.SearchStrategy[list[Snapshot]]:
    return dated.map(
        lambda drawn: [
            replace(shape, id=SnapshotId(f"{number:016x}"), time=time) for number, (time, shape) in enumerate(drawn)
        ]
    )


policies = st.builds(
    RetentionPolicy,
    **{name: st.one_of(st.none(), st.integers(0, 5)) for name in COUNTS},
    keep_within=st.one_of(st.none(), st.timedeltas(timedelta(seconds=1), timedelta(days=200))),
    keep_tags=st.dictionaries(st.sampled_from(["pre-deploy", "nightly", "no-such-tag"]), st.integers(0, 4)),
)
zones = st.sampled_from(ZONES).map(ZoneInfo)
some_ids = st.sets(st.integers(0, 24).map(lambda number: SnapshotId(f"{number:016x}")))


unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Machines that test are busy."""


def kept(verdicts: Iterable[Verdict]) -> set[str]:
    return {each.snapshot.id for each in verdicts if each.keep}


def complete(snapshots: Iterable[Snapshot]) -> list[Snapshot]:
    """Newest first."""
    return sorted((each for each in snapshots if each.status == "complete"), key=moment, reverse=True)


def moment(snapshot: Snapshot) -> tuple[datetime, str]:
    return snapshot.time, snapshot.id


@unhurried
@given(histories(), policies, zones, some_ids)
def test_no_policy_crosses_a_floor(
    history: list[Snapshot], policy: RetentionPolicy, zone: ZoneInfo, verified: set[SnapshotId]
) -> None:
    stay = kept(judge(history, policy, zone=zone, now=LATER, verified=verified))
    newest_first = complete(history)
    good = [each for each in newest_first if not each.anomalies]
    floors = [
        *(each for each in history if HOLD in each.tags),
        *newest_first[:1],
        *good[:1],
        *[each for each in newest_first if each.id in verified][:1],
    ]
    for marked in (each for each in history if each.anomalies):
        floors += [each for each in good if moment(each) < moment(marked)][:1]
    assert {each.id for each in floors} <= stay
    assert bool(stay) == bool(history)


@unhurried
@given(histories(), policies, zones, some_ids, st.data())
def test_removing_any_part_of_what_may_go_changes_no_verdict(
    history: list[Snapshot], policy: RetentionPolicy, zone: ZoneInfo, verified: set[SnapshotId], data: st.DataObject
) -> None:
    verdicts = judge(history, policy, zone=zone, now=LATER, verified=verified)
    may_go = [each.snapshot.id for each in verdicts if not each.keep]
    gone = data.draw(st.sets(st.sampled_from(may_go))) if may_go else set()
    rest = [each for each in verdicts if each.snapshot.id not in gone]
    again = judge((each.snapshot for each in rest), policy, zone=zone, now=LATER, verified=verified)
    assert list(again) == rest


@unhurried
@given(histories(), policies, zones, st.sampled_from(COUNTS), st.integers(1, 5))
def test_a_more_generous_policy_keeps_all_that_and_perhaps_more(
    history: list[Snapshot], policy: RetentionPolicy, zone: ZoneInfo, rule: str, more: int
) -> None:
    count = {rule: (getattr(policy, rule) or 0) + more}
    longer = {"keep_within": (policy.keep_within or timedelta()) + timedelta(days=more)}
    tagged = {"keep_tags": {**policy.keep_tags, "nightly": policy.keep_tags.get("nightly", 0) + more}}
    least = kept(judge(history, policy, zone=zone, now=LATER))
    for change in (count, longer, tagged):
        assert least <= kept(judge(history, replace(policy, **change), zone=zone, now=LATER))


@unhurried
@given(histories(), policies, zones, st.randoms())
def test_the_order_of_what_comes_in_does_not_matter(
    history: list[Snapshot], policy: RetentionPolicy, zone: ZoneInfo, rng: random.Random
) -> None:
    shuffled = rng.sample(history, len(history))
    verdicts = judge(shuffled, policy, zone=zone, now=LATER)
    assert verdicts == judge(history, policy, zone=zone, now=LATER)
    assert [each.snapshot for each in verdicts] == sorted(history, key=moment, reverse=True)


@unhurried
@given(histories(), policies, zones)
def test_what_is_kept_is_bounded(history: list[Snapshot], policy: RetentionPolicy, zone: ZoneInfo) -> None:
    verdicts = judge(history, policy, zone=zone, now=LATER)
    ordered = complete(history)
    counted = sum(getattr(policy, name) or 0 for name in COUNTS) + sum(policy.keep_tags.values())
    inside = [e for e in history if policy.keep_within and ordered and ordered[0].time - e.time <= policy.keep_within]
    pinned = [each for each in verdicts if {"held", "before an anomaly", "anomaly"} & set(each.reasons)]
    waiting = [each for each in verdicts if "partial, none complete since" in each.reasons]
    assert len(kept(verdicts)) <= counted + len(inside) + len(pinned) + len(waiting) + 1
    shown = sum("anomaly" in each.reasons for each in verdicts)
    assert shown == sum("before an anomaly" in each.reasons for each in verdicts)
    assert shown <= sum(bool(each.anomalies) for each in history)


@unhurried
@given(histories(), policies, zones, st.sampled_from(list(PERIODS)))
def test_the_newest_of_each_of_the_newest_periods_is_kept(
    history: list[Snapshot], policy: RetentionPolicy, zone: ZoneInfo, rule: str
) -> None:
    stay = kept(judge(history, policy, zone=zone, now=LATER))
    by_period = groupby(complete(history), key=lambda each: PERIODS[rule](each.time.astimezone(zone)))
    newest = [next(group).id for _, group in by_period]
    assert set(newest[: getattr(policy, rule) or 0]) <= stay


@unhurried
@given(histories(), policies, zones, st.timedeltas(timedelta(0), timedelta(days=10_000)))
def test_time_that_passes_removes_nothing(
    history: list[Snapshot], policy: RetentionPolicy, zone: ZoneInfo, pause: timedelta
) -> None:
    assert judge(history, policy, zone=zone, now=LATER) == judge(history, policy, zone=zone, now=LATER + pause)


@unhurried
@given(histories(), policies, zones, st.lists(st.timedeltas(timedelta(minutes=6), timedelta(days=9000)), min_size=1))
def test_a_snapshot_dated_in_the_future_changes_nothing_for_the_others(
    history: list[Snapshot], policy: RetentionPolicy, zone: ZoneInfo, ahead: list[timedelta]
) -> None:
    future = [head(100 + at, LATER + delta, anomalies=("lost",)) for at, delta in enumerate(ahead)]
    verdicts = judge(history + future, policy, zone=zone, now=LATER, verified=[each.id for each in future])
    assert [each for each in verdicts if each.snapshot in future] == list(verdicts[: len(future)])
    assert {each.reasons for each in verdicts[: len(future)]} == {(FUTURE,)}
    assert verdicts[len(future) :] == judge(history, policy, zone=zone, now=LATER)


@unhurried
@given(histories(), policies, zones, times)
def test_a_partial_snapshot_pushes_nothing_out(
    history: list[Snapshot], policy: RetentionPolicy, zone: ZoneInfo, time: datetime
) -> None:
    partial = head(100, time, status="partial", tags=["nightly", "pre-deploy"])
    verdicts = judge([*history, partial], policy, zone=zone, now=LATER)
    assert [each for each in verdicts if each.snapshot != partial] == list(judge(history, policy, zone=zone, now=LATER))


@unhurried
@given(histories(), zones)
def test_without_a_policy_everything_stays(history: list[Snapshot], zone: ZoneInfo) -> None:
    verdicts = judge(history, None, zone=zone, now=LATER)
    assert len(kept(verdicts)) == len(history)
    assert all(each.reasons == ("no policy",) for each in verdicts)


# Tables


def daily(count: int, *, first: datetime = datetime(2026, 5, 1, 3, tzinfo=UTC)) -> list[Snapshot]:
    """One a day, oldest first."""
    return [head(number, first + timedelta(days=number)) for number in range(count)]


def reasons(snapshots: Sequence[Snapshot], policy: RetentionPolicy, **more: object) -> list[str]:
    """What is said of each, newest first."""
    given = {"zone": UTC, "now": LATER, **more}
    return [", ".join(each.reasons) for each in judge(snapshots, policy, **given)]  # type: ignore[arg-type]


def test_a_person_reads_why() -> None:
    history = [replace(each, tags=("pre-deploy",) if number in {0, 4} else ()) for number, each in enumerate(daily(6))]
    policy = RetentionPolicy(keep_last=1, keep_within=timedelta(days=1), keep_weekly=2, keep_tags={"pre-deploy": 10})
    assert reasons(history, policy, verified={history[2].id, history[1].id}) == [
        "newest good, last 1 of 1, within 1d, weekly 1 of 2",
        "within 1d, tag pre-deploy 1 of 10",
        "",
        "last verified, weekly 2 of 2",
        "",
        "tag pre-deploy 2 of 10",
    ]


def test_all_counts_are_off_and_the_newest_good_one_stays() -> None:
    assert reasons(daily(3), RetentionPolicy(keep_last=0)) == ["newest good", "", ""]


def test_days_without_a_snapshot_do_not_count() -> None:
    before, after = daily(3), head(99, datetime(2026, 9, 1, tzinfo=UTC))
    assert reasons([*before, after], RetentionPolicy(keep_daily=3)) == [
        "newest good, daily 1 of 3",
        "daily 2 of 3",
        "daily 3 of 3",
        "",
    ]


def test_an_interval_ends_at_the_newest_complete_one() -> None:
    history = daily(5)
    history.append(head(99, history[-1].time + timedelta(days=1), status="partial"))
    assert reasons(history, RetentionPolicy(keep_within=timedelta(days=2))) == [
        "partial, none complete since, within 2d",
        "newest good, within 2d",
        "within 2d",
        "within 2d",
        "",
        "",
    ]


def test_partial_ones_stay_while_none_complete_is_newer() -> None:
    first, second, third = daily(3)
    second, third = replace(second, status="partial"), replace(third, status="partial")
    policy = RetentionPolicy(keep_last=5)
    waiting = "partial, none complete since"
    assert reasons([second, third], policy) == [waiting, waiting]
    assert reasons([first, second, third], policy) == [waiting, waiting, "newest good, last 1 of 5"]
    fourth = head(99, third.time + timedelta(days=1))
    held = replace(second, tags=(HOLD,))
    assert reasons([first, held, third, fourth], policy) == [
        "newest good, last 1 of 5",
        "",
        "held",
        "last 2 of 5",
    ]


def test_a_tagged_snapshot_counts_for_the_other_rules_too() -> None:
    history = [replace(each, tags=("pre-deploy",)) for each in daily(2)]
    assert reasons(history, RetentionPolicy(keep_daily=1, keep_tags={"pre-deploy": 1})) == [
        "newest good, daily 1 of 1, tag pre-deploy 1 of 1",
        "",
    ]


def marked(history: list[Snapshot], *numbers: int) -> list[Snapshot]:
    return [replace(each, anomalies=("lost",)) if at in numbers else each for at, each in enumerate(history)]


def test_the_last_good_one_before_an_anomaly_stays_with_what_shows_it() -> None:
    policy = RetentionPolicy(keep_last=1)
    assert reasons(marked(daily(7), 2, 3, 5), policy) == [
        "newest good, last 1 of 1",
        "anomaly",
        "before an anomaly",
        "",
        "anomaly",
        "before an anomaly",
        "",
    ]


def test_the_newest_one_with_an_anomaly_is_not_called_good() -> None:
    assert reasons(marked(daily(3), 2), RetentionPolicy(keep_last=0)) == ["newest, anomaly", "before an anomaly", ""]


def test_an_anomaly_that_nothing_precedes_protects_nothing() -> None:
    assert reasons(marked(daily(3), 0), RetentionPolicy(keep_last=1)) == ["newest good, last 1 of 1", "", ""]


def test_a_partial_one_shows_an_anomaly_too() -> None:
    history = marked(daily(4), 2)
    history[2] = replace(history[2], status="partial")
    assert reasons(history, RetentionPolicy(keep_last=1)) == [
        "newest good, last 1 of 1",
        "anomaly",
        "before an anomaly",
        "",
    ]


def test_clocks_that_differ_by_minutes_are_no_future() -> None:
    history = daily(2)
    now = history[-1].time - timedelta(minutes=2)
    assert reasons(history, RetentionPolicy(keep_last=1), now=now) == ["newest good, last 1 of 1", ""]
    now = history[-1].time - timedelta(minutes=10)
    assert reasons(history, RetentionPolicy(keep_last=1), now=now) == [FUTURE, "newest good, last 1 of 1"]


def test_two_of_the_same_moment_are_two() -> None:
    time = datetime(2026, 5, 1, tzinfo=UTC)
    assert reasons([head(1, time), head(2, time)], RetentionPolicy(keep_last=2)) == [
        "newest good, last 1 of 2",
        "last 2 of 2",
    ]


# The days on which clocks are set


def hourly(zone: str, day: datetime) -> list[Snapshot]:
    """One every hour of a local day."""
    begin = day.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    end = (day + timedelta(days=1)).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    return [head(number, begin + timedelta(hours=number)) for number in range((end - begin) // timedelta(hours=1))]


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("America/Los_Angeles", datetime(2026, 3, 8), 23),  # noqa: DTZ001  local, as the zone's clocks show it
        ("America/Los_Angeles", datetime(2026, 11, 1), 25),  # noqa: DTZ001
        ("Europe/Berlin", datetime(2026, 3, 29), 23),  # noqa: DTZ001
        ("Europe/Berlin", datetime(2026, 10, 25), 25),  # noqa: DTZ001
    ],
)
def test_a_day_of_23_or_25_hours_is_one_day_and_so_many_hours(zone: str, day: datetime, hours: int) -> None:
    history = hourly(zone, day)
    assert len(history) == hours
    every = judge(history, RetentionPolicy(keep_hourly=30), zone=ZoneInfo(zone), now=LATER)
    assert [each.reasons[-1] for each in every] == [f"hourly {number + 1} of 30" for number in range(hours)]
    one = judge(history, RetentionPolicy(keep_daily=30), zone=ZoneInfo(zone), now=LATER)
    assert kept(one) == {history[-1].id}


def test_days_are_those_of_the_zone() -> None:
    evening = datetime(2026, 6, 1, 23, tzinfo=ZoneInfo("America/Los_Angeles"))
    history = [head(number, evening + timedelta(hours=2 * number)) for number in range(2)]
    assert len(kept(judge(history, RetentionPolicy(keep_daily=9), zone=UTC, now=LATER))) == 1
    assert len(kept(judge(history, RetentionPolicy(keep_daily=9), zone=evening.tzinfo or UTC, now=LATER))) == 2


def test_the_same_month_of_another_year_is_another() -> None:
    history = [head(year, datetime(year, 1, 5, tzinfo=UTC)) for year in (2025, 2026)]
    assert reasons(history, RetentionPolicy(keep_monthly=2)) == ["newest good, monthly 1 of 2", "monthly 2 of 2"]


def test_the_first_days_of_january_are_in_the_week_before() -> None:
    days = [datetime(2026, 12, 31, tzinfo=UTC), datetime(2027, 1, 2, tzinfo=UTC), datetime(2027, 1, 4, tzinfo=UTC)]
    history = [head(number, day) for number, day in enumerate(days)]
    assert reasons(history, RetentionPolicy(keep_weekly=9, keep_yearly=9)) == [
        "newest good, weekly 1 of 9, yearly 1 of 9",
        "weekly 2 of 9",
        "yearly 2 of 9",
    ]


def test_every_rule_of_the_policy_is_judged() -> None:
    """A rule that is configured and has no effect would be found when it is too late."""
    history = daily(800)
    nothing = kept(judge(history, RetentionPolicy(), zone=UTC, now=END + timedelta(days=900)))
    for rule in fields(RetentionPolicy):
        value = {"keep_within": timedelta(days=3), "keep_tags": {"t": 2}}.get(rule.name, 3)
        tagged = [replace(each, tags=("t",)) for each in history]
        policy = RetentionPolicy(**{rule.name: value})  # type: ignore[arg-type]
        assert kept(judge(tagged, policy, zone=UTC, now=END + timedelta(days=900))) > nothing, rule.name
