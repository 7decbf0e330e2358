"""Results that are not counted yet.

    answers ─▶ BufferedMeter: two lists a command ─(a reader asks, or there are MOST)─▶ Usages ─▶ Metrics

A result has a place in seven histograms, and the next call of the same caller would wait while it is put there. Added
to two lists, and counted with those that came before and after it, it costs a fraction.

>>> from snakepit.pools.broker.ports import NoMeter
>>> from snakepit.pools.broker.stats.usage import Usages
>>> usages = Usages(NoMeter())
>>> usage, buffered_meter = usages.of("digits", now=0.0), BufferedMeter(usages)
>>> buffered_meter.succeeded("digits", "label", [0.5], [0.1])
>>> usage.look(1.0, slots=1, busy=1)
>>> usage.row()["answered"]
0
>>> buffered_meter.count()
>>> usage.look(2.0, slots=1, busy=1)
>>> usage.row()["answered"]
1
"""

from __future__ import annotations

from collections.abc import Sequence

from snakepit.pools.broker.ports import Meter

MOST = 500  # results that wait to be counted; half a millisecond's worth


class BufferedMeter:
    """A Meter that passes on what it was told once it is asked to `count`."""

    def __init__(self, then: Meter) -> None:
        self._then = then
        self._results: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
        self._delivered: dict[str, int] = {}
        self._full: dict[str, int] = {}
        self._waiting = 0

    def executed(self, pool: str, command: str, code: str, queued: float, ran: float) -> None:
        self._then.executed(pool, command, code, queued, ran)

    def succeeded(self, pool: str, command: str, queued: Sequence[float], ran: Sequence[float]) -> None:
        lists = self._results.get((pool, command))
        if lists is None:
            lists = self._results[pool, command] = ([], [])
        lists[0].extend(queued)
        lists[1].extend(ran)
        self._waiting += len(ran)
        if self._waiting >= MOST:
            self.count()

    def delivered(self, pool: str, results: int) -> None:
        self._delivered[pool] = self._delivered.get(pool, 0) + results

    def full(self, pool: str, times: int) -> None:
        self._full[pool] = self._full.get(pool, 0) + times

    def count(self) -> None:
        """Pass on what waits: before anybody looks at numbers, and before what they belong to is forgotten."""
        results, delivered, full = self._results, self._delivered, self._full
        self._results, self._delivered, self._full, self._waiting = {}, {}, {}, 0
        for (pool, command), (queued, ran) in results.items():
            self._then.succeeded(pool, command, queued, ran)
        for pool, many in delivered.items():
            self._then.delivered(pool, many)
        for pool, times in full.items():
            self._then.full(pool, times)
