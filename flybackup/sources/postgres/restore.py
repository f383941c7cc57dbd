"""Restore a dump beside its target, prove it there, then let it take the target's place.

See `target` for where a restore goes, and `loading` for how the dump is read.
"""

import logging
import secrets
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from flybackup.clock import Clock
from flybackup.errors import SourceError
from flybackup.model import Facts
from flybackup.sources import Restoration, RestoreOptions, Stream
from flybackup.sources.postgres import clients, facts, globals as cluster, obstacles, selection, swap, target
from flybackup.sources.postgres.clients import Client
from flybackup.sources.postgres.connection import Address, any_session, connected
from flybackup.sources.postgres.inside import inside
from flybackup.sources.postgres.loading import Work, receive
from flybackup.sources.postgres.quoting import name_beside
from flybackup.sources.postgres.target import Place, State

_log: Final = logging.getLogger(__name__)


@contextmanager
def restore(
    address: Address,
    streams: Iterator[Stream],
    options: RestoreOptions,
    scratch: Path,
    *,
    first: Sequence[Path],
    clock: Clock,
) -> Generator[Restoration]:
    """Restore *streams* beside the database at *address*. Raise `RefusedError` before anything is read."""
    chosen = selection.resolve(options.tables, options.facts)
    state, place = _decided(address, options)
    work = Work(
        address=address,
        state=state,
        options=options,
        chosen=chosen,
        client=_client(state, options.facts, first),
        first=first,
        scratch=scratch,
        clock=clock,
    )
    with inside(work, streams) if place == "inside" else _beside(work, streams, place) as restoration:
        yield restoration


def refuse(address: Address, options: RestoreOptions) -> None:
    """Raise what speaks against restoring into *address* as it is."""
    _decided(address, options)


def _decided(address: Address, options: RestoreOptions) -> tuple[State, Place]:
    state = target.look(address)
    place = target.decide(state, address.database, replace=options.replace, tables=options.tables)
    _refuse_unsuitable(address, state, options.facts)
    return state, place


class _Settling(Restoration, Protocol):
    """A restoration that remembers whether it was published or kept."""

    settled: bool


class Beside:
    """A restored database under a name of its own, which takes the target's name when it is published."""

    def __init__(self, work: Work, into: Address) -> None:
        self._work = work
        self._into = into
        self.settled = False

    def probe(self, *, checksums: bool) -> Facts:
        with connected(self._into) as session:
            return facts.measure(session, checksums=checksums)

    def publish(self) -> tuple[str, ...]:
        said = [*self._work.notes, *self._dress()]
        if not self._work.state.exists:
            self._take_free_name()
            return tuple(said)
        return (*said, *self._exchange())

    def keep(self) -> str:
        self.settled = True
        return f"the restored database is kept as {self._into.url}"

    def _take_free_name(self) -> None:
        name = self._work.address.database
        with any_session(self._work.address) as session:
            swap.rename(session, self._into.database, name)
        self.settled = True

    def _exchange(self) -> list[str]:
        name = self._work.address.database
        aside = name_beside(name, f"before_restore_{self._work.stamp}")
        with any_session(self._work.address) as session:
            swap.exchange(session, name, self._into.database, aside)
            self.settled = True
            if self._work.state.empty:
                swap.drop(session, aside)
                return []
        undo = " ".join(swap.undo(name, aside))
        return [
            f"restored to {name}; its old content is the database {aside}: drop that when it is not needed any more",
            f"to undo, connect to another database of the server and run: {undo}",
        ]

    def _dress(self) -> list[str]:
        """Give the database the owner, settings and rights of the one it replaces, else of the captured one."""
        wanted = self._work.globals
        if self._work.state.exists:
            with connected(self._work.address) as session:
                wanted = cluster.read(session)
        if wanted is None:
            return []
        with any_session(self._work.address) as session:
            statements = cluster.database_statements(wanted, self._into.database)
            answers = ((statement, cluster.execute(session, statement)) for statement in statements)
            return [f"not done: {statement} {refusal}" for statement, refusal in answers if refusal]


@contextmanager
def _beside(work: Work, streams: Iterator[Stream], place: Place) -> Generator[Restoration]:
    into = work.address.naming(name_beside(work.address.database, f"flybackup_{secrets.token_hex(4)}"))
    restoration: _Settling = selection.InSchema(work, into) if place == "schema" else Beside(work, into)
    with any_session(work.address) as session:
        work.notes += swap.create(session, into.database, work.options.facts.details)
    try:
        receive(work, streams, into)
        yield restoration
    finally:
        if not restoration.settled:
            _remove(into)


def _remove(leftover: Address) -> None:
    try:
        with any_session(leftover) as session:
            swap.drop(session, leftover.database)
    except SourceError as error:
        # The reason why we are here is the one to be told.
        _log.warning("could not remove the unfinished database %s: %s", leftover.database, error)


def _refuse_unsuitable(address: Address, state: State, facts_there: Facts) -> None:
    errors = [item for item in obstacles.judge_target(state.server, facts_there) if item.level == "error"]
    if errors:
        what = "; ".join(error.what for error in errors)
        raise SourceError(f"{address.url}: {what}", hint="; ".join(error.do for error in errors))


def _client(state: State, facts_there: Facts, first: Sequence[Path]) -> Client:
    server_major = state.server.server.major
    dump_major = obstacles.dump_major(facts_there) or server_major
    return clients.for_restore(dump_major, server_major, clients.installed(first))
