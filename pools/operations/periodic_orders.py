"""Operator actions on periodic jobs: run now, pause, resume, add, change, delete. Each is audited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError

from snakepit.pools.broker.errors import BadRequest, PeriodicUnknown
from snakepit.pools.jobs import periodic
from snakepit.pools.models import Job, PeriodicJob
from snakepit.pools.operations.orders import Order, recorded


def find(name: str) -> PeriodicJob:
    row = None if "\0" in name else PeriodicJob.objects.filter(name=name).first()
    if row is None:
        raise PeriodicUnknown(f"No periodic job is named {name[:50]!r}.")
    return row


def run(name: str, order: Order) -> Job:
    """Submit its job once, now, beside the schedule. A paused one runs too."""
    row = find(name)
    with recorded(order, "run_periodic", row.pool, name) as record:
        job = periodic.run_now(row)
        record.message = f"job {job.pk}"
        return job


def pause(name: str, order: Order) -> PeriodicJob:
    """Submit nothing until a resume. Times that pass meanwhile are not missed runs."""
    return _enable(name, False, "pause_periodic", order)


def resume(name: str, order: Order) -> PeriodicJob:
    """Go on with the next time of the schedule."""
    return _enable(name, True, "resume_periodic", order)


def _enable(name: str, enabled: bool, action: str, order: Order) -> PeriodicJob:
    row = find(name)
    with recorded(order, action, row.pool, name):
        row.enabled = enabled
        row.save(update_fields=["enabled", "updated_at"])
    return find(name)


def save(row: PeriodicJob, values: Mapping[str, Any], order: Order) -> PeriodicJob:
    """Add or change a periodic job, after all checks. BadRequest names the fields that are wrong."""
    action = "add_periodic" if row._state.adding else "change_periodic"
    with recorded(order, action, str(values.get("pool", row.pool)), str(values.get("name", row.name))) as record:
        record.data = {name: [None if row._state.adding else getattr(row, name), values[name]] for name in values}
        record.data.pop("arguments", None)  # they may be secret, as those of jobs
        for name, value in values.items():
            setattr(row, name, value)
        problems = find_problems(row)
        if problems:
            message = "; ".join(f"{field}: {why}" for field, why in problems.items())
            raise BadRequest(message, details={"fields": problems})
        row.save()
    return find(row.name)


def find_problems(row: PeriodicJob) -> dict[str, str]:
    """What is wrong with each field: form, schedule, pool, command, arguments and options."""
    try:
        row.full_clean()
    except ValidationError as error:
        # The last one is the most precise: those of the model follow those of a column.
        return {field: texts[-1] for field, texts in error.message_dict.items()}
    return periodic.problems(row)


def delete(name: str, order: Order) -> None:
    """Delete a schedule and its runs; its jobs stay."""
    row = find(name)
    with recorded(order, "delete_periodic", row.pool, name):
        row.delete()
