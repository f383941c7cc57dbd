"""The store: can objects be written, read, deleted; does it keep its promises; does it agree about the time?"""

import os
import secrets
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Literal

from flybackup.clock import Clock
from flybackup.doctor import Finding
from flybackup.errors import StoreError
from flybackup.report.units import human_seconds
from flybackup.stores import Store
from flybackup.stores.conditional import prove_conditional_create

_PROBE_BYTES = 1024
_NOTABLE_SKEW = timedelta(seconds=30)
_REFUSED_SKEW = timedelta(minutes=15)
"""S3 refuses requests signed with a clock further off than this (RequestTimeTooSkewed)."""


def storage(store: Store, clock: Clock) -> Iterator[Finding]:
    """Write, read and delete small objects under `probes/`. Raise `StoreError` for what fails."""
    key, content = f"probes/{secrets.token_hex(16)}", os.urandom(_PROBE_BYTES)
    before = clock.now()
    written = store.put(key, content)
    after = clock.now()
    if store.get(key) != content:
        yield Finding("error", "store", f"{store.url} returned other bytes than were written", "Use another store.")
        return
    yield Finding("ok", "store", f"{store.url} can be written to and read")
    yield _deletion(store, key)
    prove_conditional_create(store)
    yield Finding("ok", "store", "creates an object only once, also for two writers at a time")
    yield skew(written, before, after)


def _deletion(store: Store, key: str) -> Finding:
    try:
        store.delete(key)
    except StoreError as exc:
        do = "Good for an agent that only writes; pruning needs credentials that can."
        return Finding("warning", "store", f"these credentials cannot delete ({exc})", do)
    return Finding("ok", "store", "objects can be deleted")


def skew(written: datetime, before: datetime, after: datetime) -> Finding:
    """Judge the store's clock reading *written*, taken between two of ours. It is cut to whole seconds."""
    behind = before - timedelta(seconds=1) - written
    ahead = written - after
    off = max(behind, ahead, timedelta(0))
    if off < _NOTABLE_SKEW:
        return Finding("ok", "clock", "agrees with the store's")
    level: Literal["warning", "error"] = "error" if off >= _REFUSED_SKEW else "warning"
    which = "ahead of" if off == behind else "behind"
    what = f"this machine's clock is {human_seconds(off.total_seconds())} {which} the store's"
    do = "Synchronise it (chrony, systemd-timesyncd): S3 refuses requests that are 15 minutes off."
    return Finding(level, "clock", what, do)
