"""Keeps in memory what watchers read: the newest events by number, and how long calls ran and waited.

    broker ─▶ RecentEvents (Meter, Recorder) ─▶ Metrics ─▶ event log ─▶ rows
                 └─▶ Status with `watch`: events after a number, histograms of each pool

So the dashboard shows recent events without a database, and computes percentiles from counts, never from percentiles.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from snakepit.pools.broker.events import Event, Kind
from snakepit.pools.broker.ports import Meter, Recorder
from snakepit.pools.broker.stats.histogram import Histogram
from snakepit.pools.broker.status import BrokerStatus, PoolHistograms, RecordedEvent

EVENTS = 500


@dataclass(slots=True)
class CallHistograms:
    """How long the calls of one pool ran and waited, and its recycled workers, since the broker started."""

    ran: Histogram = field(default_factory=Histogram)
    queued: Histogram = field(default_factory=Histogram)
    recycled: dict[str, int] = field(default_factory=dict)  # by reason

    def status(self) -> PoolHistograms:
        return PoolHistograms(self.ran.sparse(), self.queued.sparse(), dict(self.recycled))


class RecentEvents:
    """A Meter and a Recorder that forwards everything it keeps."""

    def __init__(self, meter: Meter, recorder: Recorder) -> None:
        self._meter = meter
        self._recorder = recorder
        self._events: deque[tuple[int, float, Event]] = deque(maxlen=EVENTS)
        self._count = 0
        self._histograms: dict[str, CallHistograms] = {}

    # Meter

    def executed(self, pool: str, command: str, code: str, queued: float, ran: float) -> None:
        if ran or code == "ok":
            histograms = self._of(pool)
            histograms.ran.add(ran)
            histograms.queued.add(queued)
        self._meter.executed(pool, command, code, queued, ran)

    def succeeded(self, pool: str, command: str, queued: Sequence[float], ran: Sequence[float]) -> None:
        histograms = self._of(pool)
        histograms.ran.extend(ran)
        histograms.queued.extend(queued)
        self._meter.succeeded(pool, command, queued, ran)

    def delivered(self, pool: str, results: int) -> None:
        self._meter.delivered(pool, results)

    def buffered(self, pool: str, of: str, size: int) -> None:
        self._meter.buffered(pool, of, size)

    def full(self, pool: str, times: int) -> None:
        self._meter.full(pool, times)

    # Recorder

    def start(self) -> None:
        self._recorder.start()

    def record(self, at: float, event: Event) -> None:
        self._count += 1
        self._events.append((self._count, at, event))
        if event.kind is Kind.WORKER_RECYCLED:
            recycled = self._of(event.pool).recycled
            recycled[event.reason] = recycled.get(event.reason, 0) + 1
        elif event.kind is Kind.POOL_REMOVED:
            self._histograms.pop(event.pool, None)
        self._recorder.record(at, event)

    def observe(self, status: BrokerStatus) -> None:
        self._recorder.observe(replace(status, histograms=self.histograms()))

    def stop(self) -> None:
        self._recorder.stop()

    # Watchers

    def add_to(self, status: BrokerStatus, after: int) -> BrokerStatus:
        """The status with the events after this number, and the histograms of each pool."""
        events = tuple(
            RecordedEvent(
                number, at, str(event.kind), event.pool, event.worker, event.reason, event.message, event.level
            )
            for number, at, event in self.events(after)
        )
        return replace(status, events=events, histograms=self.histograms())

    def histograms(self) -> dict[str, PoolHistograms]:
        return {pool: histograms.status() for pool, histograms in self._histograms.items()}

    def events(self, after: int) -> Iterator[tuple[int, float, Event]]:
        """The kept events after a number, the oldest first. A number from another broker's life returns all."""
        if after > self._count:
            after = 0
        return (one for one in self._events if one[0] > after)

    def _of(self, pool: str) -> CallHistograms:
        histograms = self._histograms.get(pool)
        if histograms is None:
            histograms = self._histograms[pool] = CallHistograms()
        return histograms
