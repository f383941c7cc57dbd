"""What a `count` command prints: one JSON object of names and whole numbers."""

from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from flybackup.chunking import Extent
from flybackup.errors import SourceError
from flybackup.escapes import harmless
from flybackup.model import TableFacts

_MOST_BYTES: Final = 1024 * 1024
_SHOWN_BYTES: Final = 200
_HINT: Final = 'It has to print one JSON object of names and row counts, such as {"users": 120, "orders": 0}.'

_Rows = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


def printed(extents: Iterable[Extent]) -> bytes:
    """Return all that was printed. Raise `SourceError` when it is more than 1 MiB."""
    text = bytearray()
    for extent in extents:
        text += extent.data
        if len(text) > _MOST_BYTES:
            raise SourceError(f"count: more than 1 MiB was printed, beginning with {_beginning(text)}", hint=_HINT)
    return bytes(text)


def tables(text: bytes) -> dict[str, TableFacts]:
    """Return the facts that *text* says. Raise `SourceError` that shows its beginning when it says something else."""
    try:
        counts = msgspec.json.decode(text, type=dict[str, _Rows])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise SourceError(f"count: cannot understand what was printed: {_beginning(text)}", hint=_HINT) from exc
    return {name: TableFacts(rows=rows) for name, rows in counts.items()}


def _beginning(text: bytes | bytearray) -> str:
    if not text.strip():
        return "nothing"
    shown = harmless(text[:_SHOWN_BYTES].decode("utf-8", "replace"))
    return shown + (" …" if len(text) > _SHOWN_BYTES else "")
