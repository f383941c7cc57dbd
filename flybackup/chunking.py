"""Cut a stream of extents into chunks. Pure: extents in, chunks out.

Data with pages is cut where its pages are, so an unchanged block is never stored twice whatever moved around it.
Everything else is cut where its content says (content-defined chunking, CDC), so an insertion changes the chunks
around it and no others.
"""

from dataclasses import dataclass
from typing import NamedTuple

KIB = 1024


class Extent(NamedTuple):
    """Bytes at a place of a stream: the one shape in which data flows through flybackup.

    A later extent replaces what an earlier one gave for the same place, so that a source which finds a block changed
    under its hands gives it again. What no extent covers is a hole and reads as zeros. An extent without data ends
    the stream at its offset: what was given beyond is dropped, and a hole may stand before it. The buffer belongs to
    the consumer until it asks for the next extent.
    """

    offset: int
    data: bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Fixed:
    """Cut at `head`, then every `block` bytes. Extents begin at a cut and end at one, or at the stream's end."""

    head: int
    block: int


@dataclass(frozen=True, slots=True)
class ContentDefined:
    """Cut where eight bytes times a secret odd `multiplier` fall under a threshold: 1 MiB on average.

    The multiplier is secret so that the sizes of chunks do not tell known content.
    """

    multiplier: int
    minimum: int = 512 * KIB
    average: int = 1024 * KIB
    maximum: int = 4096 * KIB
