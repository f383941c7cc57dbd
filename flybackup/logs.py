"""What goes to stderr while work is done: JSON lines for machines, short sentences for a person.

An event is named noun.verb; what it says is in `extra`. Neither may hold a secret.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

ROOT = "flybackup"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonLines(logging.Formatter):
    """`{"time", "level", "event", …}` on one line; time is RFC 3339 in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **_details(record),
        }
        return json.dumps(line, default=str)


class Sentences(logging.Formatter):
    """`level: event (name=value, …)` for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        details = ", ".join(f"{name}={value}" for name, value in _details(record).items())
        return f"{record.levelname.lower()}: {record.getMessage()}" + (f" ({details})" if details else "")


def start_logging(stream: TextIO | None = None, *, quiet: bool, verbose: bool) -> None:
    """Send flybackup's own log to *stream* (stderr). Other packages stay silent: some log requests with credentials."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Sentences() if stream.isatty() else JsonLines())
    logger = logging.getLogger(ROOT)
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(_level(terminal=stream.isatty(), quiet=quiet, verbose=verbose))


def _level(*, terminal: bool, quiet: bool, verbose: bool) -> int:
    if quiet:
        return logging.ERROR
    if verbose:
        return logging.DEBUG
    # A person sees a progress line instead of the events that begin and end.
    return logging.WARNING if terminal else logging.INFO


def _details(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}
