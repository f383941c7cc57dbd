"""The comparisons: each runs all its commands in turns in one run and says whether its bar was met."""

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data import POSTGRES, make_tree
from measure import Command, Run, compare, median, ratio, run
from peers import FLYBACKUP, Borg, Flybackup, Place, Restic, quiet
from servers.postgres import BINARIES, PASSWORD, PostgresServer, start as start_postgres
from servers.s3 import running_s3

HERE = Path(__file__).parent
POSTGRES_ROWS = 1_900_000
"""A dump of about 600 MB."""


@dataclass(frozen=True)
class Row:
    """One line of the table: what was asked, what was seen."""

    work: str
    bar: str
    seen: str
    met: bool


@dataclass(frozen=True)
class Bench:
    directory: Path
    runs: int
    mib: int
    large_mib: int
    files: int

    def database(self, mib: int | None = None) -> str:
        path = self.directory / f"bench-{mib or self.mib}.duckdb"
        if not path.exists():
            quiet([sys.executable, str(HERE / "data.py"), str(path), str(mib or self.mib)], {})
        return str(path)

    def place(self, name: str) -> Place:
        directory = self.directory / name
        directory.mkdir()
        return Place(directory)

    @contextmanager
    def bucket(self, name: str) -> Iterator[Place]:
        directory = self.directory / name
        (directory / "server").mkdir(parents=True)
        with running_s3(directory / "server") as server:
            yield Place(directory, server.bucket, server.env(), server.endpoint)


def _seen(results: dict[str, list[Run]]) -> str:
    return ", ".join(f"{name} {median(runs):.2f} s" for name, runs in results.items())


def _times(work: str, results: dict[str, list[Run]], peer: str, least: float) -> Row:
    times = ratio(results, peer, "flybackup")
    return Row(work, f"≥ {least} x {peer}", f"{times:.2f} x ({_seen(results)})", times >= least)


def _first(tools: list[Flybackup | Restic | Borg], what: str, runs: int) -> dict[str, list[Run]]:
    """A first backup by each tool in turn, each time into a new repository."""
    results: dict[str, list[Run]] = {tool.name: [] for tool in tools}
    for _ in range(runs):
        for tool in tools:
            tool.renew()
            results[tool.name].append(run(Command(tool.name, tool.backup(what), tool.env())))
    return results


def first_backup_directory(bench: Bench) -> Iterator[Row]:
    place = bench.place("first")
    tools: list[Flybackup | Restic | Borg] = [
        Flybackup("flybackup", place),
        Restic("restic", place),
        Borg("borg", place),
    ]
    results = _first(tools, bench.database(), bench.runs)
    for peer, least in (("restic", 3.0), ("borg", 2.5)):
        yield _times("first backup, DuckDB into a directory", results, peer, least)


def first_backup_s3(bench: Bench) -> Iterator[Row]:
    database = bench.database()
    with bench.bucket("first-s3") as place:
        fly = Flybackup("flybackup", place)
        results: dict[str, list[Run]] = {"flybackup": [], "restic": [], "plain PUTs": []}
        restic = Restic("restic", place)
        for _ in range(bench.runs):
            results["flybackup"] += _first([fly], database, 1)["flybackup"]
            results["plain PUTs"].append(run(_plain_puts(place, database)))
            results["restic"] += _first([restic], database, 1)["restic"]
    yield _times("first backup, DuckDB to S3", results, "restic", 1.8)
    share = statistics.median(
        plain.wall_seconds / ours.wall_seconds
        for plain, ours in zip(results["plain PUTs"], results["flybackup"], strict=True)
    )
    yield Row("the same", "≥ 80 % of plain parallel PUTs", f"{share:.0%} ({_seen(results)})", share >= 0.8)


def _plain_puts(place: Place, file: str) -> Command:
    argv = [sys.executable, str(HERE / "plain_puts.py"), str(place.bucket), file]
    return Command("plain PUTs", argv, place.env)


def unchanged(bench: Bench) -> Iterator[Row]:
    database, place = bench.database(), bench.place("unchanged")
    fly = Flybackup("flybackup", place)
    fly.renew()
    quiet(fly.backup(database), fly.env())
    packs = len(list(Path(fly.url()).glob("packs/*/*")))
    reading = Command("read and hash", [sys.executable, str(HERE / "read_and_hash.py"), database], {})
    results = compare([Command("flybackup", fly.backup(database), fly.env()), reading], bench.runs)
    over = statistics.median(
        ours.wall_seconds - plain.wall_seconds
        for ours, plain in zip(results["flybackup"], results["read and hash"], strict=True)
    )
    new = len(list(Path(fly.url()).glob("packs/*/*"))) - packs
    seen = f"+ {over:.2f} s ({_seen(results)}), {new} new packs"
    yield Row("second backup, nothing changed", "≤ read and hash + 0.3 s, no pack", seen, over <= 0.3 and not new)


def restore_s3(bench: Bench) -> Iterator[Row]:
    database = bench.database()
    with bench.bucket("restore-s3") as place:
        fly, restic = Flybackup("flybackup", place), Restic("restic", place)
        for tool in (fly, restic):
            tool.renew()
            quiet(tool.backup(database), tool.env())
        results = _restores([fly, restic], place, bench.runs)
    yield _times("restore from S3, verified by counts (restic: not verified)", results, "restic", 1.5)


def _restores(tools: Sequence[Flybackup | Restic], place: Place, runs: int) -> dict[str, list[Run]]:
    results: dict[str, list[Run]] = {tool.name: [] for tool in tools}
    for number in range(runs):
        target = place.directory / f"restored-{number}"
        for tool in tools:
            results[tool.name].append(run(Command(tool.name, tool.restore(str(target)), tool.env())))
            quiet(["rm", "-rf", str(target)], {})
    return results


def postgres(bench: Bench) -> Iterator[Row]:
    place = bench.place("postgres")
    with contextmanager(start_postgres)(18) as server:
        name = server.new_database("bench", POSTGRES.format(rows=POSTGRES_ROWS))
        yield from _postgres(bench, place, server, name)


def _postgres(bench: Bench, place: Place, server: PostgresServer, name: str) -> Iterator[Row]:
    fly, restic = Flybackup("flybackup", place), Restic("restic", place)
    dump = f"{BINARIES[18] / 'pg_dump'} -Fc -Z0 -h 127.0.0.1 -p {server.port} -U postgres {name}"
    env = {"PGPASSWORD": PASSWORD}
    results: dict[str, list[Run]] = {"flybackup": [], "pg_dump": [], "pg_dump | restic": []}
    for _ in range(bench.runs):
        fly.renew()
        results["flybackup"].append(run(Command("flybackup", fly.backup(server.url(name)), fly.env())))
        results["pg_dump"].append(run(Command("pg_dump", ["sh", "-c", f"{dump} > /dev/null"], env)))
        restic.renew()
        piped = ["sh", "-c", f"{dump} | {' '.join(restic.stdin())}"]
        results["pg_dump | restic"].append(run(Command("pg_dump | restic", piped, {**restic.env(), **env})))
    times = 1 / ratio(results, "pg_dump", "flybackup")
    seen = f"{times:.2f} x ({_seen(results)})"
    yield Row("PostgreSQL into a directory, counted", "≤ 1.4 x pg_dump -Fc -Z0 > /dev/null", seen, times <= 1.4)
    yield _times("the same", results, "pg_dump | restic", 1.8)


def small_files(bench: Bench) -> Iterator[Row]:
    tree, place = bench.directory / "tree", bench.place("small-files")
    make_tree(tree, bench.files)
    fly, restic = Flybackup("flybackup", place), Restic("restic", place)
    tools = (fly, restic)
    first = _first([fly, restic], str(tree), bench.runs)
    work = f"{bench.files:,} small files"
    yield _times(f"{work}, first backup into a directory", first, "restic", 1.0)
    again = compare([Command(tool.name, tool.backup(str(tree)), tool.env()) for tool in tools], bench.runs)
    yield _times(f"{work}, second backup, nothing changed", again, "restic", 2.0)
    restored = _restores(tools, place, bench.runs)
    times = ratio(restored, "restic", "flybackup")
    seen = f"{times:.2f} x ({_seen(restored)})"
    yield Row(f"{work}, restore, every file read again (restic: not read)", "none set", seen, met=True)
    fly.renew()
    for name in ("first", "second"):
        used = run(Command(name, fly.backup(str(tree)), fly.env()), memory=True)
        yield Row(f"{work}, peak memory, {name} backup", "≤ 150 MiB", f"{used.peak_mib:.0f} MiB", used.peak_mib <= 150)


def memory(bench: Bench) -> Iterator[Row]:
    for mib in (1024, bench.large_mib):
        place = bench.place(f"memory-{mib}")
        fly = Flybackup("flybackup", place)
        fly.renew()
        used = run(Command("flybackup", fly.backup(bench.database(mib)), fly.env()), memory=True)
        seen = f"{used.peak_mib:.0f} MiB ({used.tree_mib:.0f} MiB with its validating child; {used.wall_seconds:.1f} s)"
        yield Row(f"peak memory, backup of {mib} MiB", "≤ 150 MiB", seen, used.peak_mib <= 150)
        used = run(Command("flybackup", fly.restore(str(place.directory / "restored")), fly.env()), memory=True)
        seen = f"{used.peak_mib:.0f} MiB ({used.tree_mib:.0f} MiB with its validating child; {used.wall_seconds:.1f} s)"
        yield Row(f"peak memory, restore of {mib} MiB", "none set", seen, met=True)
        quiet(["rm", "-rf", str(place.directory), bench.database(mib)], {})


def start(bench: Bench) -> Iterator[Row]:
    results = compare([Command("flybackup --help", [FLYBACKUP, "--help"], {})], 4 * bench.runs)
    seconds = median(results["flybackup --help"])
    yield Row("flybackup --help", "< 150 ms", f"{1000 * seconds:.0f} ms", seconds < 0.15)


CASES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "directory": first_backup_directory,
    "unchanged": unchanged,
    "s3": first_backup_s3,
    "restore": restore_s3,
    "postgres": postgres,
    "files": small_files,
    "memory": memory,
    "start": start,
}
