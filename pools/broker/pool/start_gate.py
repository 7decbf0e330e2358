"""When workers may be started: in batches, later after each failed start, hardly at all once a pool has failed.

A spawned worker loads its adapter, so a batch of them is a burst of work, and batches are spaced by time. A forked one
has it loaded: only `startup_batch` of them are under way at once, and each that is ready makes room for the next.
"""

from __future__ import annotations

from random import Random

from snakepit.pools.broker.pool.rates import Window
from snakepit.pools.broker.pool.recycle_policy import restart_delay
from snakepit.pools.broker.spec import PoolSpec

WINDOW = 60.0  # seconds, of both budgets


class StartGate:
    """A failed pool is not dead: one start at a time is still tried, at the longest every minute."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._batch_began = float("-inf")
        self._in_batch = 0
        self._not_before = float("-inf")
        self._boots = Window(WINDOW)
        self._deaths = Window(WINDOW)
        self._failures = 0  # in a row
        self.last_failure = ""
        self.failed = ""  # why the pool is failed; empty: it is not
        self.barred = ""  # why not even one start makes sense: there is no interpreter for the workers

    def bar(self, why: str) -> None:
        """Nobody is started until the bar is lifted (an empty `why`)."""
        self.barred = self.failed = why

    def room(self, spec: PoolSpec, starting: int, now: float, *, forked: bool = False) -> int:
        """How many workers may be started now."""
        if self.barred or now < self._not_before:
            return 0
        if self.failed or self._failures:
            return max(0, 1 - starting)
        if forked:
            return max(0, spec.startup_batch - starting)
        if now >= self._batch_ends(spec):
            return spec.startup_batch
        return max(0, spec.startup_batch - self._in_batch)

    def opens_at(self, spec: PoolSpec, starting: int, now: float, *, forked: bool = False) -> float | None:
        """When there may be room again, for a pool that found too little. None: not before a start has ended."""
        if self.barred or (starting and (self.failed or self._failures or forked)):
            return None  # its end is a fact that asks again; an alarm would ring for ever until then
        if forked:
            return max(self._not_before, now)
        return max(self._not_before, self._batch_ends(spec), now)

    def _batch_ends(self, spec: PoolSpec) -> float:
        # One sum for the alarm and for the question: `now - began >= delay` may be false at the very moment that
        # `began + delay` names, and the alarm would ring for ever.
        return self._batch_began + spec.startup_delay

    def passed(self, spec: PoolSpec, now: float) -> None:
        """A worker was started."""
        if now >= self._batch_ends(spec):
            self._batch_began = now
            self._in_batch = 0
        self._in_batch += 1

    def succeeded(self) -> str:
        """A worker became ready. Returns what the pool had failed of, if it had."""
        recovered, self.failed = self.failed, ""
        self._failures = 0
        self._not_before = float("-inf")
        self._boots.clear()
        return recovered

    def boot_failed(self, spec: PoolSpec, why: str, now: float) -> bool:
        """A worker died before it was ready. True when this one used the budget up."""
        self._failures += 1
        self.last_failure = why
        self._not_before = max(self._not_before, now + restart_delay(self._failures, self._rng))
        count = self._boots.add(now)
        if count < spec.boot_budget or self.failed:
            return False
        self.failed = f"{count} starts failed within {WINDOW:.0f} s; the last one: {why}"
        return True

    def died(self, spec: PoolSpec, why: str, now: float) -> bool:
        """A worker died at work. True when this one used the budget up."""
        count = self._deaths.add(now)
        if count <= spec.deaths_allowed or self.failed:
            return False
        self._failures = max(self._failures, 3)
        self._not_before = now + restart_delay(self._failures, self._rng)
        self._deaths.clear()
        self.failed = f"{count} workers died within {WINDOW:.0f} s; the last one: {why}"
        return True

    def reset(self) -> None:
        """A new definition, or an operator, gives the pool another chance."""
        self._failures = 0
        self._not_before = float("-inf")
        self._boots.clear()
        self._deaths.clear()
        self.failed = self.barred
