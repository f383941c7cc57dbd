"""How flybackup and its peers are called for the same work. Each gets a new repository for every first backup."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from measure import Command

PASSPHRASE = "benchmark passphrase"
FLYBACKUP = str(Path(sys.executable).parent / "flybackup")


@dataclass(frozen=True)
class Place:
    """Where the repositories of one comparison lie: a directory, or a bucket with its environment."""

    directory: Path
    bucket: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    endpoint: str = ""


def quiet(argv: list[str], env: Mapping[str, str]) -> None:
    done = subprocess.run(argv, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv} failed:\n{done.stderr[-3000:]}")


@dataclass
class Tool:
    """One tool at one place. `number` makes every first backup's repository a new one."""

    name: str
    place: Place
    number: int = 0

    def url(self) -> str:
        leaf = f"{self.name}-{self.number}"
        if self.place.bucket is None:
            return str(self.place.directory / leaf)
        return f"{self.place.bucket}/{leaf}"

    def renew(self) -> None:
        """Throw the last repository away and make a new one."""
        if self.place.bucket is None:
            shutil.rmtree(self.url(), ignore_errors=True)
        self.number += 1
        quiet(self.init(), self.env())

    def first(self, argv: list[str]) -> Command:
        return Command(f"{self.name}", argv, self.env(), self.renew)

    def env(self) -> dict[str, str]:
        raise NotImplementedError

    def init(self) -> list[str]:
        raise NotImplementedError


class Flybackup(Tool):
    def env(self) -> dict[str, str]:
        cache = str(self.place.directory / "cache")
        scratch = self.place.directory / "scratch"
        scratch.mkdir(exist_ok=True, parents=True)
        return {
            **self.place.env,
            "FLYBACKUP_PASSPHRASE": PASSPHRASE,
            "FLYBACKUP_CACHE_DIR": cache,
            "FLYBACKUP_SCRATCH_DIR": str(scratch),
        }

    def _repository(self) -> list[str]:
        scheme = "file://" if self.place.bucket is None else "s3://"
        return [FLYBACKUP, "-q", "-r", scheme + self.url()]

    def init(self) -> list[str]:
        return [*self._repository(), "init"]

    def backup(self, what: str) -> list[str]:
        return [*self._repository(), "backup", what, "--name", "bench"]

    def restore(self, target: str) -> list[str]:
        return [*self._repository(), "restore", "bench", "--to", target]


class Restic(Tool):
    def env(self) -> dict[str, str]:
        return {
            **self.place.env,
            "RESTIC_PASSWORD": PASSPHRASE,
            "RESTIC_CACHE_DIR": str(self.place.directory / "restic-cache"),
        }

    def _repository(self) -> list[str]:
        where = self.url() if self.place.bucket is None else f"s3:{self.place.endpoint}/{self.url()}"
        return ["restic", "-q", "-r", where]

    def init(self) -> list[str]:
        return [*self._repository(), "init"]

    def backup(self, what: str) -> list[str]:
        return [*self._repository(), "backup", what]

    def stdin(self) -> list[str]:
        return [*self._repository(), "backup", "--stdin", "--stdin-filename", "dump"]

    def restore(self, target: str) -> list[str]:
        return [*self._repository(), "restore", "latest", "--target", target]


class Borg(Tool):
    def env(self) -> dict[str, str]:
        home = self.place.directory / "borg-home"
        return {"BORG_PASSPHRASE": PASSPHRASE, "BORG_BASE_DIR": str(home)}

    def init(self) -> list[str]:
        return ["borg", "init", "--encryption", "repokey-blake2", self.url()]

    def backup(self, what: str) -> list[str]:
        return ["borg", "create", "--compression", "zstd", f"{self.url()}::{{now:%H%M%S%f}}", what]
