"""`python -m flybackup`, and the entry point of the `flybackup` program."""

import os
import sys

from flybackup.cli.main import run


def main() -> None:
    # NumPy is used for look-ups and hashes only; OpenBLAS would start a thread that spins for nothing.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
