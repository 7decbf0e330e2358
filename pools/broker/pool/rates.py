"""Budgets: how many failures and how many retries are normal.

>>> window = SlidingWindow(60.0)
>>> [window.add(at) for at in (0.0, 10.0, 65.0)]
[1, 2, 2]
>>> budget = RetryBudget(share=0.5, least=1)
>>> budget.spend(calls=0), budget.spend(calls=0), budget.spend(calls=2)
(True, False, True)
"""

from __future__ import annotations

from collections import deque


class SlidingWindow:
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
        self._most = max(least, 100.0)
        self._tokens = least
        self._calls = 0

    def spend(self, calls: int) -> bool:
        """Take one retry, if the calls accepted so far have earned it."""
        self._tokens = min(self._most, self._tokens + self.share * (calls - self._calls))
        self._calls = calls
        if self.share == 0.0 or self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
