"""What operators do to a pool's row: scale, pause, resume. In force at once where a broker answers.

    CLI, REST, admin ─▶ row (checked by PoolSpec) ─▶ Apply(who, what, why) ─▶ broker ─▶ event `operator.acted`

A pool of the settings can be changed too: a pause outlives restarts of the broker until somebody resumes the pool, a
size lasts until the broker starts again and reads the settings. Each answer says so.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from pools import conf
from pools.broker.errors import BrokerError, DefinitionInvalid, PoolUnknown
from pools.broker.spec import InvalidSpec
from pools.models import Pool

MAX_REASON = 200  # characters

logger = logging.getLogger("snakepit.operations")


class Applies(Protocol):
    """The part of the client that is needed here."""

    def apply(self, pool: str = "", action: str = "", actor: str = "", reason: str = "") -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Order:
    """Who does it, and why. `user` is the name of a Django user, kept with the row; empty: it was none."""

    actor: str
    reason: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a pool's row. `note` says what the operator should know besides."""

    pool: str
    size: int
    paused: bool
    changed: bool
    in_force: bool
    note: str


def scale(broker: Applies, pool: str, size: int, order: Order) -> Change:
    return _change(broker, pool, "size", size, order)


def pause(broker: Applies, pool: str, order: Order) -> Change:
    """Refuse new calls; what runs and waits is finished, workers stay warm."""
    return _change(broker, pool, "paused", True, order)


def resume(broker: Applies, pool: str, order: Order) -> Change:
    return _change(broker, pool, "paused", False, order)


def _change(broker: Applies, name: str, field: str, value: Any, order: Order) -> Change:
    row, before = _save(name, field, value, order)
    action = f"scale {before} to {value}" if field == "size" else ("pause" if value else "resume")
    notes = [_note(row, field)]
    try:
        broker.apply(pool=name, action=action, actor=order.actor, reason=order.reason)
        in_force = row.enabled
    except BrokerError as error:
        in_force = False
        # The broker alone writes events. Where none heard of it, who and why is at least in the log of this process.
        logger.warning("%s: %s: %s: %s", name, order.actor, action, order.reason or "no reason given")
        notes.append(f"The row is changed and not in force yet: {error.message}")
    if not row.enabled:
        notes.append("The pool is not enabled: it has no workers and takes no calls.")
    return Change(name, row.size, row.paused, before != value, in_force, " ".join(note for note in notes if note))


def _save(name: str, field: str, value: Any, order: Order) -> tuple[Pool, Any]:
    """Write one field of a pool's row; returns the row and the value that was there before."""
    with transaction.atomic():
        row = Pool.objects.select_for_update().filter(name=name).first() if "\0" not in name else None
        if row is None:
            raise PoolUnknown(f"No pool is named {name!r}.", details={"pool": name})
        before = getattr(row, field)
        if before != value:
            setattr(row, field, value)
            try:
                row.to_spec()
            except InvalidSpec as error:
                raise DefinitionInvalid(f"{name}: {error}", details={"fields": error.problems}) from None
            users = get_user_model()
            row.updated_by = users.objects.filter(**{users.USERNAME_FIELD: order.user}).first() if order.user else None
            row.save(update_fields=[field, "updated_by"])
    return row, before


def _note(row: Pool, field: str) -> str:
    """What will become of a change of a pool that the settings define."""
    if row.source != Pool.Source.SETTINGS:
        return ""
    place = f'SNAKEPIT["POOLS"]["{row.name}"]'
    try:
        spec = next((spec for spec in conf.pool_specs() if spec.name == row.name), None)
    except ImproperlyConfigured:
        return ""
    again = f"and hold again when the broker restarts: to keep it, change {place}."
    if spec is None:  # this process has other settings than the broker
        return f"The settings of the broker define this pool, {again}" if field == "size" else ""
    if field == "size" and spec.size != row.size:
        return f"The settings say {spec.size}, {again}"
    if field == "paused" and spec.paused and not row.paused:
        return f"The settings say paused, {again}"
    return ""
