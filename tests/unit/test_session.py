import random
from mmap import mmap

import pytest
from engine.simple import CLOCK, SMALL, make_repository

from flybackup.chunking import Extent, Fixed
from flybackup.session import UPLOADS, Session


@pytest.mark.parametrize("kind", ["data", "manifest"])
def test_buffers_are_used_again_however_much_of_either_kind_is_written(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def counted(fileno: int, length: int, flags: int) -> mmap:
        made.append(length)
        return mmap(fileno, length, flags=flags)

    monkeypatch.setattr("flybackup.packing.mmap", counted)
    rng = random.Random(1)
    pieces = (rng.randbytes(64 * 1024) for _ in range(100))

    with Session(make_repository(), CLOCK, SMALL) as writer:
        if kind == "manifest":
            writer.store_manifest(pieces)
        else:
            writer.store((Extent(at * 65536, piece) for at, piece in enumerate(pieces)), Fixed(65536, 65536))
        writer.flush()

    assert len(made) <= 2 + UPLOADS + 1  # one being built of either kind, those being put, and one between
