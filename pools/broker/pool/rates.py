"""Budgets: how much failure, and how much retrying, is still normal.

>>> window = Window(60.0)
>>> [window.add(at) for at in (0.0, 10.0, 65.0)]
[1, 2, 2]
>>> tokens = RetryBudget(share=0.5, least=1)
>>> tokens.spend(), tokens.spend()
(True, False)
>>> tokens.earn(); tokens.earn(); tokens.spend()
True
"""

from __future__ import annotations

from collections import deque


class Window:
    """Counts what happened within the last `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._times: deque[float] = deque()

    def add(self, now: float) -> int:
        self._times.append(now)
        return self.count(now)

    def count(self, now: float) -> int:
        while self._times and self._times[0] <= now - self.seconds:
            self._times.popleft()
        return len(self._times)

    def clear(self) -> None:
        self._times.clear()


class RetryBudget:
    """A token bucket: each call earns a share of a retry, so that retries never outgrow the load (gRPC proposal A6)."""

    def __init__(self, share: float, least: float = 10.0) -> None:
        self.share = share
        self.most = max(least, 100.0)
        self.tokens = least

    def earn(self, calls: int = 1) -> None:
        self.tokens = min(self.most, self.tokens + self.share * calls)

    def spend(self) -> bool:
        if self.share == 0.0 or self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


class RateMeter:
    """How many things end a second, over about the last ten seconds.

    >>> pace = RateMeter()
    >>> for tick in range(1, 101):
    ...     pace.beat(tick / 10)
    >>> 9 < pace.rate(10.0) < 11
    True
    """

    SPAN = 5.0  # seconds; two buckets, so the figure covers five to ten seconds

    def __init__(self) -> None:
        self._began = 0.0
        self._now = 0
        self._before = 0

    def beat(self, now: float, count: int = 1) -> None:
        self._turn(now)
        self._now += count

    def rate(self, now: float) -> float:
        self._turn(now)
        return (self._before + self._now) / (self.SPAN + max(now - self._began, 0.001))

    def _turn(self, now: float) -> None:
        if now - self._began >= self.SPAN:
            steps = int((now - self._began) // self.SPAN)
            self._before = self._now if steps == 1 else 0
            self._now = 0
            self._began += steps * self.SPAN
