"""The retention that each application served first asks for, over a year of its backups with both changes of clocks.

After every backup what may go is removed, as an agent does.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from zoneinfo import ZoneInfo

from engine.dated import head

from flybackup.model import Snapshot
from flybackup.retention import RetentionPolicy, judge


def lived(backups: Iterable[Snapshot], policy: RetentionPolicy, zone: ZoneInfo) -> Iterator[list[Snapshot]]:
    """Yield what is there after each backup and the forgetting that follows it, newest first."""
    there: list[Snapshot] = []
    for each in backups:
        there = [v.snapshot for v in judge([*there, each], policy, zone=zone, now=each.time) if v.keep]
        yield there


def schedule(zone: ZoneInfo, *hours: int, days: int = 365) -> Iterator[datetime]:
    """Local hours of every day of a year, in UTC; one that the clocks skip falls on the next."""
    for day in range(days):
        for hour in hours:
            local = datetime(2026, 1, 1, hour) + timedelta(days=day)  # noqa: DTZ001  local
            yield local.replace(tzinfo=zone).astimezone(UTC)


def local_days(snapshots: Iterable[Snapshot], zone: ZoneInfo) -> set[datetime]:
    return {midnight(each.time, zone) for each in snapshots}


def ids(snapshots: Iterable[Snapshot]) -> set[str]:
    return {each.id for each in snapshots}


def named(snapshots: Iterable[Snapshot], period: str, zone: ZoneInfo) -> list[str]:
    """The weeks or months that have a snapshot, ascending."""
    return sorted({each.time.astimezone(zone).strftime(period) for each in snapshots})


def midnight(time: datetime, zone: ZoneInfo) -> datetime:
    return time.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)


def last_days(now: datetime, zone: ZoneInfo, count: int) -> set[datetime]:
    return {midnight(now, zone) - timedelta(days=ago) for ago in range(count)}


def test_prospector_nightly_and_before_each_deploy() -> None:
    zone = ZoneInfo("America/Los_Angeles")
    nightly = [head(number, time) for number, time in enumerate(schedule(zone, 2))]
    deploys = [head(1000 + n, t, tags=["pre-deploy"]) for n, t in enumerate(schedule(zone, 15)) if n % 7 in {2, 4}]
    policy = RetentionPolicy(keep_last=3, keep_daily=7, keep_weekly=4, keep_monthly=3, keep_tags={"pre-deploy": 10})
    backups = sorted(nightly + deploys, key=lambda each: each.time)
    for number, there in enumerate(lived(backups, policy, zone)):
        taken, now = backups[max(0, number - 150) : number + 1], backups[number].time
        assert there[:3] == taken[-3:][::-1]
        assert last_days(now, zone, min(7, len(local_days(taken, zone)))) <= local_days(there, zone)
        assert ids([each for each in taken if each.tags][-10:]) <= ids(there)
        for period, newest in (("%G %V", 4), ("%Y %m", 3)):
            assert named(taken, period, zone)[-newest:] == named(there, period, zone)[-newest:]
        assert len(there) <= 3 + 7 + 4 + 3 + 10


def test_tattoo_contest_hourly_the_last_fifty() -> None:
    zone = ZoneInfo("America/New_York")
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    for clocks_set in (datetime(2026, 3, 5, tzinfo=UTC), datetime(2026, 10, 29, tzinfo=UTC), begin):
        backups = [head(hour, clocks_set + timedelta(hours=hour)) for hour in range(24 * 7)]
        for number, there in enumerate(lived(backups, RetentionPolicy(keep_last=50), zone)):
            assert there == backups[max(0, number - 49) : number + 1][::-1]


def test_bezgelor_daily_for_seven_days_deploys_and_monthly_for_three_months() -> None:
    zone = ZoneInfo("America/Chicago")
    days = [
        head(number, time, tags=["monthly"] if time.astimezone(zone).day == 1 else [])
        for number, time in enumerate(schedule(zone, 4))
    ]
    deploys = [head(1000 + n, t, tags=["pre-deploy"]) for n, t in enumerate(schedule(zone, 11)) if n % 5 == 0]
    # The month under way is one of the four: each month's last snapshot stays through the three months after it.
    policy = RetentionPolicy(keep_daily=7, keep_monthly=4, keep_tags={"pre-deploy": 10, "monthly": 3})
    backups = sorted(days + deploys, key=lambda each: each.time)
    for number, there in enumerate(lived(backups, policy, zone)):
        taken, now = backups[max(0, number - 150) : number + 1], backups[number].time
        assert last_days(now, zone, min(7, len(local_days(taken, zone)))) <= local_days(there, zone)
        by_month = groupby(taken, key=lambda each: each.time.astimezone(zone).month)
        last_of_month = {month: list(group)[-1] for month, group in by_month}
        month = now.astimezone(zone).month
        assert ids(last_of_month[m] for m in last_of_month if month - m <= 3) <= ids(there)
        assert ids([each for each in taken if "monthly" in each.tags][-3:]) <= ids(there)
        assert ids([each for each in taken if "pre-deploy" in each.tags][-10:]) <= ids(there)
        assert len(there) <= 7 + 4 + 10 + 3


def test_catatlas_weekly_with_a_machine_that_sleeps_for_months() -> None:
    zone = ZoneInfo("America/New_York")
    sundays = [time for time in schedule(ZoneInfo("UTC"), 2) if time.weekday() == 6]
    awake = [time for number, time in enumerate(sundays) if not 20 <= number < 32]
    policy = RetentionPolicy(keep_weekly=8, keep_monthly=6)
    backups = [head(number, time) for number, time in enumerate(awake)]
    for number, there in enumerate(lived(backups, policy, zone)):
        assert ids(backups[max(0, number - 7) : number + 1]) <= ids(there)
        assert len(there) <= 8 + 6
