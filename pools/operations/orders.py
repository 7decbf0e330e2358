"""Operator actions: scale, pause, resume, recycle, kill, change a pool; cancel and retry jobs. Each is audited.

    dashboard, admin, REST, shell ─▶ order ─▶ Audit row: actor, action, target, reason, source, outcome
                                       └─▶ row (checked by PoolSpec) ─▶ Apply(actor, action, reason) ─▶ broker ─▶ event

Pools of the settings can be changed too. A pause outlives restarts of the broker, until a resume. A size lasts until
the broker restarts and reads the settings. The note of each Change reports this.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, transaction

from snakepit.pools import conf, jobs
from snakepit.pools.broker.errors import BrokerError, DefinitionInvalid, PoolUnknown
from snakepit.pools.broker.spec import FIELDS, InvalidSpec
from snakepit.pools.broker.status import WorkerDump
from snakepit.pools.models import Audit, Job, Pool, schema
from snakepit.pools.models.audit import DONE
from snakepit.pools.models.moments import utc_now

MAX_REASON = 200  # characters
REPEATED = 60.0  # seconds in which identical refusals make one row

logger = logging.getLogger("snakepit.operations")


class Applies(Protocol):
    """The part of the client that applies changed rows."""

    def apply(self, pool: str = "", action: str = "", actor: str = "", reason: str = "") -> int: ...


class Recycles(Protocol):
    """The part of the client that recycles workers."""

    def recycle(self, pool: str, worker: str = "", actor: str = "", reason: str = "") -> int: ...


class Kills(Protocol):
    """The part of the client that kills a worker."""

    def kill(self, worker: str, actor: str = "", reason: str = "") -> None: ...


class Dumps(Protocol):
    """The part of the client that reads a worker's stacks."""

    def dump(self, worker: str, actor: str = "", reason: str = "") -> WorkerDump: ...


@dataclass(frozen=True, slots=True)
class Order:
    """The actor, reason and source of an action. `user` is a Django user name, stored in the row; empty: no user."""

    actor: str
    reason: str = ""
    user: str = ""
    surface: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """The result of a change to a pool's row. `note` holds what the operator should know about it."""

    pool: str
    size: int
    paused: bool
    changed: bool
    in_force: bool
    note: str


@dataclass(slots=True)
class AuditNote:
    """The message and data of an audit row; the code that carries out the order fills them in."""

    message: str = ""
    data: dict[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def recorded(order: Order, action: str, pool: str = "", target: str = "") -> Iterator[AuditNote]:
    """Write one audit row for an order, whether it succeeds or raises. No other code writes the audit."""
    record, outcome = AuditNote(), DONE
    try:
        yield record
    except BrokerError as error:
        outcome, record.message = error.code, error.message
        raise
    except Exception as error:
        outcome, record.message = "internal", f"{type(error).__name__}: {error}"
        raise
    finally:
        _write(order, action, (pool, target), outcome, record)


def refused(order: Order, action: str, error: BrokerError, pool: str = "", target: str = "") -> None:
    """Write an audit row for an order that the actor has no permission for. Nothing was tried.

    Identical refusals make one row a minute, so that a caller who retries cannot fill the table.
    """
    same = {"actor": order.actor[:200], "action": action, "pool": _clean(pool, 48), "outcome": error.code}
    try:
        if Audit.objects.filter(at__gt=utc_now() - timedelta(seconds=REPEATED), **same).exists():
            return
    except DatabaseError as trouble:
        logger.error("%s lacks the permission for %s; the audit table cannot be read: %s", order.actor, action, trouble)
        return
    _write(order, action, (pool, target), error.code, AuditNote(error.message))


def _write(order: Order, action: str, on: tuple[str, str], outcome: str, record: AuditNote) -> None:
    row = Audit(
        actor=order.actor[:200], action=action, pool=_clean(on[0], 48), target=_clean(on[1], 100),
        reason=_clean(order.reason, MAX_REASON), surface=order.surface, address=order.address, outcome=outcome,
        message=_clean(record.message, 2000), data=record.data,
    )  # fmt: skip
    try:
        with transaction.atomic(using=schema.alias()):  # a savepoint: a failure must not end the caller's transaction
            row.save()
    except DatabaseError as error:
        # An urgent order must not fail because of the audit; the broker's event has actor and reason too.
        logger.error("audit row not written for %s (%s, %s): %s", row, outcome, order.reason or "no reason", error)


def _clean(text: str, longest: int) -> str:
    return text.replace("\0", "")[:longest]


def scale(broker: Applies, pool: str, size: int, order: Order) -> Change:
    return _change(broker, pool, "scale", {"size": size}, order)


def pause(broker: Applies, pool: str, order: Order) -> Change:
    """Refuse new calls. Running and waiting calls finish; workers stay warm."""
    return _change(broker, pool, "pause", {"paused": True}, order)


def resume(broker: Applies, pool: str, order: Order) -> Change:
    return _change(broker, pool, "resume", {"paused": False}, order)


def change_pool(broker: Applies, pool: str, values: Mapping[str, Any], order: Order, action: str = "apply") -> Change:
    """Set fields of a pool's definition, for example to apply a recommendation."""
    if wrong := [name for name in values if name not in FIELDS or name == "name"]:
        raise DefinitionInvalid(f"{wrong[0]}: not a field of a pool that can be changed", details={"fields": wrong})
    return _change(broker, pool, action, dict(values), order)


def recycle(broker: Recycles, pool: str, worker: str, order: Order) -> int:
    """Replace a pool's workers, or one. Each replacement is ready first. Returns the number of workers to replace."""
    with recorded(order, "recycle", pool, worker) as record:
        planned = broker.recycle(pool, worker=worker, actor=order.actor, reason=order.reason)
        record.message = f"{planned} to be replaced"
        return planned


def kill(broker: Kills, pool: str, worker: str, order: Order) -> None:
    """Kill a worker's process immediately, with its calls; a new worker replaces it."""
    with recorded(order, "kill", pool, worker):
        broker.kill(worker, actor=order.actor, reason=order.reason)


def dump(broker: Dumps, pool: str, worker: str, order: Order) -> WorkerDump:
    """The stacks of a live worker's threads."""
    with recorded(order, "dump", pool, worker):
        return broker.dump(worker, actor=order.actor, reason=order.reason)


def cancel_job(job: Any, order: Order) -> Job:
    """Cancel a job: immediately if it is queued, within two seconds if it runs."""
    return _job(job, "cancel_job", order)


def retry_job(job: Any, order: Order) -> Job:
    """Queue a job again after it ended without success."""
    return _job(job, "retry_job", order)


def _job(job_id: Any, action: str, order: Order) -> Job:
    before = Job.objects.only("pool", "state").get(pk=job_id)
    with recorded(order, action, before.pool, str(job_id)) as record:
        now = jobs.cancel(job_id) if action == "cancel_job" else jobs.retry(job_id)
        record.message = f"state: {now.state}"
        record.data = {"state": [before.state, now.state]}
        return now


def _change(broker: Applies, name: str, action: str, values: dict[str, Any], order: Order) -> Change:
    with recorded(order, action, name) as record:
        row, before = _save(name, values, order)
        changes = {field: [old, values[field]] for field, old in before.items() if old != values[field]}
        record.data = changes
        notes = [_note(row, field) for field in values]
        try:
            broker.apply(pool=name, action=_described(action, before, values), actor=order.actor, reason=order.reason)
            in_force = row.enabled
        except BrokerError as error:
            in_force = False
            notes.append(f"Saved, but not in force yet: {error.message}")
        if not row.enabled:
            notes.append("The pool is disabled: it has no workers and refuses calls.")
        record.message = " ".join(note for note in notes if note)
        return Change(name, row.size, row.paused, bool(changes), in_force, record.message)


def _described(action: str, before: dict[str, Any], values: dict[str, Any]) -> str:
    """The action as the broker's event shows it."""
    if action == "scale":
        return f"scale {before['size']} to {values['size']}"
    if action in ("pause", "resume"):
        return action
    return f"{action} " + ", ".join(f"{name} {before[name]} to {value}" for name, value in values.items())


def _save(name: str, values: dict[str, Any], order: Order) -> tuple[Pool, dict[str, Any]]:
    """Write fields of a pool's row; returns the row and the previous values."""
    with transaction.atomic(using=schema.alias()):
        row = Pool.objects.select_for_update().filter(name=name).first() if "\0" not in name else None
        if row is None:
            raise PoolUnknown(f"No pool is named {name!r}.", details={"pool": name})
        before = {field: getattr(row, field) for field in values}
        if before != values:
            for field_name, value in values.items():
                setattr(row, field_name, value)
            try:
                row.to_spec()
            except InvalidSpec as error:
                raise DefinitionInvalid(f"{name}: {error}", details={"fields": error.problems}) from None
            users = get_user_model()
            row.updated_by = users.objects.filter(**{users.USERNAME_FIELD: order.user}).first() if order.user else None
            row.save(update_fields=[*values, "updated_by"])
    return row, before


def _note(row: Pool, field: str) -> str:
    """How long a change lasts where the settings define the pool; empty: permanently."""
    if row.source != Pool.Source.SETTINGS:
        return ""
    place = f'SNAKEPIT["POOLS"]["{row.name}"]'
    try:
        spec = next((spec for spec in conf.pool_specs() if spec.name == row.name), None)
    except ImproperlyConfigured:
        return ""
    until = f"apply again when the broker restarts. To keep the change, edit {place}."
    if spec is None:  # this process has other settings than the broker
        return f"The broker's settings define this pool and {until}" if field != "paused" else ""
    if field == "paused":
        return f"The settings (paused: True) {until}" if spec.paused and not row.paused else ""
    if (value := getattr(spec, field)) != getattr(row, field):
        return f"The settings ({field}: {value}) {until}"
    return ""
