"""Trees with a DuckDB database, and with everything that a file system knows."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trees import pictured

from flybackup.app import source_at
from flybackup.sources import Source
from flybackup.sources.volume.source import VolumeSource
from rigs.duckdb_rig import POPULATE, run_duckdb


def volume_path(source: Source) -> Path:
    assert isinstance(source, VolumeSource)
    return source.path


class VolumeRig:
    one_table = "data/app.duckdb:sales.orders"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0

    def _new_directory(self) -> Path:
        self._count += 1
        path = self._directory / f"place{self._count}"
        path.mkdir()
        return path

    def populated(self) -> Source:
        path = self._new_directory() / "volume"
        (path / "data").mkdir(parents=True)
        (path / "empty").mkdir(mode=0o700)
        run_duckdb(path / "data" / "app.duckdb", POPULATE, "crash")
        (path / "notes.txt").write_text("a few words\n")
        (path / "images").mkdir()
        for number in range(20):
            (path / "images" / f"{number}.jpg").write_bytes(os.urandom(number * 3000))
        (path / "large").write_bytes(os.urandom(3_000_000))
        (path / "link").symlink_to("notes.txt")
        (path / "same.txt").hardlink_to(path / "notes.txt")
        os.mkfifo(path / "pipe")
        return source_at("volume", str(path))

    def change(self, source: Source) -> None:
        run_duckdb(volume_path(source) / "data" / "app.duckdb", "INSERT INTO numbers SELECT i, i FROM range(77) r(i)")

    def fresh_target(self) -> Source:
        return source_at("volume", str(self._new_directory() / "restored"))

    def unreadable(self) -> Source:
        return source_at("volume", str(self._directory / "absent"))

    def assert_same(self, source: Source, target: Source) -> None:
        assert pictured(volume_path(source)) == pictured(volume_path(target))

    @contextmanager
    def in_use(self, target: Source) -> Iterator[None]:
        line = [sys.executable, "-c", "import sys; file = open(sys.argv[1]); print(flush=True); sys.stdin.read()"]
        file = str(volume_path(target) / "images" / "7.jpg")
        with subprocess.Popen([*line, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                yield
            finally:
                process.kill()

    def left_beside(self, target: Source) -> Sequence[str]:
        return sorted(str(path) for path in volume_path(target).parent.rglob("*"))

    def undo(self, sentences: Sequence[str]) -> None:
        (command,) = (sentence.split(": ", 1)[1] for sentence in sentences if sentence.startswith("To undo"))
        subprocess.run(["/bin/sh", "-c", command], check=True)


@contextmanager
def rig(directory: Path) -> Iterator[VolumeRig]:
    yield VolumeRig(directory)
