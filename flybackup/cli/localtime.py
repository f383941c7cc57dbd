"""The system's time zone."""

import time
from datetime import UTC, datetime, timedelta, tzinfo


class LocalZone(tzinfo):
    """The zone of `TZ` or /etc/localtime, with summer time as it was or will be at each date: the C library knows.

    `datetime.astimezone()` alone would give a fixed offset, which is wrong for half of the year.
    """

    def utcoffset(self, dt: datetime | None) -> timedelta:
        return timedelta(seconds=_local(dt).tm_gmtoff)

    def dst(self, dt: datetime | None) -> timedelta:
        return timedelta(hours=_local(dt).tm_isdst)

    def tzname(self, dt: datetime | None) -> str:
        return _local(dt).tm_zone

    def fromutc(self, dt: datetime) -> datetime:
        return dt.replace(tzinfo=UTC).astimezone().replace(tzinfo=self)


def _local(dt: datetime | None) -> time.struct_time:
    if dt is None:
        return time.localtime()
    return time.localtime(dt.replace(tzinfo=None).timestamp())
