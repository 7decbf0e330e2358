"""Durations in buckets that grow by a fifth: percentiles within a tenth, in a few hundred bytes, that can be added.

>>> two = Histogram()
>>> for seconds in (0.001, 0.002, 0.002, 4.0):
...     two.add(seconds)
>>> [round(quantile(two.sparse(), share), 4) for share in (0.5, 0.99)]
[0.002, 4.0428]
>>> quantile({}, 0.5) is None
True
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import log2
from typing import TypeVar

LEAST = 1e-5  # seconds: what is shorter is in the first bucket
STEPS = 4  # buckets for each doubling
BUCKETS = 120  # the last one begins at three hours

Sparse = Mapping[int, int]  # bucket: count; none that is zero
Key = TypeVar("Key", int, str)


class Histogram:
    """Counts since the broker started; never reset, so that two readings can be subtracted."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS

    def add(self, seconds: float) -> None:
        self.extend((seconds,))

    def extend(self, durations: Iterable[float]) -> None:
        counts = self.counts
        for seconds in durations:
            counts[min(int(STEPS * log2(seconds / LEAST)), BUCKETS - 1) if seconds > LEAST else 0] += 1

    def sparse(self) -> dict[int, int]:
        return {index: count for index, count in enumerate(self.counts) if count}


def since(now: Mapping[Key, int], then: Mapping[Key, int]) -> dict[Key, int]:
    """Return the difference of two readings. A count that went down is from another broker: all of it is new."""
    if any(then.get(index, 0) > now.get(index, 0) for index in then):
        return dict(now)
    return {index: more for index, count in now.items() if (more := count - then.get(index, 0))}


def merged(parts: Iterable[Mapping[Key, int]]) -> dict[Key, int]:
    total: dict[Key, int] = {}
    for part in parts:
        for index, count in part.items():
            total[index] = total.get(index, 0) + count
    return total


def quantile(counts: Sparse, share: float) -> float | None:
    """Return the seconds below which this share of the durations lies (middle of a bucket); None if there are none."""
    left = share * sum(counts.values())
    for index in sorted(counts):
        left -= counts[index]
        if left <= 0:
            return float(LEAST * 2 ** ((index + 0.5) / STEPS))
    return None
