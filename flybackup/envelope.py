"""Sealed values: what every small object of the repository is. MessagePack, compressed, sealed under its name.

value := blob( encoding byte · MessagePack, zstd-compressed when that pays )
"""

from typing import Any, TypeVar

import msgspec

from flybackup.compression import compress, decompress
from flybackup.crypto import Buffer, open_blob, seal_blob
from flybackup.errors import IntegrityError

T = TypeVar("T")

LARGEST_VALUE_BYTES = 1 << 30
UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that it cannot decode; the last one for values nested thousands deep."""


def seal_value(key: bytes, name: str, value: Any) -> bytes:
    """Return *value* sealed with *key*; it opens only under the same *name*."""
    encoding, body = compress(msgspec.msgpack.encode(value))
    return seal_blob(key, name, bytes((encoding,)) + body)


def open_value(key: bytes, name: str, sealed: Buffer, type_: type[T]) -> T:
    """Raise `IntegrityError` when the bytes or the name differ from what was sealed, or hold no such value."""
    body = memoryview(open_blob(key, name, sealed))
    try:
        return msgspec.msgpack.decode(decompress(body[0], body[1:], LARGEST_VALUE_BYTES), type=type_)
    except (*UNDECODABLE, IndexError) as exc:
        raise IntegrityError("does not decode: another version or a forged object", key=name) from exc
