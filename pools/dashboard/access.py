"""What a user may do on the dashboard: the rights of `snakepit.pools.permissions` for templates and views."""

from __future__ import annotations

from typing import Any

from snakepit.pools import permissions
from snakepit.pools.permissions import LABEL, NEEDS

VIEW = "view"
# right on the dashboard: Django permission
PERMISSIONS = {
    VIEW: f"{LABEL}.view_pool",
    "operate": f"{LABEL}.{NEEDS['recycle']}",
    "run": f"{LABEL}.{NEEDS['call']}",
    "jobs": f"{LABEL}.{NEEDS['cancel_job']}",
    "configure": f"{LABEL}.{NEEDS['change_pool']}",
    "payload": f"{LABEL}.view_payload",
}

Rights = frozenset[str]


def rights_of(user: Any) -> Rights:
    """The rights of a user; empty without `view`. One query reads all permissions."""
    granted = permissions.of(user)
    rights = frozenset(right for right, name in PERMISSIONS.items() if name.partition(".")[2] in granted)
    return rights if VIEW in rights else frozenset()
