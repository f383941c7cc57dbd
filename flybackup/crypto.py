"""The few cryptographic operations of format 1, each a thin use of one primitive of `cryptography` or `blake3`.

Nothing is invented here: HKDF-SHA256 (RFC 5869) derives, AES-256-GCM (NIST SP 800-38D) seals, HPKE (RFC 9180, base
mode, KEM MLKEM768-X25519) seals session keys to a public key, keyed BLAKE3 names. No nonce can repeat: every key that
seals is derived with a fresh 32-byte random salt, or counts its nonces from zero (`docs/format.md`, "Sealing").
"""

import os
from dataclasses import dataclass
from typing import Protocol

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from flybackup.errors import IntegrityError
from flybackup.model import ChunkId

Buffer = bytes | bytearray | memoryview

DIGEST_BYTES = 32
SALT_BYTES = 32
TAG_BYTES = 16
KEY_BYTES = 32
MLKEM768_PUBLIC_BYTES = 1184
MLKEM768_SEED_BYTES = 64
BLOB_MAGIC = b"flyblob1"
_ZERO_NONCE = bytes(12)
_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def digest(data: Buffer) -> bytes:
    """Return the BLAKE3-256 of *data*: what packs, index files and keys are named by."""
    return blake3(data).digest()


class Digest(Protocol):
    """A BLAKE3-256 that is fed piece by piece."""

    def update(self, data: Buffer, /) -> object: ...

    def digest(self) -> bytes: ...

    def hexdigest(self) -> str: ...


def new_digest() -> Digest:
    return blake3()


def keyed_digest(key: bytes, data: Buffer) -> bytes:
    """Return the keyed BLAKE3-256 of *data*."""
    return blake3(data, key=key).digest()


def chunk_id(key: bytes, data: Buffer) -> ChunkId:
    """Name a chunk by its plaintext; without *key* nobody can tell whether known content is stored."""
    return ChunkId(keyed_digest(key, data))


def derive(secret: bytes, salt: bytes, purpose: str, length: int = KEY_BYTES) -> bytes:
    """Return *length* bytes for one purpose (HKDF-SHA256); different purposes give independent keys."""
    info = b"flybackup 1 " + purpose.encode()
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(secret)


def seal_blob(key: bytes, name: str, plaintext: Buffer) -> bytes:
    """Seal a small object under a key of its own: magic, salt, ciphertext.

    *name* is bound in: an object moved to another key of the store does not open there.
    """
    salt = os.urandom(SALT_BYTES)
    cipher = AESGCM(derive(key, salt, "blob"))
    return BLOB_MAGIC + salt + cipher.encrypt(_ZERO_NONCE, plaintext, name.encode())


def open_blob(key: bytes, name: str, sealed: Buffer) -> bytes:
    """Open what `seal_blob` sealed. Raise `IntegrityError` when any bit of it or its name differs."""
    head = len(BLOB_MAGIC)
    if bytes(sealed[:head]) != BLOB_MAGIC:
        raise IntegrityError("does not begin like a sealed object", key=name)
    salt = bytes(sealed[head : head + SALT_BYTES])
    try:
        cipher = AESGCM(derive(key, salt, "blob"))
        return cipher.decrypt(_ZERO_NONCE, sealed[head + SALT_BYTES :], name.encode())
    except (InvalidTag, ValueError) as exc:
        raise IntegrityError("its bytes are not what was written", key=name) from exc


@dataclass(frozen=True, slots=True, repr=False)
class PrivateKey:
    """The restore key: opens session keys. Derived from 96 bytes, so that it need not be stored."""

    _mlkem_seed: bytes
    _x25519_seed: bytes

    def public_bytes(self) -> bytes:
        """Return the public key as stored in `config`: ML-KEM-768 encapsulation key, then X25519 (1216 bytes)."""
        mlkem_key = mlkem.MLKEM768PrivateKey.from_seed_bytes(self._mlkem_seed)
        x25519_key = x25519.X25519PrivateKey.from_private_bytes(self._x25519_seed)
        return mlkem_key.public_key().public_bytes_raw() + x25519_key.public_key().public_bytes_raw()

    def open_session(self, sealed: bytes, repository_id: bytes) -> bytes:
        """Return the session secret. Raise `IntegrityError` when it was not sealed to this key and repository."""
        key = hpke.MLKEM768X25519PrivateKey(
            mlkem.MLKEM768PrivateKey.from_seed_bytes(self._mlkem_seed),
            x25519.X25519PrivateKey.from_private_bytes(self._x25519_seed),
        )
        try:
            return _SUITE.decrypt(sealed, key, info=_session_info(repository_id))
        except (InvalidTag, ValueError) as exc:
            raise IntegrityError("a session key does not open with this repository's restore key") from exc


@dataclass(frozen=True, slots=True, repr=False)
class SessionKey:
    """The key of one writing session: `secret` stays in memory, `sealed` goes with the data."""

    secret: bytes
    sealed: bytes


def new_session_key(public_key: bytes, repository_id: bytes) -> SessionKey:
    """Make a session key that only the holder of the restore key can open again."""
    secret = os.urandom(KEY_BYTES)
    key = hpke.MLKEM768X25519PublicKey(
        mlkem.MLKEM768PublicKey.from_public_bytes(public_key[:MLKEM768_PUBLIC_BYTES]),
        x25519.X25519PublicKey.from_public_bytes(public_key[MLKEM768_PUBLIC_BYTES:]),
    )
    return SessionKey(secret=secret, sealed=_SUITE.encrypt(secret, key, info=_session_info(repository_id)))


def _session_info(repository_id: bytes) -> bytes:
    return b"flybackup 1 session " + repository_id


class ChunkCipher:
    """Seals the chunks of one segment, or opens them. The key is the segment's own, so counters from zero are safe.

    The chunk's id and encoding are bound in: no chunk can be passed off for another.
    """

    def __init__(self, secret: bytes, salt: bytes) -> None:
        self._cipher = AESGCM(derive(secret, salt, "chunks"))

    def seal_into(self, counter: int, bound: bytes, plaintext: Buffer, out: memoryview) -> None:
        """Write ciphertext and tag to *out*, which is `TAG_BYTES` longer than *plaintext*."""
        self._cipher.encrypt_into(counter.to_bytes(12, "big"), plaintext, bound, out)

    def open(self, counter: int, bound: bytes, sealed: Buffer) -> bytes:
        """Raise `IntegrityError` when any bit of the chunk, its id or its place in the segment differs."""
        try:
            return self._cipher.decrypt(counter.to_bytes(12, "big"), sealed, bound)
        except (InvalidTag, ValueError) as exc:
            raise IntegrityError("a chunk's bytes are not what was written") from exc
