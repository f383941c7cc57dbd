"""Captures of a SQLite database that two connections write and that is killed at random: every one right, `cp` not.

The same rig runs for as long as you like: `python -m soak.sqlite` in `tests/`.
"""

from pathlib import Path

import pytest
from soak.rig import Tally
from soak.sqlite import Rig, capture_once, plain_copy_once

CAPTURES = 8
PLAIN_COPIES = 5


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_captures_under_live_writers_are_right(mode: str, tmp_path: Path) -> None:
    ours, plain = Tally(), Tally()
    with Rig(tmp_path, mode, seed=20261125) as rig:
        for _ in range(CAPTURES):
            rig.disturb()
            capture_once(rig, ours)
        rig.kill()
        capture_once(rig, ours)
        rig.start()
        for _ in range(PLAIN_COPIES if mode == "WAL" else 0):
            plain_copy_once(rig, plain)
    print(f"flybackup: {ours}\ncp: {plain}")
    assert ours.wrong == []
    assert ours.gave_up == []
    assert ours.accepted == CAPTURES + 1
    assert plain.wrong or mode != "WAL", "the plain copies were right as well, so this run proved nothing"
