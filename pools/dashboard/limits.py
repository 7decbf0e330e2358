"""The use of limits: of each API key and owner that called since the broker started, and of each pool's queue."""

from __future__ import annotations

from snakepit.pools.broker.caller import QuotaStatus
from snakepit.pools.broker.quotas import COUNTED
from snakepit.pools.dashboard.region import Context
from snakepit.pools.dashboard.state import DashboardState

MOST = 50  # rows: those with the largest use


def use_of_limits(state: DashboardState, _: str) -> Context:
    quotas = state.status.quotas if state.status else ()
    shown = sorted(quotas, key=_rank)[:MOST]
    rows = [{"quota": one, "refused": refusals(one)} for one in shown]
    return {"rows": rows, "count": len(quotas), "pools": [pool for pool in state.pools if pool.queue_limit]}


def _rank(quota: QuotaStatus) -> tuple[float, int, str]:
    """The largest share of the limit of calls in flight first, then the most refusals."""
    share = quota.in_flight / quota.calls_in_flight if quota.calls_in_flight else 0.0
    return -share, -quota.refused, quota.name


def refusals(quota: QuotaStatus) -> list[tuple[str, int]]:
    """The limits that refused calls, with their number."""
    counts = zip(COUNTED, (quota.over_rate, quota.over_in_flight, quota.over_waiting), strict=True)
    return [(name, count) for name, count in counts if count]
