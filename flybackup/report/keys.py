"""What `init` and `key` say. The only reports that hold a secret, because they were asked for it."""

from collections.abc import Iterator, Sequence
from datetime import datetime, tzinfo

from flybackup.keys import KeySlot
from flybackup.report.documents import Document
from flybackup.report.table import Block, Table
from flybackup.report.units import human_time
from flybackup.repository import Repository

_ID_DIGITS = 8


def init_document(repository: Repository, recovery_key: str) -> Document:
    return {"repository": repository.store.url, "id": repository.id.hex(), "recovery_key": recovery_key}


def init_text(repository: Repository, recovery_key: str) -> Iterator[Block]:
    yield f"Made a repository at {repository.store.url}\n  id {repository.id.hex()}\n"
    yield f"Recovery key:\n\n    {recovery_key}\n"
    yield (
        "Write it down now, on paper or in a password manager, and not on this machine.\n"
        "It restores everything, also when the passphrase is forgotten; without both of\n"
        "them nothing can be read, by anybody. It is shown once. Whoever has the\n"
        "passphrase can see it again: flybackup key recovery\n"
    )
    yield (
        "An agent that should back up, and not be able to read what it stores, needs\n"
        "only the write key: flybackup key write-key"
    )


def slot_id(name: str) -> str:
    return name.removeprefix("keys/")


def keys_document(slots: Sequence[tuple[str, KeySlot]]) -> Document:
    return {
        "keys": [
            {"id": slot_id(name), "label": slot.label, "created": slot.created, "kdf": slot.kdf} for name, slot in slots
        ]
    }


def keys_text(slots: Sequence[tuple[str, KeySlot]], *, zone: tzinfo) -> Iterator[Block]:
    if not slots:
        yield "There is no passphrase: only the recovery key opens this repository. Add one: flybackup key add."
        return
    rows = [
        (slot_id(name)[:_ID_DIGITS], human_time(datetime.fromisoformat(slot.created), zone), slot.label)
        for name, slot in slots
    ]
    yield Table(("=ID", "=CREATED", "LABEL"), rows)
