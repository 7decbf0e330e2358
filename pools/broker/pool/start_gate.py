"""When workers may start: in batches, later after each failed start, one at a time once a pool has failed.

A spawned worker loads its adapter, so a batch of them is a burst of work, and batches are spaced by time. A forked one
has it loaded: at most `startup_batch` of them start together, and each that becomes ready makes room for the next.
"""

from __future__ import annotations

from collections.abc import Collection
from random import Random

from snakepit.pools.broker.pool.rates import SlidingWindow
from snakepit.pools.broker.pool.recycle_policy import CRASH_LOOP_FAILURES, restart_delay
from snakepit.pools.broker.pool.suspects import WINDOW, Suspects
from snakepit.pools.broker.spec import PoolSpec

UNFIT_RETRY = 5.0  # seconds; the broker looks for an interpreter every ten


class StartGate:
    """A failed pool still tries one start at a time, with at most about a minute between two tries."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._batch_began = float("-inf")
        self._in_batch = 0
        self._not_before = float("-inf")
        self._boots = SlidingWindow(WINDOW)
        self.suspects = Suspects(rng)
        self._failures = 0  # failed starts in a row
        self._crashes = 0  # deaths at work above the budget
        self._boots_in_a_row = 0  # failed starts since the last that succeeded
        self.last_failure = ""
        self.failed = ""  # why the pool is failed; empty: it is not
        self.blocked = ""  # why no start makes sense: there is no interpreter for the workers

    @property
    def stuck(self) -> str:
        """Why the newest starts fail, with their number; empty: the last start succeeded, or none has ended."""
        if not self._failures or not self.last_failure:
            return self.failed
        starts = "start" if self._failures == 1 else "starts"
        return self.failed or f"{self._failures} failed {starts} in a row; the last one: {self.last_failure}"

    def block(self, why: str) -> None:
        """Allow no start until this is called again with an empty `why`."""
        self.blocked = self.failed = why

    def allowed(self, spec: PoolSpec, starting: int, now: float, *, forked: bool = False) -> int:
        """Return how many workers may start now."""
        if self.blocked or now < self._not_before:
            return 0
        if self.failed or self._failures:
            return max(0, 1 - starting)
        if forked:
            return max(0, spec.startup_batch - starting)
        if now >= self._batch_ends(spec):
            return spec.startup_batch
        return max(0, spec.startup_batch - self._in_batch)

    def opens_at(self, spec: PoolSpec, starting: int, now: float, *, forked: bool = False) -> float | None:
        """Return when more workers may start, for a pool that needs them. None: not before a start has ended."""
        if self.blocked or (starting and (self.failed or self._failures or forked)):
            return None  # the end of that start is a fact that asks again; a timer would be due without end until then
        if forked:
            return max(self._not_before, now)
        return max(self._not_before, self._batch_ends(spec), now)

    def _batch_ends(self, spec: PoolSpec) -> float:
        # One sum for the timer and for the question: `now - began >= delay` may be false at the very moment that
        # `began + delay` names, and the timer would be due without end.
        return self._batch_began + spec.startup_delay

    def opens_within(self, seconds: float, spec: PoolSpec, now: float) -> bool:
        """Whether a start comes in this time that is likely to succeed: fewer than the budget failed in a row."""
        return not self.blocked and self._boots_in_a_row < spec.boot_budget and self._not_before <= now + seconds

    def started(self, spec: PoolSpec, now: float) -> None:
        """A worker was started."""
        if now >= self._batch_ends(spec):
            self._batch_began = now
            self._in_batch = 0
        self._in_batch += 1

    def succeeded(self) -> str:
        """A worker became ready. Return why the pool was failed, if it was.

        Deaths at work still count: a worker that starts well and dies of its first call must not reset the back-off.
        """
        recovered, self.failed = self.failed, ""
        self._failures = self._boots_in_a_row = 0
        self.last_failure = ""
        self._not_before = float("-inf")
        self._boots.clear()
        return recovered

    def boot_failed(self, spec: PoolSpec, why: str, now: float) -> bool:
        """A worker died before it was ready. True: the pool is failed by this."""
        self._failures += 1
        self._boots_in_a_row += 1
        self.last_failure = why
        self._not_before = max(self._not_before, now + restart_delay(self._failures, self._rng))
        count = self._boots.add(now)
        if count < spec.boot_budget or self.failed:
            return False
        self.failed = f"{count} starts failed within {WINDOW:.0f} s; the last one: {why}"
        return True

    def retry_after(self, now: float) -> float:
        """Return the seconds until a failed pool tries another start."""
        return UNFIT_RETRY if self.blocked else round(max(1.0, self._not_before - now), 1)

    def died(self, spec: PoolSpec, why: str, now: float, commands: Collection[str] = ()) -> tuple[bool, list[str]]:
        """A worker died at work while it ran these commands. Return whether the pool is failed by this, and the
        commands that are suspended instead."""
        count = self.suspects.died(commands, now)
        suspended = self.suspects.suspend(commands, spec.deaths_allowed, why, now)
        if suspended:
            count = self.suspects.unexplained
        return self._count_deaths(count, spec, why, now), suspended

    def _count_deaths(self, count: int, spec: PoolSpec, why: str, now: float) -> bool:
        if count <= spec.deaths_allowed:
            self._crashes = 0
            return False
        if self.failed:
            return False
        self._failures = max(self._failures, CRASH_LOOP_FAILURES + self._crashes)
        self._crashes += 1
        self._not_before = now + restart_delay(self._failures, self._rng)
        self.failed = f"{count} workers died within {WINDOW:.0f} s; the last one: {why}"
        return True

    def reset(self) -> None:
        """A new definition, or an operator, gives the pool another chance."""
        self._failures = self._crashes = self._boots_in_a_row = 0
        self.last_failure = ""
        self._not_before = float("-inf")
        self._boots.clear()
        self.suspects.reset()
        self.failed = self.blocked
