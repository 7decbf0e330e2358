"""What the owner of an API key may do now, which bounds the scopes of the key.

A superuser costs no query. For others, the permissions are kept for KEPT seconds, so that a call costs one query, the
key's. A change of permissions or groups in this process discards them immediately.
"""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from django.db.models.signals import m2m_changed, post_delete, post_save

from snakepit.pools import permissions

KEPT = 2.0  # seconds, in which another process may have changed the permissions
MOST = 1000  # owners

_kept: dict[tuple[Any, bool], tuple[float, frozenset[str]]] = {}


def of_owner(owner: Any) -> frozenset[str]:
    """The app's permissions of the owner of a key; `owner` was just read."""
    if owner.is_active and getattr(owner, "is_superuser", False):
        return permissions.ALL
    identity, now = (owner.pk, bool(getattr(owner, "is_staff", False))), time.monotonic()
    kept = _kept.get(identity)
    if kept is None or now - kept[0] >= KEPT or not owner.is_active:
        if len(_kept) >= MOST:
            _kept.clear()
        kept = _kept[identity] = now, permissions.of(owner)
    return kept[1]


def forget(**_: Any) -> None:
    """Discard all kept permissions; a receiver of signals."""
    _kept.clear()


m2m_changed.connect(forget, dispatch_uid="snakepit.owner-rights")
for signal in (post_save, post_delete):
    for model in (settings.AUTH_USER_MODEL, "auth.Group"):
        signal.connect(forget, sender=model, dispatch_uid=f"snakepit.owner-rights-{model}")
