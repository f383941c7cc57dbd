from dataclasses import replace

import pytest
from hypothesis import assume, given, strategies as st

from flybackup.anomalies import anomalies
from flybackup.model import Facts, TableFacts

rows = st.integers(0, 10_000)
tables = st.dictionaries(st.sampled_from([f"main.t{number}" for number in range(6)]), rows)


def facts(**rows_of: int) -> Facts:
    return Facts(tables={f"main.{name}": TableFacts(rows=rows) for name, rows in rows_of.items()}, engine="DuckDB")


def counted(rows_of: dict[str, int], files: int | None = None) -> Facts:
    return Facts(tables={name: TableFacts(rows=rows) for name, rows in rows_of.items()}, files=files, engine="DuckDB")


def files(number: int) -> Facts:
    return Facts(files=number)


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (facts(matches=4711, players=9), facts(players=9), "main.matches: the table is gone, 4,711 rows before"),
        (facts(matches=0, players=9), facts(players=9), "main.matches: the table is gone, 0 rows before"),
        (facts(matches=4711), facts(matches=12), "main.matches: 12 rows, 4,711 before"),
        (facts(matches=1, players=9), facts(matches=0, players=9), "main.matches: 0 rows, 1 before"),
        (files(4711), files(12), "files: 12 files, 4,711 before"),
    ],
)
def test_what_was_lost_is_told_with_numbers(before: Facts, now: Facts, told: str) -> None:
    assert anomalies(before, now, size_bytes=1) == (told,)


@pytest.mark.parametrize(
    ("now", "size_bytes", "told"),
    [
        (facts(a=0, b=0), 100, "empty: no rows in any of its 2 tables"),
        (facts(), 100, "empty: no tables"),
        (files(0), 0, "empty: no files"),
        (files(3), 0, "empty: not one byte of data"),
        (Facts(), 0, "empty: not one byte of data"),
    ],
)
def test_what_is_empty_is_told_also_of_a_first_snapshot(now: Facts, size_bytes: int, told: str) -> None:
    assert anomalies(None, now, size_bytes=size_bytes) == (told,)
    assert anomalies(now, now, size_bytes=size_bytes) == (told,)


@pytest.mark.parametrize(
    "now",
    [
        facts(a=0, b=1),
        files(1),
        Facts(),  # a command's dump: nobody could count
        replace(counted({"app.duckdb:main.queue": 0}), files=7),  # of a volume the files count
    ],
)
def test_what_holds_something_is_not_empty(now: Facts) -> None:
    assert anomalies(None, now, size_bytes=1) == ()


def test_emptiness_stands_before_what_was_lost() -> None:
    before = counted({"main.b": 5, "main.a": 5, "main.c": 5})

    told = anomalies(before, counted({"main.b": 0, "main.a": 0}), size_bytes=1)

    assert [sentence.partition(":")[0] for sentence in told] == ["empty", "main.c", "main.a", "main.b"]


def test_volumes_have_tables_as_well() -> None:
    before = counted({"app.duckdb:main.matches": 100}, files=5)

    assert anomalies(before, counted({"app.duckdb:main.matches": 3}, files=5), size_bytes=1) == (
        "app.duckdb:main.matches: 3 rows, 100 before",
    )


def lost(before: Facts, now: Facts) -> set[str]:
    """The names that something is told of, but for emptiness."""
    told = anomalies(before, now, size_bytes=1)
    return {sentence.partition(":")[0] for sentence in told if not sentence.startswith("empty")}


@given(tables, tables)
def test_a_table_is_told_exactly_when_it_is_gone_or_lost_more_than_half(
    before: dict[str, int], now: dict[str, int]
) -> None:
    expected = {name for name, rows in before.items() if name not in now or now[name] < rows / 2}

    assert lost(counted(before), counted(now)) == expected


@given(st.integers(0, 10_000))
def test_exactly_half_is_none(half: int) -> None:
    before, now = counted({"main.t": 2 * half}, files=2 * half), counted({"main.t": half}, files=half)

    assert lost(before, now) == set()
    assert half == 0 or lost(before, counted({"main.t": half - 1}, files=half - 1)) == {"main.t", "files"}


@given(tables, st.dictionaries(st.text("xyz", min_size=1), rows), st.integers(0, 100))
def test_what_only_grew_is_never_told(before: dict[str, int], new: dict[str, int], more: int) -> None:
    now = {name: rows + more for name, rows in before.items()} | new

    assert lost(counted(before, files=more), counted(now, files=2 * more)) == set()


@given(tables, tables, st.sampled_from([f"main.t{number}" for number in range(6)]))
def test_losing_more_never_tells_less(before: dict[str, int], now: dict[str, int], name: str) -> None:
    assume(name in now)
    fewer = {**now, name: now[name] // 2}
    without = {other: rows for other, rows in now.items() if other != name}

    assert lost(counted(before), counted(now)) <= lost(counted(before), counted(fewer))
    assert lost(counted(before), counted(now)) <= lost(counted(before), counted(without))


# What retention may not drop
