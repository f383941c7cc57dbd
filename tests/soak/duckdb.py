"""`python -m soak.duckdb --captures 500 [--duckdb-version 1.4.4]`: the live-writer stress for as long as you like."""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from soak.rig import Rig, Tally, capture_once, plain_copy_once


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as directory:
        wheel = _wheel(options.duckdb_version, Path(directory)) if options.duckdb_version else None
        raw, plain = Tally(), Tally()
        began = time.monotonic()
        with Rig(Path(directory), options.seed, wheel=wheel) as rig:
            for number in range(options.captures):
                rig.disturb()
                capture_once(
                    rig, raw, checksums=number % 10 == 9, pause_seconds=options.pause if number % 3 == 2 else 0.0
                )
                if options.plain and number % options.plain == 0:
                    plain_copy_once(rig, plain)
        print(
            f"DuckDB {options.duckdb_version or 'installed'}, seed {options.seed}, kill -9: {rig.kills}, "
            f"{time.monotonic() - began:.0f} s"
        )
        print(f"  flybackup: {raw}")
        print(f"  cp:        {plain}")
        for reason in (*raw.wrong, *raw.gave_up):
            print("  !", reason)
        sys.exit(1 if raw.wrong else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captures", type=int, default=300)
    parser.add_argument("--duckdb-version")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.01, help="seconds per extent in every third capture")
    parser.add_argument("--plain", type=int, default=10, help="a plain copy after every so many captures; 0 for none")
    return parser.parse_args()


def _wheel(version: str, directory: Path) -> Path:
    """Install that DuckDB beside the running one and return where."""
    target = directory / f"duckdb-{version}"
    line = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--target",
        str(target),
    ]
    subprocess.run([*line, f"duckdb=={version}"], check=True)
    return target


if __name__ == "__main__":
    main()
