"""What a user may do on the dashboard. Staff may look; everything else takes the permission itself."""

from __future__ import annotations

from typing import Any

VIEW = "view"
# right on the dashboard: Django permission
PERMISSIONS = {
    VIEW: "snakepit_pools.view_pool",
    "operate": "snakepit_pools.operate_pool",
    "run": "snakepit_pools.run_command",
    "manage_jobs": "snakepit_pools.manage_job",
    "configure": "snakepit_pools.change_pool",
    "payload": "snakepit_pools.view_payload",
}

Rights = frozenset[str]


def rights_of(user: Any) -> Rights:
    """Empty for whoever may not see the dashboard at all. Asks the database, for all permissions at once."""
    if not user.is_authenticated or not user.is_active:
        return frozenset()
    held = {right for right, permission in PERMISSIONS.items() if user.has_perm(permission)}
    if user.is_staff:
        held.add(VIEW)
    return frozenset(held) if VIEW in held else frozenset()
