"""A DuckDB connection that can do nothing but what the child needs."""

from typing import Any

import duckdb


def quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def restricted(con: duckdb.DuckDBPyConnection, limits: dict[str, Any], directories: list[str]) -> None:
    """Set the limits and close every door but *directories*: the file's own SQL (defaults, macros) is not trusted."""
    allowed = ", ".join(literal(directory) for directory in directories)
    for setting in (
        f"memory_limit = '{int(limits['memory_bytes'])}B'",
        f"threads = {int(limits['threads'])}",
        f"temp_directory = {literal(limits['spill'])}",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "enable_external_file_cache = false",
        f"allowed_directories = [{allowed}]",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        con.execute(f"SET {setting}")


def attach(con: duckdb.DuckDBPyConnection, path: str, alias: str, *options: str) -> None:
    con.execute(f"ATTACH {literal(path)} AS {alias} ({', '.join(options)})")
