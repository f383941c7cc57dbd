from flybackup.model import Facts, TableFacts
from flybackup.operations.verify import compare


def facts(**rows: int) -> Facts:
    return Facts(tables={f"main.{name}": TableFacts(rows=count) for name, count in rows.items()})


def test_equal_counts_are_ok() -> None:
    assert compare(facts(a=3, b=0), facts(a=3, b=0)).ok


def test_a_missing_row_or_table_is_found_and_named() -> None:
    compared = compare(facts(a=3, b=1), facts(a=2))

    assert not compared.ok
    assert [(t.name, t.expected, t.actual, t.ok) for t in compared.tables] == [
        ("main.a", 3, 2, False),
        ("main.b", 1, None, False),
    ]


def test_a_table_made_since_is_no_difference() -> None:
    assert compare(facts(a=3), facts(a=3, new=9)).ok


def test_equal_counts_with_another_content_are_found() -> None:
    expected = Facts(tables={"main.a": TableFacts(rows=3, checksum="x")})

    for checksum in ("y", None):
        compared = compare(expected, Facts(tables={"main.a": TableFacts(rows=3, checksum=checksum)}))
        assert not compared.ok
        assert compared.problems == ("the content of main.a differs from the snapshot's",)


def test_a_sequence_may_move_on_but_not_back() -> None:
    expected = Facts(sequences={"public.s": 10})

    assert compare(expected, Facts(sequences={"public.s": 12})).ok
    assert not compare(expected, Facts(sequences={"public.s": 9})).ok
    assert not compare(expected, Facts()).ok


def test_files_are_counted() -> None:
    assert compare(Facts(files=2), Facts(files=2)).ok
    assert not compare(Facts(files=2), Facts(files=1)).ok
    assert not compare(Facts(files=2), Facts()).ok
