"""Sums statuses by the minute: a pure step between the broker's status and the rows of the charts.

status each second ─▶ MinuteAggregator ─▶ a MinuteTotals for each pool at the end of its minute ─▶ PoolPeriod rows
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from snakepit.pools.broker.stats.histogram import since
from snakepit.pools.broker.status import BrokerStatus, PoolHistograms, PoolStatus

MINUTE = 60
NONE = PoolHistograms()


@dataclass(frozen=True, slots=True)
class MinuteTotals:
    """One pool in one minute, with the fields of a PoolPeriod row."""

    pool: str
    at: float  # its beginning, seconds since the epoch
    seconds: int
    ok: int
    failed: int
    refused: int
    died: int
    ran: Mapping[int, int]  # counts by bucket, see stats.histogram
    queued: Mapping[int, int]
    recycled: Mapping[str, int]  # by reason
    ready: float  # this and all below up to memory_mb: the mean
    busy: float
    starting: float
    draining: float
    slots: float
    taken: float
    memory_mb: float
    waiting: int  # this and oldest_wait: the largest
    oldest_wait: float


@dataclass(slots=True)
class _Minute:
    """One pool in the current minute; `first` and `histograms` are those at its beginning."""

    began: float
    first: PoolStatus
    histograms: PoolHistograms
    last: PoolStatus
    last_histograms: PoolHistograms
    samples: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 7)  # in the order of MinuteTotals
    waiting: int = 0
    oldest_wait: float = 0.0

    def observe(self, pool: PoolStatus, histograms: PoolHistograms, states: Sequence[str]) -> None:
        self.last, self.last_histograms = pool, histograms
        leaving = states.count("draining") + states.count("stopping")
        now = (
            pool.ready, pool.busy, states.count("starting"), leaving, pool.slots, pool.taken, pool.memory_mb,
        )  # fmt: skip
        self.samples += 1
        self.sums = [total + value for total, value in zip(self.sums, now, strict=True)]
        self.waiting = max(self.waiting, pool.waiting)
        self.oldest_wait = max(self.oldest_wait, pool.oldest_wait)

    def ended(self) -> MinuteTotals:
        """The totals up to the last status."""
        return self.totals(self.last, self.last_histograms)

    def totals(self, pool: PoolStatus, histograms: PoolHistograms) -> MinuteTotals:
        ready, busy, starting, draining, slots, taken, memory_mb = (
            round(total / max(1, self.samples), 2) for total in self.sums
        )
        first, begun = self.first, self.histograms
        return MinuteTotals(
            pool=pool.name,
            at=self.began,
            seconds=MINUTE,
            ok=max(0, pool.finished - first.finished),
            failed=max(0, pool.failed - first.failed),
            refused=max(0, pool.refused - first.refused),
            died=max(0, pool.died - first.died),
            ran=since(histograms.ran, begun.ran),
            queued=since(histograms.queued, begun.queued),
            recycled=since(histograms.recycled, begun.recycled),
            ready=ready,
            busy=busy,
            starting=starting,
            draining=draining,
            slots=slots,
            taken=taken,
            memory_mb=memory_mb,
            waiting=self.waiting,
            oldest_wait=self.oldest_wait,
        )


class MinuteAggregator:
    """A minute ends with the first status of the next one, or when the clock is set back.

    A pool's first minute begins with the pool, at zero.
    """

    def __init__(self) -> None:
        self._open: dict[str, _Minute] = {}
        self._last = float("-inf")
        self._set_back = False

    def add(self, status: BrokerStatus, at: float) -> list[MinuteTotals]:
        """Add a status; returns the totals of the minutes that are over."""
        jumped = at < self._last - MINUTE  # a correction by a moment ends no minute
        self._set_back, self._last = self._set_back or jumped, at
        # After a clock was set back, a full minute may have its row already, and the database keeps the first one.
        began = at if self._set_back else at // MINUTE * MINUTE
        states: dict[str, list[str]] = {}
        for worker in status.workers:
            states.setdefault(worker.pool, []).append(worker.state)
        done = []
        for pool in status.pools:
            histograms = status.histograms.get(pool.name, NONE)
            minute = self._open.get(pool.name)
            if minute is None:
                # Its counters rise from zero: calls before the first status count too.
                start = replace(pool, finished=0, failed=0, refused=0, died=0)
                minute = self._open[pool.name] = _Minute(at, start, NONE, pool, histograms)
            elif jumped or at // MINUTE > minute.began // MINUTE:
                done.append(minute.totals(pool, histograms))
                minute = self._open[pool.name] = _Minute(began, pool, histograms, pool, histograms)
            minute.observe(pool, histograms, states.get(pool.name, []))
        for gone in self._open.keys() - {pool.name for pool in status.pools}:
            done.append(self._open.pop(gone).ended())
        return done

    def end(self) -> list[MinuteTotals]:
        """Return the totals of the minutes that are not over: the broker stops."""
        minutes, self._open = self._open, {}
        return [minute.ended() for minute in minutes.values()]
