"""The memory of each worker over the last minutes, and how fast it grows.

>>> grows = Growth()
>>> for minute in range(6):
...     grows.add("p-1", 100 + 3 * minute, at=60.0 * minute)
>>> round(grows.slopes()["p-1"], 1), grows.values("p-1")[-1]
(3.0, 115)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

KEPT = 120  # samples of a worker
EVERY = 5.0  # seconds between two samples
ENOUGH = 240.0  # seconds that a worker must have been watched before its growth means something


class Growth:
    """Samples of each worker; the broker measures at each sweep, so most samples repeat the one before."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[tuple[float, float]]] = {}

    def add(self, worker: str, memory_mb: float, at: float) -> None:
        samples = self._samples.setdefault(worker, deque(maxlen=KEPT))
        if memory_mb >= 0 and (not samples or at - samples[-1][0] >= EVERY):
            samples.append((at, memory_mb))

    def keep(self, workers: Collection[str]) -> None:
        for gone in self._samples.keys() - set(workers):
            del self._samples[gone]

    def clear(self) -> None:
        self._samples.clear()

    def values(self, worker: str) -> list[float]:
        return [value for _, value in self._samples.get(worker, ())]

    def slopes(self) -> dict[str, float]:
        """MiB a minute of each worker that was watched for long enough: the straight line nearest to its samples."""
        return {
            worker: _slope(list(samples))
            for worker, samples in self._samples.items()
            if samples and samples[-1][0] - samples[0][0] >= ENOUGH
        }


def _slope(samples: list[tuple[float, float]]) -> float:
    middle = sum(at for at, _ in samples) / len(samples)
    level = sum(value for _, value in samples) / len(samples)
    spread = sum((at - middle) ** 2 for at, _ in samples)
    return 60 * sum((at - middle) * (value - level) for at, value in samples) / spread if spread else 0.0
