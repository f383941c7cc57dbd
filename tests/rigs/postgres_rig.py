"""Databases of a real PostgreSQL 18 server, which is shared with the other tests of the session."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from servers.postgres import PostgresServer, server

from flybackup.sources import Source
from flybackup.sources.postgres import PostgresSource

POPULATE = (
    "CREATE TABLE numbers AS SELECT i, hashint8(i) AS h FROM generate_series(1::bigint, 20000) i",
    "CREATE SCHEMA sales",
    "CREATE TYPE sales.colour AS ENUM ('red', 'green')",
    "CREATE TABLE sales.orders (id serial PRIMARY KEY, colour sales.colour NOT NULL, sealed bytea, price float8)",
    """INSERT INTO sales.orders (colour, sealed, price)
    SELECT (ARRAY['red', 'green'])[i % 2 + 1]::sales.colour, decode(md5(i::text), 'hex'), i / 7.0
    FROM generate_series(1, 3000) i""",
    "CREATE INDEX orders_by_price ON sales.orders (price)",
    "CREATE TABLE sales.empty (i integer)",
    "CREATE TABLE sales.lines (id bigint GENERATED ALWAYS AS IDENTITY, orders int REFERENCES sales.orders, note text)",
    "INSERT INTO sales.lines (orders, note) SELECT i, E'tab\\t\\\\ Ünïcode \u2028' FROM generate_series(1, 500) i",
    "CREATE VIEW cheap AS SELECT * FROM sales.orders WHERE price < 10",
)


class PostgresRig:
    one_table = "sales.orders"

    def __init__(self, on: PostgresServer) -> None:
        self._server = on

    def _source(self, database: str) -> PostgresSource:
        return PostgresSource(self._server.url(database))

    def populated(self) -> Source:
        return self._source(self._server.new_database("populated", *POPULATE))

    def change(self, source: Source) -> None:
        self._server.run(name_of(source), "INSERT INTO numbers SELECT i, i FROM generate_series(1, 77) i")

    def fresh_target(self) -> Source:
        return self._source(self._server.new_name("restored"))

    def unreadable(self) -> Source:
        return self._source(self._server.new_name("absent"))

    def assert_same(self, source: Source, target: Source) -> None:
        query = "SELECT id, colour::text, sealed, price FROM sales.orders ORDER BY id"
        assert self._server.rows(name_of(source), query) == self._server.rows(name_of(target), query)
        query = "SELECT * FROM sales.lines ORDER BY id"
        assert self._server.rows(name_of(source), query) == self._server.rows(name_of(target), query)

    @contextmanager
    def in_use(self, target: Source) -> Iterator[None]:
        """A prepared transaction survives the end of every session, and holds its database."""
        name = name_of(target)
        self._server.run(name, "BEGIN", "INSERT INTO numbers VALUES (0, 0)", f"PREPARE TRANSACTION '{name}'")
        try:
            yield
        finally:
            self._server.run(name, f"ROLLBACK PREPARED '{name}'")

    def left_beside(self, target: Source) -> Sequence[str]:
        return sorted(self._server.databases())

    def undo(self, sentences: Sequence[str]) -> None:
        (statements,) = (sentence.split("run: ", 1)[1] for sentence in sentences if sentence.startswith("to undo"))
        self._server.run("postgres", *(statement for statement in statements.split(";") if statement.strip()))


def name_of(source: Source) -> str:
    assert isinstance(source, PostgresSource)
    return source.address.database


@contextmanager
def rig(directory: Path) -> Iterator[PostgresRig]:
    yield PostgresRig(server(18))
