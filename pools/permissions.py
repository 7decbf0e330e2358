"""Permissions: the one table that REST, admin, dashboard and API keys read.

    five scopes ─▶ permissions of Django ─▶ what an action needs
    an API key has scopes; a user has permissions: own, by group, or as staff (view only)

>>> NEEDS["recycle"], scope_of("operate_pool")
('operate_pool', 'operate')
>>> sorted(actions({"manage_job"}))
['cancel_job', 'cancel_jobs', 'delete_jobs', 'retry_job', 'retry_jobs']
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from snakepit.pools.broker.errors import PermissionDenied

LABEL = "snakepit_pools"


@dataclass(frozen=True, slots=True)
class Scope:
    """A scope of an API key: the codenames of the app's permissions that it grants."""

    help: str
    permissions: frozenset[str]


def _scope(help: str, *permissions: str) -> Scope:
    return Scope(help, frozenset(permissions))


SCOPES = {
    "run": _scope("call the commands of pools, submit jobs", "run_command"),
    "view": _scope(
        "see pools, workers, nodes, events, the audit log, and jobs without their payload",
        *("view_pool", "view_worker", "view_node", "view_event", "view_job", "view_periodicjob", "view_audit"),
    ),
    "operate": _scope("recycle, drain, scale, pause, resume and kill; read stacks; cancel calls", "operate_pool"),
    "jobs": _scope("see the payload of other users' jobs; cancel, retry and delete them", "manage_job", "view_payload"),
    "configure": _scope(
        "add, change and delete pools and periodic jobs",
        *("add_pool", "change_pool", "delete_pool", "add_periodicjob", "change_periodicjob", "delete_periodicjob"),
    ),
}
SCOPE_HELP = {name: scope.help for name, scope in SCOPES.items()}
VIEW = SCOPES["view"].permissions
ALL = frozenset().union(*(scope.permissions for scope in SCOPES.values()))

# Each action, by its name in the audit log, and the permission that it needs.
NEEDS = {
    "call": "run_command",
    "submit_job": "run_command",
    "clone_job": "run_command",
    "cancel_job": "manage_job",  # of another user; your own needs run_command
    "retry_job": "manage_job",
    "cancel_jobs": "manage_job",  # all that match a filter; with run_command, your own
    "retry_jobs": "manage_job",
    "delete_jobs": "manage_job",
    "recycle": "operate_pool",
    "drain": "operate_pool",
    "kill": "operate_pool",
    "dump": "operate_pool",
    "scale": "operate_pool",
    "pause": "operate_pool",
    "resume": "operate_pool",
    "cancel_call": "operate_pool",
    "apply": "change_pool",  # of a recommendation
    "add_pool": "add_pool",
    "change_pool": "change_pool",
    "delete_pool": "delete_pool",
    "pause_queue": "operate_pool",
    "resume_queue": "operate_pool",
    "run_periodic": "operate_pool",
    "pause_periodic": "operate_pool",
    "resume_periodic": "operate_pool",
    "add_periodic": "add_periodicjob",
    "change_periodic": "change_periodicjob",
    "delete_periodic": "delete_periodicjob",
}

# The groups that a migration creates. Each includes the scope `view`; a user may be in several groups.
ROLES = {
    "Snakepit viewer": ("view",),
    "Snakepit caller": ("view", "run"),
    "Snakepit operator": ("view", "operate"),
    "Snakepit job manager": ("view", "run", "jobs"),
    "Snakepit administrator": tuple(SCOPES),
}


@dataclass(frozen=True, slots=True)
class Rights:
    """What an authenticated caller may do. `permissions` are codenames of the app; `pools` None means all pools."""

    actor: str
    permissions: frozenset[str]
    pools: frozenset[str] | None = None

    def check(self, permission: str, pool: str = "") -> None:
        """Raise PermissionDenied if this caller lacks the permission, or may not use the pool."""
        if permission not in self.permissions:
            scope = scope_of(permission)
            raise PermissionDenied(
                f"{self.actor} lacks the scope {scope!r} (permission snakepit_pools.{permission})",
                details={"scope": scope, "permission": f"snakepit_pools.{permission}"},
            )
        if pool:
            self.check_pool(pool)

    def check_pool(self, pool: str) -> None:
        """Raise PermissionDenied if this caller may not use the pool."""
        if not self.may_use(pool):
            message = f"{self.actor} may not use the pool {pool!r}: add it to the pools of the API key"
            raise PermissionDenied(message, details={"pool": pool})

    def allow(self, action: str, pool: str = "") -> None:
        """As `check`, for the permission of an action in NEEDS."""
        self.check(NEEDS[action], pool)

    def may_use(self, pool: str) -> bool:
        return self.pools is None or pool in self.pools


def of(user: Any) -> frozenset[str]:
    """The app's permissions of a user. Staff have the scope `view` without a grant."""
    if not (user.is_authenticated and user.is_active):
        return frozenset()
    granted = frozenset(name for name in ALL if user.has_perm(f"{LABEL}.{name}"))
    return granted | VIEW if user.is_staff else granted


def of_scopes(scopes: Iterable[str]) -> frozenset[str]:
    """The permissions that scopes grant; an unknown scope, such as one of another release, grants none."""
    return frozenset().union(*(SCOPES[scope].permissions for scope in scopes if scope in SCOPES))


def scope_of(permission: str) -> str:
    """The scope that a permission belongs to."""
    return next(name for name, scope in SCOPES.items() if permission in scope.permissions)


def actions(granted: Iterable[str]) -> frozenset[str]:
    """The actions that these permissions allow."""
    names = frozenset(granted)
    return frozenset(action for action, permission in NEEDS.items() if permission in names)


def make_groups(using: str = "default", **_: Any) -> None:
    """Create the missing groups of ROLES after a migration. Existing groups stay unchanged."""
    from django.contrib.auth.management import create_permissions
    from django.contrib.auth.models import Group, Permission
    from django.db import router

    if not all(router.allow_migrate_model(using, model) for model in (Group, Permission)):
        return  # the project's routers keep users in another database
    missing = set(ROLES) - set(Group.objects.using(using).filter(name__in=ROLES).values_list("name", flat=True))
    if not missing:
        return
    from django.apps import apps

    # Django's own receiver creates the permissions too, but may run after this one.
    create_permissions(apps.get_app_config(LABEL), verbosity=0, using=using)
    known = Permission.objects.using(using).filter(content_type__app_label=LABEL)
    for name in sorted(missing):
        group, fresh = Group.objects.using(using).get_or_create(name=name)
        if fresh:
            # Not `set()`, which reads first: SQLite refuses a write after a read if another transaction wrote between.
            allowed = known.filter(codename__in=of_scopes(ROLES[name]))
            links = [Group.permissions.through(group=group, permission=one) for one in allowed]
            Group.permissions.through.objects.using(using).bulk_create(links)
