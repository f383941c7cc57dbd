"""The command lines of `pg_dump` and `pg_restore`, and how they are run for a database.

A program whose pipe breaks ends by itself, so none outlives us, however we die: pg_dump fails at its next write,
pg_restore reads the end of a truncated archive.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final

from flybackup.sources.postgres.clients import Client
from flybackup.sources.postgres.connection import Address
from flybackup.sources.programs.running import Invocation, Program, running as running_program

_STATISTICS_SINCE: Final = 18
_HINT: Final = "`flybackup doctor` tells what this server lacks or forbids"


def dump_command(client: Client, address: Address, *options: str) -> list[str]:
    """Return the command line of a dump: one uncompressed stream, so that equal data are equal bytes."""
    start = [client.program("pg_dump"), "--format=custom", "--compress=0", "--no-password"]
    statistics = ["--no-statistics"] if client.major >= _STATISTICS_SINCE else []
    return [*start, *statistics, *options, f"--dbname={address.argument()}"]


def restore_command(client: Client, into: Address, *options: str) -> list[str]:
    """Return the command line of a restore: it stops at the first error, and asks for nothing."""
    start = [client.program("pg_restore"), "--format=custom", "--exit-on-error", "--no-password"]
    return [*start, *options, f"--dbname={into.argument()}"]


def running(arguments: Sequence[str], address: Address, *, feeding: bool = False) -> AbstractContextManager[Program]:
    """Run *arguments* for the database at *address*; whatever happens in the block, the program is gone after it."""
    environment = address.environment()
    invocation = Invocation(
        arguments=arguments, environment=environment, subject=address.url, hint=_HINT, hide=address.scrub
    )
    return running_program(invocation, feeding=feeding)


def run(arguments: Sequence[str], address: Address) -> str:
    """Run *arguments* to their end and return what they said on standard error. Raise `SourceError`."""
    with running(arguments, address) as program:
        for _ in program.output():
            pass
        return program.last_words()
