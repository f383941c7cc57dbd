"""Somebody's program with a format of its own: `ledger.py dump|load|count FILE`.

A file is lines: `= TABLE` begins a table, every other line is a row of it. The format has no end, so a part of a dump
loads as well as all of it: what flybackup must not let happen. A file that is locked is in use.
"""

import fcntl
import json
import sys
from pathlib import Path


def main() -> None:
    _, action, name = sys.argv
    {"dump": dump, "load": load, "count": count}[action](Path(name))


def dump(path: Path) -> None:
    sys.stdout.write(path.read_text())


def load(path: Path) -> None:
    text = sys.stdin.read()
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"ledger: {path} is in use")
        beside = path.with_suffix(".new")
        beside.write_text(text)
        beside.replace(path)


def count(path: Path) -> None:
    tables = [each.splitlines() for each in ("\n" + path.read_text()).split("\n= ")[1:]]
    print(json.dumps({name: len(rows) for name, *rows in tables}))


if __name__ == "__main__":
    main()
