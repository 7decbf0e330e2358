"""What a process may add to a pool's queue before it counts again. Pure, apart from a lock.

A count takes as long as there are jobs that wait. After a count that found a limit far away, the process adds MOST jobs
without another one. Two bounds keep that exact enough:

- An allowance is a 64th of what is left, so near a limit each submission is counted.
- It ends before INTAKE jobs a second of other processes could fill what is left.

>>> allowances = Allowances()
>>> allowances.take("digits", jobs=1, size=10, now=0.0)  # nothing is counted yet
False
>>> allowances.grant("digits", jobs_left=900, bytes_left=10**8, now=0.0)
>>> allowances.take("digits", jobs=14, size=140, now=0.05), allowances.take("digits", jobs=1, size=10, now=0.05)
(True, False)
>>> allowances.grant("digits", jobs_left=900, bytes_left=10**8, now=1.0)
>>> allowances.take("digits", jobs=1, size=10, now=1.1)  # others may have filled it meanwhile
False
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass

MOST = 64  # jobs of one allowance
PART = 64  # of what is left
INTAKE = 10_000.0  # jobs a second of all other processes
INTAKE_BYTES = 100e6  # bytes a second
LONGEST = 30.0  # seconds
KEPT = 1000  # callers of pools, each with its allowance


@dataclass(slots=True)
class _Allowance:
    jobs: int
    size: int
    until: float


class Allowances:
    """The allowances of one process, by pool, caller and limits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[Hashable, _Allowance] = {}

    def grant(self, key: Hashable, *, jobs_left: int, bytes_left: int, now: float) -> None:
        """Note a count that left room for so many jobs and bytes."""
        until = now + min(LONGEST, jobs_left / INTAKE, bytes_left / INTAKE_BYTES)
        granted = _Allowance(min(MOST, jobs_left // PART), bytes_left // PART, until)
        with self._lock:
            if len(self._of) >= KEPT:
                self._of.clear()
            self._of[key] = granted

    def take(self, key: Hashable, *, jobs: int, size: int, now: float) -> bool:
        """Whether these jobs need no count."""
        with self._lock:
            mine = self._of.get(key)
            if mine is None or now >= mine.until or jobs > mine.jobs or size > mine.size:
                return False
            mine.jobs -= jobs
            mine.size -= size
            return True
