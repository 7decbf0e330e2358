"""What the broker keeps for whoever watches it: its newest events by number, and how long calls ran and waited.

    broker ─▶ RecentEvents (Meter, Recorder) ─▶ Metrics ─▶ event log ─▶ rows
                 └─▶ Status with `watch`: events after a number, histograms of each pool

A dashboard thus needs no database to show what just happened, and no percentile is an average of percentiles.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from snakepit.pools.broker.events import Event, Kind
from snakepit.pools.broker.ports import Meter, Recorder
from snakepit.pools.broker.stats.histogram import Histogram

EVENTS = 500


@dataclass(slots=True)
class Figures:
    """Of one pool, since the broker began."""

    ran: Histogram = field(default_factory=Histogram)
    queued: Histogram = field(default_factory=Histogram)
    recycled: dict[str, int] = field(default_factory=dict)  # by reason

    def plain(self) -> dict[str, Any]:
        return {"ran": self.ran.sparse(), "queued": self.queued.sparse(), "recycled": dict(self.recycled)}


class RecentEvents:
    """A Meter and a Recorder that passes on what it writes down."""

    def __init__(self, meter: Meter, recorder: Recorder) -> None:
        self._meter = meter
        self._recorder = recorder
        self._events: deque[tuple[int, float, Event]] = deque(maxlen=EVENTS)
        self._count = 0
        self._figures: dict[str, Figures] = {}

    # Meter

    def executed(self, pool: str, command: str, code: str, queued: float, ran: float) -> None:
        if ran or code == "ok":
            figures = self._of(pool)
            figures.ran.add(ran)
            figures.queued.add(queued)
        self._meter.executed(pool, command, code, queued, ran)

    def succeeded(self, pool: str, command: str, queued: Sequence[float], ran: Sequence[float]) -> None:
        figures = self._of(pool)
        figures.ran.extend(ran)
        figures.queued.extend(queued)
        self._meter.succeeded(pool, command, queued, ran)

    def delivered(self, pool: str, results: int) -> None:
        self._meter.delivered(pool, results)

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
            self._figures.pop(event.pool, None)
        self._recorder.record(at, event)

    def observe(self, snapshot: dict[str, Any]) -> None:
        self._recorder.observe({**snapshot, "figures": self.figures()})

    def stop(self) -> None:
        self._recorder.stop()

    # Watchers

    def figures(self) -> dict[str, dict[str, Any]]:
        return {pool: figures.plain() for pool, figures in self._figures.items()}

    def events(self, after: int) -> Iterator[tuple[int, float, Event]]:
        """The kept events behind a number, the oldest first. A number of another broker's life gives all."""
        if after > self._count:
            after = 0
        return (one for one in self._events if one[0] > after)

    def _of(self, pool: str) -> Figures:
        figures = self._figures.get(pool)
        if figures is None:
            figures = self._figures[pool] = Figures()
        return figures
