"""API keys that were looked up some moments ago: a call then needs no database and no other thread.

A change in this process discards all of them. A change by another process takes effect after KEPT seconds. A
key whose time ends is refused at that moment. Only usable keys are kept, so a wrong key always costs a lookup.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import connections, transaction
from django.db.models import QuerySet
from django.db.models.signals import m2m_changed, post_delete, post_save

if TYPE_CHECKING:
    from snakepit.pools.models.apikey import ApiKey

KEPT = 2.0  # seconds
MOST = 1000  # keys


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key as its lookup found it, with what it may do."""

    key: ApiKey
    permissions: frozenset[str]
    since: float  # the monotonic time before its lookup


_known: dict[bytes, KnownKey] = {}
_discarded = 0.0  # the monotonic time of the last change


def find(secret: str, kept: float | None = None) -> KnownKey | None:
    """The key with this secret, if it was looked up recently and is still usable. Reads no database.

    `kept`: seconds in place of KEPT, for what decides no rights.
    """
    found = _known.get(_mark(secret)) if _known else None
    if found is None or time.monotonic() - found.since >= (KEPT if kept is None else kept) or not found.key.usable:
        return None
    return found


def keep(secret: str, key: ApiKey, since: float) -> KnownKey:
    """Keep a usable key. `since`: the monotonic time before its lookup."""
    found = KnownKey(key, key.permissions, since)
    if len(_known) >= MOST:
        _known.clear()
    mark = _mark(secret)
    _known[mark] = found
    # Looked at last: a change that comes now discards what was kept above.
    if since <= _discarded:  # a change came during the lookup, which may not have read it
        _known.pop(mark, None)
    return found


def forget(using: str | None = None, **_: Any) -> None:
    """Discard all kept keys; a receiver of signals. `using`: the database of the change.

    A signal comes before the commit. Another thread may read the old row until then, so the commit discards once more.
    """
    _discard()
    if using is not None and connections[using].in_atomic_block:
        transaction.on_commit(_discard, using=using)


def _discard() -> None:
    global _discarded
    _discarded = time.monotonic()
    _known.clear()


def _mark(secret: str) -> bytes:
    """The secret itself is not kept in memory."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


class KeyQuerySet(QuerySet["ApiKey"]):
    """Discards the kept keys on an update, for which Django sends no signal."""

    def update(self, **changes: Any) -> int:
        changed = super().update(**changes)
        forget(self.db)
        return changed


m2m_changed.connect(forget, dispatch_uid="snakepit.known-keys")
for signal in (post_save, post_delete):
    for model in (settings.AUTH_USER_MODEL, "auth.Group", "snakepit_pools.ApiKey"):
        signal.connect(forget, sender=model, dispatch_uid=f"snakepit.known-keys-{model}")
