"""`python -m flybackup`, and the entry point of the `flybackup` program."""

import sys

from flybackup.cli.main import run


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
