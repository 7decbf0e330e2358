"""Who may do what: the one table that REST, admin, dashboard and API keys read.

    five words ─▶ permissions of Django ─▶ what an action needs
    a key has words (its scopes), a user has permissions, of his own, of his groups, or by being staff: to look

>>> NEEDS["recycle"], word_of("operate_pool")
('operate_pool', 'operate')
>>> sorted(actions({"manage_job"}))
['cancel_job', 'retry_job']
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

LABEL = "snakepit_pools"


@dataclass(frozen=True, slots=True)
class Word:
    """A scope of an API key, and what it means: codenames of permissions of the app."""

    help: str
    permissions: frozenset[str]


def _word(help: str, *permissions: str) -> Word:
    return Word(help, frozenset(permissions))


WORDS = {
    "run": _word("call the commands of pools, submit jobs", "run_command"),
    "view": _word(
        "see pools, workers, nodes, events, jobs without their payload, and who did what",
        *("view_pool", "view_worker", "view_node", "view_event", "view_job", "view_audit"),
    ),
    "operate": _word("recycle, drain, scale, pause, resume and kill; stacks of workers; end calls", "operate_pool"),
    "jobs": _word("see the payload of others' jobs; cancel and retry them", "manage_job", "view_payload"),
    "configure": _word("define pools", "add_pool", "change_pool", "delete_pool"),
}
SCOPES = {name: word.help for name, word in WORDS.items()}
VIEW = WORDS["view"].permissions
ALL = frozenset().union(*(word.permissions for word in WORDS.values()))

# What an operator or a caller does, by the name that the audit gives it, and the permission that it needs.
NEEDS = {
    "call": "run_command",
    "submit_job": "run_command",
    "clone_job": "run_command",
    "cancel_job": "manage_job",  # of others; one's own needs run_command
    "retry_job": "manage_job",
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
}

# The groups that a migrated database has. All of them look; who needs more than one joins more than one.
ROLES = {
    "Snakepit viewer": ("view",),
    "Snakepit caller": ("view", "run"),
    "Snakepit operator": ("view", "operate"),
    "Snakepit job manager": ("view", "run", "jobs"),
    "Snakepit administrator": tuple(WORDS),
}


def of(user: Any) -> frozenset[str]:
    """The permissions of a user, out of those that mean something here. Staff may look, without being told so."""
    if not (user.is_authenticated and user.is_active):
        return frozenset()
    granted = frozenset(name for name in ALL if user.has_perm(f"{LABEL}.{name}"))
    return granted | VIEW if user.is_staff else granted


def of_scopes(scopes: Iterable[str]) -> frozenset[str]:
    """The permissions that the scopes of a key stand for; a word of another release means nothing."""
    return frozenset().union(*(WORDS[scope].permissions for scope in scopes if scope in WORDS))


def word_of(permission: str) -> str:
    """The scope that a permission belongs to."""
    return next(name for name, word in WORDS.items() if permission in word.permissions)


def actions(granted: Iterable[str]) -> frozenset[str]:
    """The actions that these permissions allow."""
    held = frozenset(granted)
    return frozenset(action for action, permission in NEEDS.items() if permission in held)


def make_groups(using: str = "default", **_: Any) -> None:
    """Make the groups of ROLES that are missing, after a migration. One that is there stays as people left it."""
    from django.contrib.auth.management import create_permissions
    from django.contrib.auth.models import Group, Permission

    missing = set(ROLES) - set(Group.objects.using(using).filter(name__in=ROLES).values_list("name", flat=True))
    if not missing:
        return
    from django.apps import apps

    # Django's own receiver makes them too, but may be called after this one.
    create_permissions(apps.get_app_config(LABEL), verbosity=0, using=using)
    known = Permission.objects.using(using).filter(content_type__app_label=LABEL)
    for name in sorted(missing):
        group, fresh = Group.objects.using(using).get_or_create(name=name)
        if fresh:
            # Not by `set`, which reads first: SQLite refuses to let a transaction write then when another does.
            held = known.filter(codename__in=of_scopes(ROLES[name]))
            links = [Group.permissions.through(group=group, permission=one) for one in held]
            Group.permissions.through.objects.using(using).bulk_create(links)
