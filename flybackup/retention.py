"""Which snapshots are kept, and why. Pure: the snapshots of one source and a policy in, a verdict for each out.

- Only complete snapshots count. A partial one is kept while none that is complete is newer, and pushes none out.
- Rules are independent of each other: each keeps what it keeps, and what none keeps may go. So a rule added, or a
  larger number, never costs a snapshot.
- Hours, days, weeks, months and years are those of the calendar in a time zone, and only those with a snapshot count:
  after a pause the days before it still are the newest days.
- Nothing is measured from today. An interval ends at the newest complete snapshot: time that passes removes nothing.
- Removing what may go, or any part of it, changes no verdict on the rest. So a run that was killed in the middle is
  simply continued by the next one, and two runs at once agree.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from itertools import takewhile
from typing import NamedTuple

from flybackup.model import Snapshot, SnapshotId

HOLD = "hold"
"""The tag that no policy removes."""

FUTURE = "dated in the future"

_CLOCKS_DIFFER = timedelta(minutes=5)
"""The clocks of a store's servers, and this machine's in a dry run, differ a little: that is no future yet."""

_UNITS = (("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """How many snapshots of each kind stay. None says nothing.

    `keep_last` counts snapshots, the others from hourly to yearly the newest of each hour … year that has one.
    `keep_within` keeps all that are at most so much older than the newest complete one; `keep_tags` the newest of each
    tag.
    """

    keep_last: int | None = None
    keep_within: timedelta | None = None
    keep_hourly: int | None = None
    keep_daily: int | None = None
    keep_weekly: int | None = None
    keep_monthly: int | None = None
    keep_yearly: int | None = None
    keep_tags: Mapping[str, int] = field(default_factory=dict)

    @property
    def keeps_untagged(self) -> bool:
        """Tell whether any rule keeps snapshots without a tag: without one, a tag's misspelling removes everything."""
        numbers = (self.keep_last, self.keep_hourly, self.keep_daily, self.keep_weekly)
        return any((*numbers, self.keep_monthly, self.keep_yearly, self.keep_within))


class Verdict(NamedTuple):
    """A snapshot, and what keeps it. Without any reason it may be removed."""

    snapshot: Snapshot
    reasons: tuple[str, ...]

    @property
    def keep(self) -> bool:
        return bool(self.reasons)


class _Claim(NamedTuple):
    """That a snapshot is to be kept."""

    id: SnapshotId
    reason: str


def judge(
    snapshots: Iterable[Snapshot],
    policy: RetentionPolicy | None,
    *,
    zone: tzinfo,
    now: datetime,
    verified: Collection[SnapshotId] = (),
) -> tuple[Verdict, ...]:
    """Return a verdict on each of the *snapshots*, which are of one source, newest first.

    Without a policy all are kept. Whatever the policy: the newest complete one stays, the last of those in *verified*
    (by a restore or a drill), what is tagged `hold`, the last good one before an anomaly with what shows it, and what
    is dated after *now*, which also counts for no rule: a wrong clock must not push anything out.
    """
    newest_first = sorted(snapshots, key=lambda each: (each.time, each.id), reverse=True)
    if policy is None:
        return tuple(Verdict(each, ("no policy",)) for each in newest_first)
    timely = [each for each in newest_first if each.time - now <= _CLOCKS_DIFFER]
    reasons: dict[SnapshotId, list[str]] = {each.id: [FUTURE] for each in newest_first}
    reasons.update((each.id, []) for each in timely)
    for claim in (*_floors(timely, verified), *_ruled(timely, policy, zone)):
        reasons[claim.id].append(claim.reason)
    return tuple(Verdict(each, tuple(reasons[each.id])) for each in newest_first)


def _floors(newest_first: Sequence[Snapshot], verified: Collection[SnapshotId]) -> Iterator[_Claim]:
    """Yield what no policy removes."""
    complete = _complete(newest_first)
    if complete:
        yield _Claim(complete[0].id, "newest" if complete[0].anomalies else "newest good")
    yield from [_Claim(each.id, "last verified") for each in complete if each.id in verified][:1]
    yield from (_Claim(each.id, "held") for each in newest_first if HOLD in each.tags)
    yield from _around_anomalies(reversed(newest_first))
    for each in takewhile(lambda each: each.status == "partial", newest_first):
        yield _Claim(each.id, "partial, none complete since")


def _around_anomalies(oldest_first: Iterable[Snapshot]) -> Iterator[_Claim]:
    """Yield, for each run of marked snapshots, the last good one before it and the first of the run.

    Both: when what shows the loss were removed, the next run would see no reason to keep what was lost.
    """
    good: Snapshot | None = None
    for each in oldest_first:
        if each.anomalies and good is not None:
            yield _Claim(good.id, "before an anomaly")
            yield _Claim(each.id, "anomaly")
            good = None
        elif not each.anomalies and each.status == "complete":
            good = each


def _ruled(newest_first: Sequence[Snapshot], policy: RetentionPolicy, zone: tzinfo) -> Iterator[_Claim]:
    complete = _complete(newest_first)
    yield from _newest_of_each(complete, "last", policy.keep_last, _itself)
    if policy.keep_within and complete:
        # A promise about time, so that partial ones are in it as well; they push nothing out.
        inside = (each for each in newest_first if complete[0].time - each.time <= policy.keep_within)
        yield from (_Claim(each.id, f"within {duration_text(policy.keep_within)}") for each in inside)
    for word, number, period in _periods(policy):
        yield from _newest_of_each(complete, word, number, _local(zone, period))
    for tag, number in policy.keep_tags.items():
        yield from _newest_of_each([each for each in complete if tag in each.tags], f"tag {tag}", number, _itself)


def _complete(snapshots: Iterable[Snapshot]) -> list[Snapshot]:
    return [each for each in snapshots if each.status == "complete"]


def _itself(snapshot: Snapshot) -> Hashable:
    return snapshot.id


def _local(zone: tzinfo, period: Callable[[datetime], Hashable]) -> Callable[[Snapshot], Hashable]:
    return lambda snapshot: period(snapshot.time.astimezone(zone))


def _newest_of_each(
    newest_first: Iterable[Snapshot], word: str, number: int | None, group: Callable[[Snapshot], Hashable]
) -> Iterator[_Claim]:
    """Yield the newest snapshot of each of the newest *number* groups."""
    seen: set[Hashable] = set()
    for each in newest_first:
        if len(seen) == (number or 0):
            return
        if (found := group(each)) not in seen:
            seen.add(found)
            yield _Claim(each.id, f"{word} {len(seen)} of {number}")


def _periods(policy: RetentionPolicy) -> Iterator[tuple[str, int | None, Callable[[datetime], Hashable]]]:
    """Yield word, number and what names the period that a local time is in."""
    # With the offset: when clocks are set back an hour comes twice, and is two.
    yield "hourly", policy.keep_hourly, lambda local: (local.date(), local.hour, local.utcoffset())
    yield "daily", policy.keep_daily, lambda local: local.date()
    yield "weekly", policy.keep_weekly, lambda local: local.isocalendar()[:2]
    yield "monthly", policy.keep_monthly, lambda local: (local.year, local.month)
    yield "yearly", policy.keep_yearly, lambda local: local.year


def duration_text(duration: timedelta) -> str:
    """Write a duration, which is not 0, in the largest unit that divides it: 26h, not 1d2h."""
    seconds = int(duration.total_seconds())
    return next(f"{seconds // size}{unit}" for unit, size in _UNITS if seconds % size == 0)
