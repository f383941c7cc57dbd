"""Which file may know what: read from the imports. What is lower knows nothing of what is above it."""

import ast
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest

import flybackup

ROOT = Path(flybackup.__file__).parent

# A module imports from its own level and from those below it.
LEVELS = (
    (
        "errors model anomalies chunking compression crypto envelope escapes keys packing manifest allocator patterns "
        "retention subtree tree"
    ),
    "clock concurrency stores sources",
    "index packer session shared repository reading",
    "operations",
    "config logs",
    "app demo doctor report",
    "cli __main__",
)

# Each foreign package has one room. The demo's application is somebody else's program, and no part of flybackup.
ROOMS = {
    "blake3": ("crypto",),
    "boto3": ("stores.s3",),
    "botocore": ("stores.s3", "stores.s3_errors"),
    "click": ("cli",),
    "duckdb": ("sources.duckdb", "demo.application"),
    "pathspec": ("patterns",),
    "psycopg": ("sources.postgres",),
    "rich": ("cli.terminal",),
    "schedule": ("agent",),
    "sqlite3": ("sources.sqlite",),
}

# Composition, and the look at each kind's own troubles.
KNOWING = {"app", "doctor.databases"}

# What wraps any store knows none; everything else in `stores` and `sources` is known to those alone.
WRAPPERS = {"stores.conditional", "stores.counting", "stores.discarding"}


class Import(NamedTuple):
    module: str
    """Without the leading `flybackup.`; so is `name` when it is ours."""
    name: str
    ours: bool

    def __str__(self) -> str:
        return f"{self.module} imports {self.name}"


def imports() -> Iterator[Import]:
    for path in sorted(ROOT.rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text())):
            for name in imported(node):
                ours = name.partition(".")[0] == "flybackup"
                yield Import(module, name.removeprefix("flybackup").removeprefix("."), ours)


def imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, "flybackup imports by full names"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def level(module: str) -> int:
    room = module.partition(".")[0]
    return next(number for number, names in enumerate(LEVELS) if room in names.split())


def is_in(module: str, room: str) -> bool:
    return f"{module}.".startswith(f"{room}.")


def is_module(name: str) -> bool:
    path = ROOT / name.partition(".")[0]
    return bool(name) and (path.with_suffix(".py").exists() or path.is_dir())


IMPORTS = list(imports())
OURS = [each for each in IMPORTS if each.ours and is_module(each.name)]


def test_every_module_has_a_level() -> None:
    rooms = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} == set(chain(*(names.split() for names in LEVELS))) & rooms


def test_imports_go_down() -> None:
    assert [str(each) for each in OURS if each.module and level(each.name) > level(each.module)] == []


@pytest.mark.parametrize("package", ROOMS)
def test_a_foreign_package_has_one_room(package: str) -> None:
    users = [each for each in IMPORTS if not each.ours and is_in(each.name, package)]
    assert [str(each) for each in users if not any(is_in(each.module, room) for room in ROOMS[package])] == []


def test_only_app_knows_concrete_stores_and_sources() -> None:
    strangers = [each for each in OURS if each.module not in KNOWING and concrete(each.name) and outside(each)]
    assert [str(each) for each in strangers] == []


def concrete(name: str) -> bool:
    """Tell whether *name* is in a module of a store or source; the seams' own values are in the packages themselves."""
    parts = name.split(".")
    if parts[0] not in {"stores", "sources"} or len(parts) < 2:
        return False
    place = ROOT / parts[0] / parts[1]
    return (place.with_suffix(".py").exists() or place.is_dir()) and ".".join(parts[:2]) not in WRAPPERS


def outside(each: Import) -> bool:
    return each.module.partition(".")[0] != each.name.partition(".")[0]
