"""The least a second backup must do: read the file and hash it, block by block, in one thread."""

import sys
from pathlib import Path

from blake3 import blake3

with Path(sys.argv[1]).open("rb", buffering=0) as source:
    while block := source.read(262_144):
        blake3(block).digest()
