"""A DuckDB application whose data betrays a torn or stale copy, and the check of such a copy.

    python -m soak.ledger write DATABASE ACK SEED      runs until it is killed
    python -m soak.ledger check DATABASE ACKED ACKED   prints {"wrong": reason or null, "tables": {name: rows}}
    python -m soak.ledger glance DATABASE ACKED ACKED  the same, opening the copy once instead of four times

Each of two threads owns its tables. A transaction changes several of them and then its row of `state`, which says what
the others must hold; after the commit the batch number is acknowledged in the file ACK. A copy is wrong when DuckDB
cannot read it, when the tables contradict `state` or each other, or when an acknowledged batch is missing.

Runs under every DuckDB from 0.10 on, so it imports nothing of flybackup.
"""

import contextlib
import json
import os
import random
import struct
import sys
import threading
from pathlib import Path
from typing import Any

import duckdb

THREADS = 2
_ACCOUNTS = 20_000
_ACK = struct.Struct("<Q")


def create(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("CREATE TABLE ballast AS SELECT i, hash(i) AS h, md5(i::VARCHAR) AS m FROM range(250000) r(i)")
    for t in range(THREADS):
        con.execute(
            f"CREATE TABLE account{t} AS SELECT i::INTEGER AS id, 100::BIGINT AS balance FROM range({_ACCOUNTS}) r(i)"
        )
        con.execute(
            f"CREATE TABLE noise{t} AS SELECT i::BIGINT AS id, i::BIGINT AS a, (4 * i)::BIGINT AS b "
            f"FROM range({_ACCOUNTS}) r(i)"
        )
        con.execute(f"CREATE TABLE ledger{t} (batch BIGINT, amount BIGINT)")
        con.execute(f"CREATE TABLE bulk{t} (batch BIGINT, x BIGINT)")
        con.execute(f"CREATE TABLE kv{t} (k INTEGER PRIMARY KEY, batch BIGINT)")
        con.execute(
            f"CREATE TABLE state{t} (batch BIGINT, ledger_rows BIGINT, ledger_sum BIGINT, "
            f"bulk_rows BIGINT, bulk_sum BIGINT, kv_sum BIGINT)"
        )
        con.execute(f"INSERT INTO state{t} VALUES (0, 0, 0, 0, 0, 0)")


class Worker(threading.Thread):
    """One thread of the application, working on its own tables."""

    def __init__(self, con: duckdb.DuckDBPyConnection, number: int, ack_fd: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.con, self.t, self.ack_fd = con, number, ack_fd
        self.random = random.Random(seed * 1000 + number)

    def run(self) -> None:
        while True:
            try:
                self.step()
            except duckdb.Error:  # a checkpoint that another transaction forbids, or one that aborted this transaction
                self.quietly("ROLLBACK")
            if self.random.random() < 0.04:
                self.quietly(self.random.choice(["CHECKPOINT", "CHECKPOINT", "FORCE CHECKPOINT"]))

    def quietly(self, sql: str) -> None:
        with contextlib.suppress(duckdb.Error):
            self.con.execute(sql)

    def step(self) -> None:
        self.con.execute("BEGIN")
        row = self.con.execute(f"SELECT batch FROM state{self.t}").fetchone()
        assert row is not None
        batch = row[0] + 1
        change = self.random.choices(
            [self.transfer, self.widen, self.insert_bulk, self.delete_bulk, self.rewrite, self.upsert],
            [6, 2, 3, 2, 1, 3],
        )[0]
        change(batch)
        self.con.execute(f"INSERT INTO ledger{self.t} SELECT {batch}, i FROM range({self.random.randint(1, 40)}) r(i)")
        self.record(batch)
        if self.random.random() < 0.05:
            self.con.execute("ROLLBACK")
            return
        self.con.execute("COMMIT")
        os.pwrite(self.ack_fd, _ACK.pack(batch), self.t * _ACK.size)

    def record(self, batch: int) -> None:
        t = self.t
        self.con.execute(
            f"UPDATE state{t} SET batch = {batch}, "
            f"ledger_rows = (SELECT count(*) FROM ledger{t}), "
            f"ledger_sum = (SELECT coalesce(sum(amount), 0) FROM ledger{t}), "
            f"bulk_rows = (SELECT count(*) FROM bulk{t}), bulk_sum = (SELECT coalesce(sum(x), 0) FROM bulk{t}), "
            f"kv_sum = (SELECT coalesce(sum(batch), 0) FROM kv{t})"
        )

    def transfer(self, _: int) -> None:
        a, b = self.random.sample(range(_ACCOUNTS), 2)
        amount = self.random.randint(1, 50)
        self.con.execute(f"UPDATE account{self.t} SET balance = balance - {amount} WHERE id = {a}")
        self.con.execute(f"UPDATE account{self.t} SET balance = balance + {amount} WHERE id = {b}")

    def widen(self, batch: int) -> None:
        every = self.random.randint(1, 5)
        self.con.execute(f"UPDATE noise{self.t} SET a = a + {batch}, b = 3 * (a + {batch}) + id WHERE id % {every} = 0")

    def insert_bulk(self, batch: int) -> None:
        rows = self.random.choice([500, 5_000, 60_000, 150_000])
        self.con.execute(
            f"INSERT INTO bulk{self.t} SELECT {batch}, (hash(i + {batch}) % 1000000)::BIGINT FROM range({rows}) r(i)"
        )

    def delete_bulk(self, batch: int) -> None:
        keep = self.random.choice([0, 5, 20, 40])
        self.con.execute(f"DELETE FROM bulk{self.t} WHERE batch < {batch - keep}")

    def rewrite(self, _: int) -> None:
        t = self.t
        self.con.execute(f"CREATE TABLE rewritten{t} AS SELECT * FROM bulk{t} ORDER BY x")
        self.con.execute(f"DROP TABLE bulk{t}")
        self.con.execute(f"ALTER TABLE rewritten{t} RENAME TO bulk{t}")

    def upsert(self, batch: int) -> None:
        self.con.execute(
            f"INSERT OR REPLACE INTO kv{self.t} SELECT (hash(i + {batch}) % 2000)::INTEGER AS k, max({batch}) "
            f"FROM range({self.random.randint(1, 200)}) r(i) GROUP BY k"
        )


def write(path: str, ack: str, seed: int) -> None:
    fresh = not Path(path).exists()
    con = duckdb.connect(path)
    con.execute("SET wal_autocheckpoint = '1MB'")
    if fresh:
        create(con)
    ack_fd = os.open(ack, os.O_RDWR | os.O_CREAT, 0o600)
    if os.fstat(ack_fd).st_size == 0:
        os.pwrite(ack_fd, bytes(THREADS * _ACK.size), 0)
    for number in range(THREADS):
        Worker(con.cursor(), number, ack_fd, seed).start()
    print("ready", flush=True)
    threading.Event().wait()


def acknowledged(ack: str) -> list[int]:
    data = Path(ack).read_bytes()
    return [_ACK.unpack_from(data, t * _ACK.size)[0] for t in range(THREADS)]


def check(path: str, acked: list[int], *, quick: bool) -> dict[str, object]:
    """Open the copy for writing, as a restored database is used; look, close, look again, write, checkpoint, look."""
    try:
        first, wrong = contents(path)
        wrong = wrong or behind(first, acked) or (None if quick else unstable(path, first))
    except duckdb.Error as exc:
        return {"wrong": f"DuckDB: {str(exc).splitlines()[0]}", "tables": {}}
    return {"wrong": wrong, "tables": first["tables"]}


def behind(found: dict[str, Any], acked: list[int]) -> str | None:
    if any(have < want for have, want in zip(found["batches"], acked, strict=True)):
        return f"acknowledged commits are missing: {found['batches']} < {acked}"
    return None


def unstable(path: str, first: dict[str, Any]) -> str | None:
    if contents(path)[0] != first:
        return "different after closing and opening again"
    con = duckdb.connect(path)
    con.execute("CREATE TABLE probe AS SELECT 1 AS i")
    con.execute("CHECKPOINT")
    con.execute("DROP TABLE probe")
    con.close()
    return None if contents(path)[0] == first else "different after a checkpoint"


def contents(path: str) -> tuple[dict[str, Any], str | None]:
    """Return what the tables hold, and what contradicts itself in them."""
    con = duckdb.connect(path)
    try:
        names = [name for (name,) in con.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()]
        rows = {f"main.{name}": _one(con, f"SELECT count(*) FROM {name}") for name in names}
        hashes = {name: str(_one(con, f"SELECT coalesce(sum(hash(t)), 0) FROM {name} t")) for name in names}
        wrong = next(filter(None, (contradiction(con, t) for t in range(THREADS))), None)
        batches = [_one(con, f"SELECT batch FROM state{t}") for t in range(THREADS)]
        return {"tables": rows, "hashes": hashes, "batches": batches}, wrong
    finally:
        con.close()


def contradiction(con: duckdb.DuckDBPyConnection, t: int) -> str | None:
    expectations = {
        f"SELECT sum(balance) FROM account{t}": _ACCOUNTS * 100,
        f"SELECT count(*) FROM noise{t} WHERE b <> 3 * a + id": 0,
        f"SELECT count(*) FROM ledger{t}": _one(con, f"SELECT ledger_rows FROM state{t}"),
        f"SELECT coalesce(sum(amount), 0) FROM ledger{t}": _one(con, f"SELECT ledger_sum FROM state{t}"),
        f"SELECT count(*) FROM bulk{t}": _one(con, f"SELECT bulk_rows FROM state{t}"),
        f"SELECT coalesce(sum(x), 0) FROM bulk{t}": _one(con, f"SELECT bulk_sum FROM state{t}"),
        f"SELECT coalesce(sum(batch), 0) FROM kv{t}": _one(con, f"SELECT kv_sum FROM state{t}"),
        f"SELECT count(*) FROM ledger{t} WHERE batch > (SELECT batch FROM state{t})": 0,
    }
    for sql, expected in expectations.items():
        if (found := _one(con, sql)) != expected:
            return f"{sql}: {found}, not {expected}"
    return None


def _one(con: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = con.execute(sql).fetchone()
    assert row is not None
    return int(row[0])


def main() -> None:
    command, path, *rest = sys.argv[1:]
    if command == "write":
        write(path, rest[0], int(rest[1]))
    else:
        print(json.dumps(check(path, [int(number) for number in rest], quick=command == "glance")), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
