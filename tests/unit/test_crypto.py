import os

import pytest
from hypothesis import given, strategies as st

from flybackup.crypto import new_session_key, open_blob, seal_blob
from flybackup.errors import IntegrityError
from flybackup.keys import Master

KEY = bytes(range(32))
MASTER = Master(bytes(16), b"m" * 32)


@given(st.binary(max_size=2000))
def test_a_blob_opens_as_what_was_sealed(plain: bytes) -> None:
    assert open_blob(KEY, "snapshots/a", seal_blob(KEY, "snapshots/a", plain)) == plain


@given(st.binary(max_size=300), st.data())
def test_any_changed_bit_of_a_blob_is_found(plain: bytes, data: st.DataObject) -> None:
    sealed = bytearray(seal_blob(KEY, "name", plain))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << (bit % 8)

    with pytest.raises(IntegrityError, match="name"):
        open_blob(KEY, "name", sealed)


def test_a_blob_does_not_open_under_another_name_or_key() -> None:
    sealed = seal_blob(KEY, "snapshots/a", b"head")

    for key, name in ((KEY, "snapshots/b"), (bytes(32), "snapshots/a")):
        with pytest.raises(IntegrityError):
            open_blob(key, name, sealed)


@given(st.binary(max_size=100))
def test_garbage_is_no_blob(garbage: bytes) -> None:
    with pytest.raises(IntegrityError):
        open_blob(KEY, "name", garbage)


def test_sealing_twice_gives_different_bytes() -> None:
    assert seal_blob(KEY, "name", b"same") != seal_blob(KEY, "name", b"same")


def test_a_session_key_opens_with_the_restore_key_of_its_repository_only() -> None:
    session = new_session_key(MASTER.private_key.public_bytes(), MASTER.repository_id)

    assert MASTER.private_key.open_session(session.sealed, MASTER.repository_id) == session.secret
    with pytest.raises(IntegrityError):
        MASTER.private_key.open_session(session.sealed, b"another one 1234")
    with pytest.raises(IntegrityError):
        Master(bytes(16), os.urandom(32)).private_key.open_session(session.sealed, MASTER.repository_id)
    with pytest.raises(IntegrityError):
        MASTER.private_key.open_session(session.sealed[:-1], MASTER.repository_id)


def test_secrets_do_not_show_in_a_repr() -> None:
    session = new_session_key(MASTER.private_key.public_bytes(), MASTER.repository_id)

    shown = repr([session, MASTER, MASTER.write_key, MASTER.private_key])

    for secret in (session.secret, MASTER.secret, MASTER.write_key.secret):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
