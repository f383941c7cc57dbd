"""Files of somebody's program (`ledger.py`), which dumps, loads and counts them itself."""

import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from flybackup.sources import Source
from flybackup.sources.command import Commands, CommandSource, without_secrets
from rigs import ledger

LEDGER = (sys.executable, str(Path(ledger.__file__)))


def ledger_source(path: Path) -> CommandSource:
    dump, load, count = ((*LEDGER, action, str(path)) for action in ("dump", "load", "count"))
    return CommandSource(Commands(dump=dump, restore=load, count=count), without_secrets(os.environ, {}))


class CommandRig:
    one_table = None
    in_place: Literal[True] = True

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._paths: dict[Source, Path] = {}

    def _source(self) -> Source:
        directory = self._directory / f"place{len(self._paths)}"
        directory.mkdir()
        path = directory / "books.ledger"
        source = ledger_source(path)
        self._paths[source] = path
        return source

    def populated(self) -> Source:
        source = self._source()
        numbers = "".join(f"{number} {hash(number) ** 3:x} Ünïcode\n" for number in range(50_000))
        orders = "".join(f"{number} red\n" for number in range(3000))
        self._paths[source].write_text(f"= numbers\n{numbers}= sales.orders\n{orders}= sales.empty\n")
        return source

    def change(self, source: Source) -> None:
        with self._paths[source].open("a") as file:
            file.write("one\nmore\n")

    def fresh_target(self) -> Source:
        return self._source()

    def unreadable(self) -> Source:
        return self._source()

    def assert_same(self, source: Source, target: Source) -> None:
        assert self._paths[source].read_bytes() == self._paths[target].read_bytes()

    @contextmanager
    def in_use(self, target: Source) -> Iterator[None]:
        with self._paths[target].open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def left_beside(self, target: Source) -> Sequence[str]:
        return sorted(path.name for path in self._paths[target].parent.iterdir())

    def undo(self, sentences: Sequence[str]) -> None:
        raise AssertionError(sentences)


@contextmanager
def rig(directory: Path) -> Iterator[CommandRig]:
    yield CommandRig(directory)
