"""The machine: versions, and room for scratch files."""

import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from flybackup import __version__
from flybackup.doctor import Finding
from flybackup.report.units import human_bytes

_PACKAGES = ("duckdb", "psycopg", "boto3", "cryptography")
_SMALL_SCRATCH_BYTES = 1024**3


def versions() -> Iterator[Finding]:
    yield Finding("ok", "versions", f"flybackup {__version__}, Python {platform.python_version()}")
    yield Finding("ok", "versions", ", ".join(f"{name} {version(name)}" for name in _PACKAGES))


def scratch(directory: Path) -> Iterator[Finding]:
    """*directory* is a scratch directory just made: that it can be written to has been seen."""
    free = shutil.disk_usage(directory).free
    what = f"{directory.parent} can be written to, {human_bytes(free)} free"
    if free < _SMALL_SCRATCH_BYTES:
        do = "A capture may need as much as the database is large: set FLYBACKUP_SCRATCH_DIR to a larger disk."
        yield Finding("warning", "scratch", what, do)
    else:
        yield Finding("ok", "scratch", what)
