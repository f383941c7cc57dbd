"""What a program says on standard error: its end, bounded, harmless on a terminal."""

import os
from io import FileIO
from typing import Final

from flybackup.escapes import harmless

_KEPT_BYTES: Final = 4096
# As much as a pipe holds: one read takes all that an ended program has left in it.
_READ_BYTES: Final = 64 * 1024


class LastWords:
    """The last 4 KiB of what comes through *pipe*, whatever comes; `take` never waits."""

    def __init__(self, pipe: FileIO) -> None:
        os.set_blocking(pipe.fileno(), False)
        self.pipe = pipe
        self.ended = False
        self._kept = bytearray()

    def take(self) -> None:
        """Read what is there by now."""
        data = None if self.ended else self.pipe.read(_READ_BYTES)
        if data is None:
            return
        self.ended = not data
        self._kept += data
        del self._kept[:-_KEPT_BYTES]

    def text(self) -> str:
        lines = self._kept.decode("utf-8", "replace").replace("\t", " ").splitlines()
        return harmless("\n".join(lines)).strip()
