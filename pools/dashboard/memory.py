"""The memory of each worker over the last minutes, for a sparkline. The broker reports its growth.

>>> memory = MemoryHistory()
>>> for moment in range(3):
...     memory.add("p-1", 100.0 + moment, at=5.0 * moment)
>>> memory.values("p-1")
[100.0, 101.0, 102.0]
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

KEPT = 120  # samples of a worker
EVERY = 5.0  # seconds between two samples


class MemoryHistory:
    """Samples of each worker. The broker measures at each sweep, so most samples repeat the one before."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[tuple[float, float]]] = {}

    def add(self, worker: str, memory_mb: float, at: float) -> None:
        samples = self._samples.setdefault(worker, deque(maxlen=KEPT))
        if memory_mb >= 0 and (not samples or abs(at - samples[-1][0]) >= EVERY):  # a clock may be set back
            samples.append((at, memory_mb))

    def keep(self, workers: Collection[str]) -> None:
        for gone in self._samples.keys() - set(workers):
            del self._samples[gone]

    def clear(self) -> None:
        self._samples.clear()

    def values(self, worker: str) -> list[float]:
        return [value for _, value in self._samples.get(worker, ())]
