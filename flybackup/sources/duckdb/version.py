"""Which DuckDB another process runs."""

import re
from pathlib import Path


def duckdb_version_of(pid: int) -> str | None:
    """Return the version of the DuckDB wheel a Python process has loaded; None for any other process."""
    maps = _maps(pid)
    for library in set(re.findall(r"(/.*duckdb[^/]*\.so)$", maps, re.MULTILINE)):
        for parent in Path(library).parents[:2]:
            for found in parent.glob("duckdb-*.dist-info"):
                return found.name.removeprefix("duckdb-").removesuffix(".dist-info")
    return None


def _maps(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return ""
