"""The memory of each worker over the last minutes, for a sparkline. The broker reports its growth.

Samples are taken while a page is open. A time without a page is a gap in the line, as in every chart.

>>> memory = MemoryHistory()
>>> for moment in range(3):
...     memory.add("p-1", 100.0 + moment, at=5.0 * moment)
>>> memory.values("p-1")
[100.0, 101.0, 102.0]
>>> memory.add("p-1", 103.0, at=25.0)
>>> memory.values("p-1")
[100.0, 101.0, 102.0, None, None, 103.0]
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

EVERY = 5.0  # seconds between two samples
GAP = 10.0  # seconds without a sample after which the line breaks
KEPT = 120  # places of the line, one for each sample: ten minutes


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

    def values(self, worker: str) -> list[float | None]:
        """MiB, one value for each EVERY seconds; None where nothing was measured."""
        found: list[float | None] = []
        before: float | None = None
        for at, value in self._samples.get(worker, ()):
            if before is not None and at - before > GAP:
                found += [None] * min(round((at - before) / EVERY) - 1, KEPT)
            found.append(value)
            before = at
        return found[-KEPT:]
