"""How long a worker of the current generation takes from its start until it is ready, from the last starts.

>>> learned = StartupTimes()
>>> learned.expected
0.0
>>> for seconds in (9.0, 3.0, 3.2, 3.1, 3.0, 2.9):
...     learned.record(seconds)
>>> learned.expected
3.2
>>> learned.forget()
>>> learned.expected
0.0
"""

from __future__ import annotations

from collections import deque

# The worst of a few, not a mean: a successor that is ready too early costs memory for a moment, one that is ready too
# late keeps a worker beyond its age. A start beside seven others is slow; it is discarded after so many better ones.
KEPT = 5


class StartupTimes:
    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=KEPT)

    @property
    def expected(self) -> float:
        """Seconds that the next start will take; 0: no start of this generation has succeeded yet."""
        return max(self._last, default=0.0)

    def record(self, seconds: float) -> None:
        self._last.append(seconds)

    def forget(self) -> None:
        """Discard all times: a new definition or new code takes another time."""
        self._last.clear()
