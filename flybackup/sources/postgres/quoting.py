"""Names and values as SQL on one line, whatever characters they hold (manual, 4.1.1 and 4.1.2)."""

import re
from typing import Final

# Their value is a list of names, stored quoted; each must become a literal of its own (pg_dump's GUC_LIST_QUOTE).
_LISTS: Final = frozenset(
    {
        "search_path",
        "temp_tablespaces",
        "local_preload_libraries",
        "session_preload_libraries",
        "shared_preload_libraries",
        "unix_socket_directories",
    }
)
_LIST_ITEM: Final = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,"]*))\s*(?:,|$)')
_NAME_BYTES: Final = 63
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def identifier(name: str, *, dotted: bool = False) -> str:
    """Return *name* double-quoted; with *dotted*, each part of a setting's name."""
    if dotted:
        return ".".join(identifier(part) for part in name.split("."))
    inner = name.replace('"', '""')
    if not _CONTROL.search(name):
        return f'"{inner}"'
    escaped = _CONTROL.sub(lambda match: f"\\{ord(match[0]):04x}", inner.replace("\\", "\\\\"))
    return f'U&"{escaped}"'


def literal(value: str) -> str:
    """Return *value* single-quoted; control characters and backslashes are escaped, so it stays on one line."""
    inner = value.replace("'", "''")
    if not _CONTROL.search(value) and "\\" not in value:
        return f"'{inner}'"
    escaped = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", inner.replace("\\", "\\\\"))
    return f"E'{escaped}'"


def name_beside(name: str, marker: str) -> str:
    """Return a name next to *name*, cut to what PostgreSQL keeps (63 bytes) without splitting a character."""
    suffix = f"__{marker}"
    kept = name.encode()[: _NAME_BYTES - len(suffix.encode())].decode("utf-8", "ignore")
    return kept + suffix


def setting_value(name: str, value: str) -> str:
    """Return the value of a setting as `SET` takes it: a literal, or a list of them."""
    if name.lower() not in _LISTS:
        return literal(value)
    return ", ".join(literal(item) for item in list_items(value)) or "''"


def list_items(value: str) -> list[str]:
    """Return the names in a stored list such as `"$user", public`."""
    if not value.strip():
        return []
    return [
        match[1].replace('""', '"') if match[1] is not None else match[2].strip()
        for match in _LIST_ITEM.finditer(value.strip())
        if match[0]
    ]
