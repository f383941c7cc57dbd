"""Numbers as people read them."""

from datetime import datetime, timedelta, tzinfo

_STEP = 1024
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def human_bytes(count: float) -> str:
    """`980 B`, `12.4 MiB`, `1.2 TiB`."""
    if count < _STEP:
        return f"{int(count)} B"
    for unit in _UNITS:
        count /= _STEP
        if count < _STEP - 0.05:  # 1023.96 would be written 1024.0
            return f"{count:.1f} {unit}"
    return f"{count:.1f} {_UNITS[-1]}"


def human_seconds(seconds: float) -> str:
    """`0.42 s`, `12.3 s`, `4 min 10 s`, `2 h 05 min`."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{int(seconds // _MINUTE)} min {int(seconds % _MINUTE):02} s"
    return f"{int(seconds // _HOUR)} h {int(seconds % _HOUR // _MINUTE):02} min"


def human_age(age: timedelta) -> str:
    """`a moment ago`, `12 minutes ago`, `3 days ago`; for times ahead (clocks differ) the first."""
    seconds = int(age.total_seconds())
    for size, name in ((_DAY, "day"), (_HOUR, "hour"), (_MINUTE, "minute")):
        if seconds >= size:
            return f"{count(seconds // size, name)} ago"
    return "a moment ago"


def human_time(time: datetime, zone: tzinfo) -> str:
    """`2026-11-20 03:00:12 -08:00`: local, and the offset says so."""
    local = time.astimezone(zone)
    offset = local.strftime("%z")
    return f"{local:%Y-%m-%d %H:%M:%S} {offset[:3]}:{offset[3:5]}"


def count(number: int, noun: str) -> str:
    """`1 table`, `1,200 tables`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
