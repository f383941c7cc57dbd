"""Run commands and measure them from outside: wall and CPU seconds, memory of the largest process and of the tree."""

import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
_SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class Run:
    """`peak_mib` is the largest single process, `tree_mib` the most that all together held (PSS, sampled)."""

    wall_seconds: float
    cpu_seconds: float
    peak_mib: float
    tree_mib: float


@dataclass(frozen=True)
class Command:
    """`setup` runs before each measured run and is not measured."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    setup: Callable[[], None] = lambda: None


def run(command: Command, *, memory: bool = False) -> Run:
    """Run it once. Raise when it fails: a figure of a failed command would be worse than none.

    Memory is watched on request only: looking at it slows what is looked at.
    """
    command.setup()
    env = {**os.environ, **command.env}
    begun = time.perf_counter()
    process = subprocess.Popen(command.argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    watch = _Watch(process.pid) if memory else None
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    if watch is not None:
        watch.stop()
    if status:
        raise RuntimeError(f"{command.name} failed:\n{output.decode(errors='replace')[-3000:]}")
    largest, tree = (watch.largest_bytes, watch.tree_bytes) if watch is not None else (0, 0)
    return Run(wall, usage.ru_utime + usage.ru_stime, largest / MIB, tree / MIB)


def compare(commands: Sequence[Command], runs: int) -> dict[str, list[Run]]:
    """Run the commands in turn, A B C A B C …, so that a machine whose speed drifts is fair to all."""
    results: dict[str, list[Run]] = {command.name: [] for command in commands}
    for _ in range(runs):
        for command in commands:
            results[command.name].append(run(command))
    return results


def median(results: Sequence[Run], figure: str = "wall_seconds") -> float:
    return float(statistics.median(getattr(result, figure) for result in results))


def ratio(results: dict[str, list[Run]], over: str, under: str) -> float:
    """Return the median of the ratios run by run."""
    pairs = zip(results[over], results[under], strict=True)
    return statistics.median(a.wall_seconds / b.wall_seconds for a, b in pairs)


class _Watch(threading.Thread):
    """Samples a process and its descendants until it is stopped.

    Not `ru_maxrss`: Linux lets a child begin with its parent's, and this parent is not small.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._done = threading.Event()
        self.largest_bytes = 0
        self.tree_bytes = 0
        self.start()

    def run(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            pids = _tree(self._pid)
            self.tree_bytes = max(self.tree_bytes, sum(_bytes(f"/proc/{pid}/smaps_rollup", "Pss:") for pid in pids))
            self.largest_bytes = max([self.largest_bytes, *(_bytes(f"/proc/{pid}/status", "VmHWM:") for pid in pids)])

    def stop(self) -> None:
        self._done.set()
        self.join()


def _tree(root: int) -> list[int]:
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        found.append(pid)
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                queue += map(int, task.read_text().split())
    return found


def _bytes(file: str, field: str) -> int:
    with suppress(OSError):
        for line in Path(file).read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return 0
