"""`flybackup doctor`: look for everything that could make a backup or restore fail, before it does."""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from flybackup.errors import FlybackupError


class Finding(NamedTuple):
    """`what` was found about `subject`, and what to `do` about it where something is to be done."""

    level: Literal["ok", "warning", "error"]
    subject: str
    what: str
    do: str = ""


def guarded(subject: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield what *look* finds; what it raises is a finding too, and ends it."""
    try:
        yield from look()
    except FlybackupError as exc:
        yield Finding("error", subject, str(exc), exc.hint)
