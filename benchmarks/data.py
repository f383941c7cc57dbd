"""The data that is measured with, made from a seed: the same bytes of content at every run."""

import sys
from pathlib import Path
from random import Random

import duckdb

ROWS_PER_MIB = 29_000
"""Of the table below, in DuckDB 2.0."""


def make_duckdb(path: Path, mib: int) -> None:
    """Make a database of about *mib* MiB: ids, times, prices, words, hashes; some columns compress and some do not."""
    with duckdb.connect(str(path), config={"memory_limit": "4GB", "threads": 2}) as connection:
        connection.execute(f"""
            CREATE TABLE events AS SELECT
                i AS id,
                TIMESTAMP '2026-01-01' + INTERVAL (i) SECOND AS at,
                hash(i) AS token,
                (hash(i * 7) % 1000000) / 100.0 AS price,
                md5((i % 5000000)::VARCHAR) AS reference,
                'user ' || (hash(i * 3) % 50000) AS customer,
                (hash(i * 11) % 17)::TINYINT AS state
            FROM range({mib * ROWS_PER_MIB}) t(i)""")
        connection.execute("CREATE TABLE states AS SELECT i AS id, 'state ' || i AS name FROM range(17) t(i)")
        connection.execute("CHECKPOINT")


def make_tree(root: Path, files: int) -> None:
    """Make a tree of small files, 3 KiB on average and 64 KiB at the most: half of them words, half incompressible."""
    random = Random(7)
    words = [f"word{number} ".encode() for number in range(5000)]
    for number in range(files):
        directory = root / f"{number // 10_000:03}" / f"{number // 100 % 100:03}"
        if number % 100 == 0:
            directory.mkdir(parents=True)
        size = int(min(64 * 1024, random.lognormvariate(7.6, 1.0)))
        text = number % 2 and b"".join(random.choices(words, k=size // 6 + 1))[:size]
        (directory / f"{number % 100:02}.dat").write_bytes(text or random.randbytes(size))


POSTGRES = """
CREATE TABLE accounts (id bigint PRIMARY KEY, owner text, balance numeric(12, 2), opened timestamptz, secret bytea);
INSERT INTO accounts SELECT i, 'owner ' || i, (i * 7919 % 1000000) / 100.0,
    timestamptz '2020-01-01' + i * interval '1 minute', decode(md5(i::text) || md5((i * 3)::text), 'hex')
    FROM generate_series(1::bigint, {rows}) i;
CREATE TABLE events (id bigserial PRIMARY KEY, account bigint, kind text, payload text);
INSERT INTO events (account, kind, payload) SELECT i * 31 % {rows}, 'kind ' || i % 12, repeat(md5(i::text), 4)
    FROM generate_series(1::bigint, {rows}) i;
CREATE INDEX ON events (account);
ANALYZE;
"""
"""About 330 bytes of dump a row, over two tables."""


if __name__ == "__main__":
    make_duckdb(Path(sys.argv[1]), int(sys.argv[2]))
