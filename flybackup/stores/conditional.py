"""Proof that a store's `create` is what it must be, made by `init` before anything relies on it."""

import secrets
from contextlib import suppress

from flybackup.errors import ObjectExistsError, StoreError
from flybackup.stores import Store


def prove_conditional_create(store: Store) -> None:
    """Raise `StoreError` when *store* lets a second `create` of one key succeed.

    Several S3 servers ignore `If-None-Match` and answer 200: every writer would then believe itself the only one.
    """
    key = f"probes/{secrets.token_hex(16)}"
    first, second = secrets.token_bytes(16), secrets.token_bytes(16)
    store.create(key, first)
    try:
        if not _refuses(store, key, second) or store.get(key) != first:
            raise StoreError(
                f"{store.url}: this server ignores If-None-Match, so two writers could both believe they came first",
                hint="Update the server, or use one with conditional writes (AWS S3, Tigris, R2, MinIO, SeaweedFS …).",
            )
    finally:
        with suppress(StoreError):  # credentials that cannot delete are good ones; the probe is 16 bytes
            store.delete(key)


def _refuses(store: Store, key: str, data: bytes) -> bool:
    try:
        store.create(key, data)
    except ObjectExistsError:
        return True
    return False
