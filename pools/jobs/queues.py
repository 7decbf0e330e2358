"""Pause the jobs of a pool: they wait, while its calls go on and running jobs end."""

from __future__ import annotations

from django.db import transaction

from snakepit.pools.broker.errors import PoolUnknown
from snakepit.pools.jobs import claims, limits, messages
from snakepit.pools.jobs.shown_value import shown
from snakepit.pools.models import Pool, schema
from snakepit.pools.models.strict_json import find_problem

MOST = 1000  # jobs that run in this process after a resume


def pause_queue(pool: str) -> bool:
    """Claim no job of this pool until a resume; returns whether that is new."""
    return _set(pool, True)


def resume_queue(pool: str) -> bool:
    """Claim jobs of this pool again; returns whether it was paused."""
    changed = _set(pool, False)
    if changed:
        transaction.on_commit(lambda: _wake(pool), using=schema.alias(), robust=True)
    return changed


def wake_limited() -> int:
    """Send a hint for each pool with limits that has claimable jobs; returns the number of these pools.

    A key may have got room without a hint: its worker died, its job was deleted, or a minute has passed.
    """
    waiting = claims.claimable(pool__in=limits.limited_pools()).order_by().values_list("pool", flat=True).distinct()
    pools = list(waiting)
    for pool in pools:
        messages.pass_on(pool)
    limits.prune()
    return len(pools)


def _set(pool: str, paused: bool) -> bool:
    # Not by save(): the definition stays the same, so brokers need not read it again.
    rows = Pool.objects.filter(name=pool) if isinstance(pool, str) and not find_problem(pool) else Pool.objects.none()
    if rows.filter(queue_paused=not paused).update(queue_paused=paused):
        return True
    if not rows.exists():
        raise PoolUnknown(f"No pool is named {shown(pool)}.", details={"pool": shown(pool)})
    return False


def _wake(pool: str) -> None:
    """Send the first job. Its Celery worker claims the others; a lost message delays them until a reconcile."""
    most = MOST if messages.runs_here() else 1
    messages.send_many(list(claims.claimable(pool=pool).values_list("pk", flat=True)[:most]), messages.queue_of(pool))
