"""Measure flybackup beside restic and borg, in one run: `python benchmarks/run.py [CASE…] [--runs N] [--mib N]`.

Prints a Markdown table of bars and what was seen. Needs restic and borg on the PATH; starts its own S3 server and
PostgreSQL. Ratios are medians of run-by-run ratios, because a shared machine's speed drifts.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import cases  # noqa: E402  after the path is set


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("case", nargs="*", choices=[*cases.CASES, []], help="default: all")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--mib", type=int, default=620, help="size of the DuckDB file")
    parser.add_argument("--large-mib", type=int, default=8192, help="size of the file that memory is measured with")
    parser.add_argument("--files", type=int, default=100_000, help="how many small files")
    arguments = parser.parse_args()
    for program in ("restic", "borg"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not installed: apt-get install restic borgbackup")
    directory = Path(tempfile.mkdtemp(prefix="flybackup-bench-"))
    try:
        bench = cases.Bench(directory, arguments.runs, arguments.mib, arguments.large_mib, arguments.files)
        print_table(bench, [cases.CASES[name] for name in arguments.case or cases.CASES])
    finally:
        shutil.rmtree(directory)


def print_table(bench: cases.Bench, chosen: list[Callable[[cases.Bench], Iterator[cases.Row]]]) -> None:
    print(f"{machine()}; {bench.runs} runs each, medians\n")
    print("| work | bar | seen | met |\n|---|---|---|---|", flush=True)
    for case in chosen:
        for row in case(bench):
            print(f"| {row.work} | {row.bar} | {row.seen} | {'yes' if row.met else '**no**'} |", flush=True)


def machine() -> str:
    versions = [
        subprocess.run([p, "version" if p == "restic" else "--version"], capture_output=True, text=True, check=True)
        .stdout.split(" compiled")[0]
        .strip()
        for p in ("restic", "borg")
    ]
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}, "
        + ", ".join(versions)
    )


if __name__ == "__main__":
    main()
