"""Captures of a database that an application changes, checkpoints and is killed over: every one right, `cp` not.

The same rig runs for as long as you like, under any DuckDB: `python -m soak.duckdb` in `tests/`.
"""

from pathlib import Path

from engine.simple import make_repository
from soak.rig import Rig, Tally, capture_once, plain_copy_once, round_trip_once

CAPTURES = 50
ROUND_TRIPS = 10


def test_captures_under_a_live_writer_are_right_and_plain_copies_are_not(tmp_path: Path) -> None:
    raw, plain = Tally(), Tally()
    with Rig(tmp_path, seed=20261123) as rig:
        for number in range(CAPTURES):
            rig.disturb()
            capture_once(
                rig, raw, checksums=number % 20 == 19, pause_seconds=0.01 if number % 3 == 2 else 0.0, quick=True
            )
            if number % 10 == 5:
                plain_copy_once(rig, plain)
    print(f"flybackup: {raw}\ncp: {plain}")
    assert raw.wrong == []
    assert raw.gave_up == []
    assert raw.accepted == CAPTURES
    assert plain.wrong, "the plain copies were right as well, so this run proved nothing"


def test_a_live_writers_database_survives_the_repository(tmp_path: Path) -> None:
    """Blocks given again in later passes replace the earlier ones in what is stored."""
    tally, repository = Tally(), make_repository()
    with Rig(tmp_path, seed=8) as rig:
        for _ in range(ROUND_TRIPS):
            rig.disturb()
            round_trip_once(rig, repository, tally)
    print(f"round trips: {tally}")
    assert tally.wrong == []
    assert tally.accepted == ROUND_TRIPS
