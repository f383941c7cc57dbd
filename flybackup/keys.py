"""Who may do what: the master secret, and what is derived from it.

    master secret ──> restore key (private)                     printed once as the recovery key
         │                                                      wrapped by a passphrase in keys/<id>
         └──────────> write secret ──> metadata key, chunk-id keys, config key …

The write key text carries the write secret and the digest of the public key: enough to back up, list and see facts,
and no way back to the master secret (HKDF does not run backwards). Text forms carry a checksum, so that a slip of the
pen is told apart from a wrong key.
"""

import base64
import hmac
import os
from dataclasses import dataclass
from functools import cached_property

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from flybackup.crypto import (
    DIGEST_BYTES,
    KEY_BYTES,
    MLKEM768_SEED_BYTES,
    PrivateKey,
    derive,
    digest,
    keyed_digest,
)
from flybackup.envelope import UNDECODABLE
from flybackup.errors import IntegrityError, UnsupportedFormatError, WrongKeyError

REPOSITORY_ID_BYTES = 16
_WRITE_PREFIX = "flybackup-write-1-"
_RECOVERY_PREFIX = "flybackup-recovery-1-"
_WRITE_CHECK_BYTES = 4
_RECOVERY_CHECK_BYTES = 3


@dataclass(frozen=True, repr=False)
class WriteKey:
    """Enough to back up, list, see facts and check structure; not to read data."""

    repository_id: bytes
    secret: bytes
    public_key_digest: bytes

    @cached_property
    def metadata(self) -> bytes:
        """Seals snapshots, manifests, indexes and pack directories."""
        return self._derive("metadata")

    @cached_property
    def data_ids(self) -> bytes:
        """Names data chunks."""
        return self._derive("data ids")

    @cached_property
    def manifest_ids(self) -> bytes:
        """Names manifest chunks: another key, so that the two never meet in the index."""
        return self._derive("manifest ids")

    @cached_property
    def chunker_multiplier(self) -> int:
        """An odd 64-bit number: where content-defined chunks end is a secret of the repository."""
        return int.from_bytes(self._derive("chunker", 8), "little") | 1

    def config_mac(self, text: bytes) -> bytes:
        return hmac.digest(self._derive("config"), text, "sha256")

    def source_key(self, source: str) -> str:
        """Return the name under which a source's snapshots lie: a bucket's reader learns no application's name."""
        return keyed_digest(self._derive("source names"), source.encode())[:8].hex()

    def _derive(self, purpose: str, length: int = KEY_BYTES) -> bytes:
        return derive(self.secret, self.repository_id, purpose, length)

    def text(self) -> str:
        """Return the form that goes into FLYBACKUP_WRITE_KEY."""
        body = self.repository_id + self.secret + self.public_key_digest
        return _WRITE_PREFIX + base64.urlsafe_b64encode(body + digest(body)[:_WRITE_CHECK_BYTES]).decode().rstrip("=")


def parse_write_key(text: str) -> WriteKey:
    """Raise `WrongKeyError` for a text that is not a whole write key."""
    encoded = text.strip().removeprefix(_WRITE_PREFIX)
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raw = b""
    body = raw[:-_WRITE_CHECK_BYTES]
    expected = REPOSITORY_ID_BYTES + KEY_BYTES + DIGEST_BYTES
    if len(body) != expected or not hmac.compare_digest(digest(body)[:_WRITE_CHECK_BYTES], raw[-_WRITE_CHECK_BYTES:]):
        raise WrongKeyError(
            "FLYBACKUP_WRITE_KEY is not a whole write key",
            hint=f"It begins with {_WRITE_PREFIX} and is one line; 'flybackup key write-key' prints it.",
        )
    return WriteKey(body[:16], body[16:48], body[48:])


@dataclass(frozen=True, repr=False)
class Master:
    """The secret from which every key of a repository derives."""

    repository_id: bytes
    secret: bytes

    @cached_property
    def private_key(self) -> PrivateKey:
        return PrivateKey(
            derive(self.secret, self.repository_id, "ML-KEM-768 seed", MLKEM768_SEED_BYTES),
            derive(self.secret, self.repository_id, "X25519 seed"),
        )

    @cached_property
    def write_key(self) -> WriteKey:
        secret = derive(self.secret, self.repository_id, "write secret")
        return WriteKey(self.repository_id, secret, digest(self.private_key.public_bytes()))

    def recovery_text(self) -> str:
        """Return the recovery key: the secret itself, in base32 groups of four that a person can type."""
        code = base64.b32encode(self.secret + digest(self.secret)[:_RECOVERY_CHECK_BYTES]).decode()
        return _RECOVERY_PREFIX + "-".join(code[at : at + 4] for at in range(0, len(code), 4))


def parse_recovery_key(text: str, repository_id: bytes) -> Master:
    """Raise `WrongKeyError` for a text with a slip in it; case, spaces and dashes do not matter."""
    code = "".join(text.split()).lower().removeprefix(_RECOVERY_PREFIX).replace("-", "").upper()
    try:
        raw = base64.b32decode(code)
    except ValueError:  # also for letters outside ASCII, as a word processor's dashes
        raw = b""
    secret, check = raw[:KEY_BYTES], raw[KEY_BYTES:]
    if len(secret) != KEY_BYTES or not hmac.compare_digest(digest(secret)[:_RECOVERY_CHECK_BYTES], check):
        raise WrongKeyError(
            "this is not a whole recovery key, or a character of it is wrong",
            hint=f"It begins with {_RECOVERY_PREFIX} and has fourteen groups of four letters and digits.",
        )
    return Master(repository_id, secret)


class Argon2Cost(msgspec.Struct, frozen=True):
    """Cost of a passphrase guess (RFC 9106, second recommended option)."""

    memory_kib: int = 64 * 1024
    iterations: int = 3
    lanes: int = 4


# A hostile store could ask for terabytes; what flybackup writes is far below.
_MOST_MEMORY_KIB = 1024 * 1024
_MOST_ITERATIONS = 64
_MOST_LANES = 64


class KeySlot(msgspec.Struct, frozen=True, kw_only=True):
    """`keys/<id>`: the master secret wrapped by a passphrase. Stored as JSON, named by the digest of its bytes."""

    repository: str
    kdf: str = "argon2id"
    cost: Argon2Cost
    salt: bytes
    wrapped: bytes
    label: str = ""
    created: str


def wrap(master: Master, passphrase: str, *, label: str, created: str, cost: Argon2Cost | None = None) -> bytes:
    """Return the bytes of a key slot. A fresh salt gives a fresh wrapping key, so the zero nonce is used once."""
    cost = cost or Argon2Cost()
    salt = os.urandom(16)
    key = _stretch(passphrase, salt, cost)
    wrapped = AESGCM(key).encrypt(bytes(12), master.secret, _slot_binding(master.repository_id))
    repository = master.repository_id.hex()
    slot = KeySlot(repository=repository, cost=cost, salt=salt, wrapped=wrapped, label=label, created=created)
    return msgspec.json.encode(slot)


def read_slot(name: str, stored: bytes) -> KeySlot:
    """Decode `keys/<id>`. Its name is the digest of its bytes, so damage shows before any passphrase is tried."""
    if not hmac.compare_digest(digest(stored).hex(), name.rpartition("/")[2]):
        raise IntegrityError("its bytes do not match its name", key=name)
    try:
        slot = msgspec.json.decode(stored, type=KeySlot)
    except UNDECODABLE as exc:
        raise IntegrityError("is not a key slot", key=name) from exc
    if slot.kdf != "argon2id":
        raise UnsupportedFormatError(f"{name} uses the unknown key derivation {slot.kdf!r}", hint="Update flybackup.")
    return slot


def unwrap(slot: KeySlot, passphrase: str) -> Master | None:
    """Return the master secret, or None when the passphrase is not this slot's."""
    cost = slot.cost
    most = ((cost.memory_kib, _MOST_MEMORY_KIB), (cost.iterations, _MOST_ITERATIONS), (cost.lanes, _MOST_LANES))
    if not all(0 < asked <= limit for asked, limit in most):
        raise IntegrityError("a key slot asks for an absurd amount of work; the store may be hostile")
    repository_id = bytes.fromhex(slot.repository)
    try:
        key = _stretch(passphrase, slot.salt, cost)
        secret = AESGCM(key).decrypt(bytes(12), slot.wrapped, _slot_binding(repository_id))
    except (InvalidTag, ValueError):
        return None
    return Master(repository_id, secret)


def _stretch(passphrase: str, salt: bytes, cost: Argon2Cost) -> bytes:
    kdf = Argon2id(
        salt=salt, length=KEY_BYTES, iterations=cost.iterations, lanes=cost.lanes, memory_cost=cost.memory_kib
    )
    return kdf.derive(passphrase.encode())


def _slot_binding(repository_id: bytes) -> bytes:
    return b"flybackup 1 key slot " + repository_id
