"""Read a snapshot's streams into an empty database.

The globals come first: roles that are missing on the server are made before the dump, which names them as owners. With
one job the dump goes straight into `pg_restore`; with several, or for single tables, it is spooled to the scratch
directory, for `pg_restore` has to read it in more than one place.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from flybackup.clock import Clock
from flybackup.errors import SourceError
from flybackup.sources import RestoreOptions, Stream
from flybackup.sources.postgres import globals as cluster, obstacles, roles, selection
from flybackup.sources.postgres.clients import Client
from flybackup.sources.postgres.connection import Address, any_session, connected
from flybackup.sources.postgres.globals import Globals
from flybackup.sources.postgres.process import restore_command, run, running
from flybackup.sources.postgres.target import State
from flybackup.sources.programs import arrival

_NO_TABLESPACES: Final = "the original tablespaces {} are not on this server: everything is in the default one"


@dataclass(kw_only=True)
class Work:
    """One restore: where it goes, with what, and what there is to tell about it (`notes`)."""

    address: Address
    state: State
    options: RestoreOptions
    chosen: Sequence[selection.Name]
    client: Client
    first: Sequence[Path]
    scratch: Path
    clock: Clock
    globals: Globals | None = None
    notes: list[str] = field(default_factory=list)

    @cached_property
    def stamp(self) -> str:
        """The time of the restore, for names: UTC."""
        return self.clock.now().strftime("%Y%m%d_%H%M%S")


def receive(work: Work, streams: Iterator[Stream], into: Address, *, one_transaction: bool = False) -> None:
    """Load *streams* into the empty database at *into*, and analyze it. Raise `SourceError`."""
    loaded = False
    for stream in streams:
        if stream.entry.path == "globals":
            _make_roles(work, b"".join(bytes(block) for block in arrival.in_order(stream, work.scratch)))
        elif stream.entry.path == "dump":
            _load(work, stream, into, one_transaction=one_transaction)
            loaded = True
        else:
            raise SourceError(f"the snapshot has an unknown part {stream.entry.path!r}", hint="update flybackup")
    if not loaded:
        raise SourceError("the snapshot holds no dump of a database")
    with connected(into) as session:
        # Without it the first queries run on no statistics at all; a refusal is no reason to give up what is restored.
        if refusal := cluster.execute(session, "ANALYZE"):
            work.notes.append(f"ANALYZE could not finish: {refusal}")


def _make_roles(work: Work, content: bytes) -> None:
    if work.chosen:
        # Single tables come without owners, into a place with settings of its own.
        return
    work.globals = cluster.load(content)
    with any_session(work.address) as session:
        work.notes += roles.apply(session, work.globals, work.state.server.roles)


def _load(work: Work, stream: Stream, into: Address, *, one_transaction: bool) -> None:
    if work.chosen:
        selection.load(work, arrival.spooled(stream, work.scratch / "dump"), into)
        return
    arguments = restore_command(work.client, into, *_adaptations(work, into))
    if work.options.jobs > 1:
        file = arrival.spooled(stream, work.scratch / "dump")
        run([*arguments, f"--jobs={work.options.jobs}", str(file)], into)
        file.unlink()
        return
    arguments += ["--single-transaction"] if one_transaction else []
    with running(arguments, into, feeding=True) as program:
        program.feed(arrival.in_order(stream, work.scratch))


def _adaptations(work: Work, into: Address) -> list[str]:
    """Return the options for what this server or role cannot give, and note each."""
    with connected(into) as session:
        offered = obstacles.offered(session)
        foreign = obstacles.foreign_extensions(session)
        missing = obstacles.missing_tablespaces(session, work.options.facts)
    options = []
    if reason := obstacles.why_no_owners(offered, work.options.facts):
        options += ["--no-owner", "--no-acl"]
        work.notes.append(f"owners and grants were not restored, {offered.role} owns everything: {reason}")
    if foreign:
        options.append("--no-comments")
        work.notes.append(f"comments were not restored: the extensions {', '.join(foreign)} belong to another role")
    if missing:
        options.append("--no-tablespaces")
        work.notes.append(_NO_TABLESPACES.format(", ".join(missing)))
    return options
