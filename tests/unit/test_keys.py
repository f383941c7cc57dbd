import base64

import msgspec
import pytest
from hypothesis import given, strategies as st

from flybackup.crypto import digest
from flybackup.errors import IntegrityError, UnsupportedFormatError, WrongKeyError
from flybackup.keys import Argon2Cost, Master, parse_recovery_key, parse_write_key, read_slot, unwrap, wrap

CHEAP = Argon2Cost(memory_kib=64, iterations=1, lanes=1)
MASTER = Master(bytes(range(16)), bytes(range(32)))


def slot(passphrase: str = "right") -> bytes:
    return wrap(MASTER, passphrase, label="test", created="2026-01-01", cost=CHEAP)


def named(stored: bytes) -> str:
    return f"keys/{digest(stored).hex()}"


def test_a_slot_opens_with_its_passphrase_only() -> None:
    stored = slot()
    read = read_slot(named(stored), stored)

    opened = unwrap(read, "right")

    assert opened is not None
    assert opened.secret == MASTER.secret
    assert unwrap(read, "wrong") is None
    assert unwrap(read, "") is None


def test_a_passphrase_may_be_any_text() -> None:
    stored = slot("pässwörd 密码 \U0001f511")

    assert unwrap(read_slot(named(stored), stored), "pässwörd 密码 \U0001f511") is not None


def test_a_damaged_slot_is_damage_not_a_wrong_passphrase() -> None:
    stored = slot()

    with pytest.raises(IntegrityError):
        read_slot(named(stored), stored.replace(b"test", b"tost"))


@pytest.mark.parametrize("cost", [(1 << 31, 1, 1), (64, 1 << 31, 1), (64, 1, 65), (-1, 1, 1), (64, -1, 1), (64, 1, -1)])
def test_a_slot_that_asks_for_absurd_work_is_refused_before_the_work(cost: tuple[int, int, int]) -> None:
    stored = slot_with(cost=Argon2Cost(*cost))

    with pytest.raises(IntegrityError, match="absurd"):
        unwrap(read_slot(named(stored), stored), "right")


def slot_with(*, cost: Argon2Cost, kdf: str = "argon2id") -> bytes:
    fields = msgspec.json.decode(slot())
    return msgspec.json.encode(fields | {"cost": msgspec.to_builtins(cost), "kdf": kdf})


@pytest.mark.parametrize("stored", [b'{"label": "\xff"}', b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"])
def test_a_slot_that_does_not_decode_is_damage(stored: bytes) -> None:
    with pytest.raises(IntegrityError, match="not a key slot"):
        read_slot(named(stored), stored)


def test_an_unknown_derivation_is_an_unsupported_format() -> None:
    stored = slot_with(cost=CHEAP, kdf="scrypt2")

    with pytest.raises(UnsupportedFormatError):
        read_slot(named(stored), stored)


def test_the_recovery_key_survives_a_persons_typing() -> None:
    text = MASTER.recovery_text()

    for typed in (text, text.lower(), text.upper(), f"  {text}\n", text.replace("-", " ").replace(" ", "-", 3)):
        assert parse_recovery_key(typed, MASTER.repository_id).secret == MASTER.secret


@given(st.data())
def test_a_slip_in_the_recovery_key_is_noticed(data: st.DataObject) -> None:
    text = MASTER.recovery_text()
    place = data.draw(st.integers(len("flybackup-recovery-1-"), len(text) - 1).filter(lambda at: text[at] != "-"))
    letter = data.draw(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567").filter(lambda c: c != text[place]))

    with pytest.raises(WrongKeyError):
        parse_recovery_key(text[:place] + letter + text[place + 1 :], MASTER.repository_id)


@given(st.text(max_size=80))
def test_any_other_text_is_no_recovery_key(text: str) -> None:
    for bad in (text, "flybackup-recovery-1-" + text, MASTER.recovery_text().replace("-", "\N{EN DASH}")):
        with pytest.raises(WrongKeyError):
            parse_recovery_key(bad, MASTER.repository_id)


def test_the_write_key_holds_nothing_of_the_master_secret() -> None:
    text = MASTER.write_key.text()
    raw = base64.urlsafe_b64decode(text.removeprefix("flybackup-write-1-") + "==")

    assert MASTER.secret not in raw
    assert parse_write_key(text).secret == MASTER.write_key.secret
    assert parse_write_key(text).metadata == MASTER.write_key.metadata


@given(st.text(max_size=200))
def test_any_other_text_is_no_write_key(text: str) -> None:
    for bad in (text, "flybackup-write-1-" + text, MASTER.write_key.text()[:-1], MASTER.write_key.text() + "A"):
        with pytest.raises(WrongKeyError):
            parse_write_key(bad)


def test_keys_for_different_uses_differ() -> None:
    key = MASTER.write_key

    assert len({key.metadata, key.data_ids, key.manifest_ids, key.secret, MASTER.secret}) == 5
    assert key.source_key("a") != key.source_key("b")
    assert key.chunker_multiplier % 2 == 1
