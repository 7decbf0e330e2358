"""What a recycle ordered now would do, and what age and count will do without one. It changes nothing.

The order is that of `WorkerSet.next_to_drain`: the oldest worker first, those that are marked already among the
others. How many are replaced together follows from `max_surge` and `max_unavailable`.
"""

from __future__ import annotations

from collections.abc import Iterable

from snakepit.pools.broker.pool.recycle_policy import due_at, recycle_reason, successor_at
from snakepit.pools.broker.pool.worker import State, Worker
from snakepit.pools.broker.spec import PoolSpec
from snakepit.pools.broker.status import PlannedWorker, RecyclePlan


def forecast(
    workers: Iterable[Worker], spec: PoolSpec, now: float, chosen: str = "", load_seconds: float = 0.0
) -> RecyclePlan:
    """Return what would happen to a pool's workers, if `chosen` (empty: all of them) was recycled now."""
    planned, turns = [], 0
    for worker in workers:  # in the order of their start
        leaves = worker.state is State.READY and (worker.reason != "" or chosen in ("", worker.id))
        turns += leaves
        planned.append(_planned(worker, spec, now, load_seconds, turns if leaves else 0, chosen in ("", worker.id)))
    at_once = min(spec.max_surge + spec.max_unavailable, max(1, turns))
    return RecyclePlan(spec.name, tuple(planned), at_once, spec.max_surge, spec.max_unavailable, load_seconds)


def _planned(worker: Worker, spec: PoolSpec, now: float, load: float, turn: int, meant: bool) -> PlannedWorker:
    reason, detail = worker.reason, worker.detail
    if worker.state is State.READY and not reason and (why := recycle_reason(worker, spec, now, load)):
        reason, detail = why
    served_out = worker.max_served is not None
    age = now - worker.ready_at if worker.ready_at else 0.0
    due, starts = due_at(worker, spec), successor_at(worker, spec, load)
    if starts is not None and (worker.expires_soon or reason):
        starts = now
    return PlannedWorker(
        id=worker.id,
        state=str(worker.state),
        reason=reason,
        detail=detail,
        age=age,
        served=worker.served,
        load=worker.load,
        seconds_until_ttl=None if due is None else max(due - now, 0.0),
        seconds_until_successor=None if starts is None else max(starts - now, 0.0),
        calls_until_max=max(0, (worker.max_served or 0) - worker.served) if served_out else None,
        in_turn=turn,
        effect=_effect(worker, turn, meant),
    )


def _effect(worker: Worker, turn: int, meant: bool) -> str:
    if worker.state is State.DRAINING:
        return "drains: it finishes its calls"
    if worker.state is State.STOPPING:
        return "stops: its process ends"
    if worker.state is State.STARTING:
        return "is ended and started anew: it has no calls yet" if meant else "stays"
    if not turn:
        return "stays"
    if worker.reason:
        return "is marked already, and is replaced in its turn"
    return "is replaced in its turn"
