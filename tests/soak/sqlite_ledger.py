"""A SQLite application whose data betrays a torn or stale copy, and the check of such a copy.

    python -m soak.sqlite_ledger DATABASE ACK SEED MODE      runs until it is killed; MODE is a journal mode

Each of two threads owns its tables and a connection, which it closes and opens again now and then. A transaction
changes several tables and then its row of `state`, which says what the others must hold; after the commit the batch
number is acknowledged in the file ACK, with the longest time that a commit took. Caches are small, so that a large
transaction writes to the database file before it commits, and a kill leaves a hot journal.
"""

import itertools
import os
import random
import sqlite3
import struct
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

THREADS = 2
_ACCOUNTS = 5_000
_ACK = struct.Struct("<Qd")


def connect(path: str, mode: str) -> sqlite3.Connection:
    con = sqlite3.connect(path, isolation_level=None, timeout=120)
    con.execute(f"PRAGMA journal_mode = {mode}")
    con.execute("PRAGMA synchronous = OFF")  # the machine is not unplugged; the process is killed
    con.execute("PRAGMA cache_size = 20")
    con.execute("PRAGMA wal_autocheckpoint = 100")
    return con


def create(con: sqlite3.Connection) -> None:
    numbers = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < {})"
    con.execute("BEGIN")
    con.execute(f"CREATE TABLE ballast AS {numbers.format(60_000)} SELECT i, hex(randomblob(60)) AS h FROM r")
    for t in range(THREADS):
        con.execute(f"CREATE TABLE account{t} (id INTEGER PRIMARY KEY, balance)")
        con.execute(f"{numbers.format(_ACCOUNTS)} INSERT INTO account{t} SELECT i, 100 FROM r")
        con.execute(f"CREATE TABLE ledger{t} (batch, amount)")
        con.execute(f"CREATE TABLE bulk{t} (batch, x, filler)")
        con.execute(f"CREATE INDEX by_batch{t} ON bulk{t} (batch)")
        con.execute(f"CREATE TABLE state{t} (batch, ledger_rows, ledger_sum, bulk_rows, bulk_sum)")
        con.execute(f"INSERT INTO state{t} VALUES (0, 0, 0, 0, 0)")
    con.execute("COMMIT")


class Worker(threading.Thread):
    def __init__(self, path: str, mode: str, number: int, ack_fd: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.path, self.mode, self.t, self.ack_fd = path, mode, number, ack_fd
        self.random = random.Random(seed * 1000 + number)
        self.longest_seconds = 0.0

    def run(self) -> None:
        while True:
            with closing(connect(self.path, self.mode)) as con:
                for _ in range(self.random.randint(1, 60)):
                    self.step(con)
                if self.random.random() < 0.3:
                    con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                if self.random.random() < 0.05:
                    con.execute("VACUUM")

    def step(self, con: sqlite3.Connection) -> None:
        t = self.t
        began = time.monotonic()
        con.execute("BEGIN IMMEDIATE")
        batch = con.execute(f"SELECT batch FROM state{t}").fetchone()[0] + 1
        a, b = self.random.sample(range(1, _ACCOUNTS + 1), 2)
        con.execute(f"UPDATE account{t} SET balance = balance - 7 WHERE id = {a}")
        con.execute(f"UPDATE account{t} SET balance = balance + 7 WHERE id = {b}")
        con.executemany(f"INSERT INTO ledger{t} VALUES (?, ?)", ((batch, i) for i in range(self.random.randint(1, 20))))
        self.change_bulk(con, batch)
        con.execute(
            f"UPDATE state{t} SET batch = {batch}, ledger_rows = (SELECT count(*) FROM ledger{t}), "
            f"ledger_sum = (SELECT total(amount) FROM ledger{t}), "
            f"bulk_rows = (SELECT count(*) FROM bulk{t}), bulk_sum = (SELECT total(x) FROM bulk{t})"
        )
        if self.random.random() < 0.05:
            con.execute("ROLLBACK")
            return
        con.execute("COMMIT")
        self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
        os.pwrite(self.ack_fd, _ACK.pack(batch, self.longest_seconds), t * _ACK.size)

    def change_bulk(self, con: sqlite3.Connection, batch: int) -> None:
        if self.random.random() < 0.3:
            rows = self.random.choice([10, 500, 3_000])
            con.executemany(f"INSERT INTO bulk{self.t} VALUES (?, ?, ?)", ((batch, i, "x" * 300) for i in range(rows)))
        if self.random.random() < 0.2:
            con.execute(f"DELETE FROM bulk{self.t} WHERE batch < {batch - self.random.choice([5, 20, 40])}")
        if self.random.random() < 0.1:
            con.execute(f"UPDATE bulk{self.t} SET x = x + 1, filler = filler || 'y'")


def acknowledged(ack: Path) -> tuple[list[int], float]:
    """Return the last batch of each thread, and the longest that a transaction took since the application started."""
    data = ack.read_bytes()
    found = [_ACK.unpack_from(data, t * _ACK.size) for t in range(THREADS)]
    return [batch for batch, _ in found], max(seconds for _, seconds in found)


def wrong_with(path: Path, acked: list[int], counts: dict[str, int] | None) -> str | None:
    """Use the copy as the application would; say what is wrong with it. *counts* are what the facts claim."""
    try:
        with closing(sqlite3.connect(path)) as con:
            return _contradiction(con, acked, counts)
    except sqlite3.Error as exc:
        return f"SQLite: {exc}"


def _contradiction(con: sqlite3.Connection, acked: list[int], counts: dict[str, int] | None) -> str | None:
    if (found := con.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
        return f"integrity: {found}"
    for t, least in zip(range(THREADS), acked, strict=True):
        batch, *state = con.execute(f"SELECT * FROM state{t}").fetchone()
        if batch < least:
            return f"acknowledged commits are missing: {batch} < {least}"
        there = con.execute(
            f"SELECT (SELECT count(*) FROM ledger{t}), (SELECT total(amount) FROM ledger{t}), "
            f"(SELECT count(*) FROM bulk{t}), (SELECT total(x) FROM bulk{t})"
        ).fetchone()
        if list(there) != state:
            return f"thread {t}, batch {batch}: {there}, not {state}"
        if con.execute(f"SELECT sum(balance), count(*) FROM account{t}").fetchone() != (100 * _ACCOUNTS, _ACCOUNTS):
            return f"thread {t}: the balances do not add up"
    names = [name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    there = {f"main.{name}": con.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}
    return None if counts in (None, there) else f"facts {counts}, not {there}"


def main() -> None:
    path, ack, seed, mode = sys.argv[1:]
    with closing(connect(path, mode)) as con:
        if not con.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            create(con)
        batches = [con.execute(f"SELECT batch FROM state{t}").fetchone()[0] for t in range(THREADS)]
    fd = os.open(ack, os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(fd, b"".join(map(_ACK.pack, batches, itertools.repeat(0.0))), 0)
    for number in range(THREADS):
        Worker(path, mode, number, fd, int(seed)).start()
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
