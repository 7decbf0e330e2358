"""What the dashboard knows of its broker, folded from one status after the other. No I/O: facts in, facts out.

    status ─▶ fold() ─▶ Facts (immutable, the newest)      ring of points for the charts of the last minutes
    failure ─▶ miss() ─▶ the same Facts, stale since ...

Everything that a page shows says how old it is: `seen_at` is when the broker said it, `trouble_since` since when it
has said nothing new.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from pools.dashboard.points import Point, points_of

RING = 600  # points a pool: five minutes at two a second
EVENTS = 200


@dataclass(frozen=True, slots=True)
class Facts:
    """What was known at one moment. Everything in it is shared by all readers: nobody writes into it."""

    version: int = 0
    seen_at: float = 0.0  # seconds since the epoch; 0: the broker has never answered
    node: dict[str, Any] = field(default_factory=dict)
    pools: tuple[dict[str, Any], ...] = ()
    workers: tuple[dict[str, Any], ...] = ()
    events: tuple[dict[str, Any], ...] = ()  # the newest first
    trouble: str = ""
    trouble_since: float = 0.0
    rates: dict[str, Point] = field(default_factory=dict)  # the newest point of each pool

    @property
    def known(self) -> bool:
        return self.seen_at > 0

    def pool(self, name: str) -> dict[str, Any] | None:
        return next((pool for pool in self.pools if pool["name"] == name), None)

    def worker(self, ident: str) -> dict[str, Any] | None:
        return next((worker for worker in self.workers if worker["id"] == ident), None)

    def workers_of(self, pool: str) -> list[dict[str, Any]]:
        return [worker for worker in self.workers if worker["pool"] == pool]

    def events_of(self, *, pool: str = "", worker: str = "") -> list[dict[str, Any]]:
        return [one for one in self.events if pool in ("", one["pool"]) and worker in ("", one["worker"])]


class Board:
    """The newest Facts and the last minutes of each pool. Safe between the loop that folds and threads that read."""

    def __init__(self) -> None:
        self.facts = Facts()
        self._rings: dict[str, deque[Point]] = {}
        self._lock = threading.Lock()
        self._broker = ""  # which one: another pid or start means other counters

    def fold(self, status: dict[str, Any], at: float) -> Facts:
        with self._lock:
            node, pools = status["node"], tuple(status["pools"])
            boot = f"{node.get('name')} {node.get('pid')} {node.get('started_at')}"
            known = self.facts.events if boot == self._broker else ()
            if boot != self._broker:
                self._rings.clear()
                self._broker = boot
            self._add_points(pools, status["workers"], at)
            self.facts = Facts(
                version=self.facts.version + 1,
                seen_at=at,
                node=node,
                pools=pools,
                workers=tuple(status["workers"]),
                events=_newest(known, status.get("events", ())),
                rates={name: ring[-1] for name, ring in self._rings.items() if ring},
            )
            return self.facts

    def miss(self, trouble: str, at: float) -> Facts:
        """The broker did not answer: what was known stays, marked as old."""
        with self._lock:
            since = self.facts.trouble_since or at
            self.facts = replace(self.facts, version=self.facts.version + 1, trouble=trouble, trouble_since=since)
            return self.facts

    def points(self, pool: str, after: float = 0.0) -> list[Point]:
        with self._lock:
            return [point for point in self._rings.get(pool, ()) if point.at > after]

    def _add_points(self, pools: tuple[dict[str, Any], ...], workers: list[dict[str, Any]], at: float) -> None:
        for pool in pools:
            ring = self._rings.setdefault(pool["name"], deque(maxlen=RING))
            ring.append(points_of(pool, workers, at, ring))
        for gone in self._rings.keys() - {pool["name"] for pool in pools}:
            del self._rings[gone]


def _newest(known: tuple[dict[str, Any], ...], fresh: Any) -> tuple[dict[str, Any], ...]:
    """The broker numbers its events: one that came twice is one."""
    last = known[0]["seq"] if known else 0
    new = [event for event in fresh if event["seq"] > last]
    return (*reversed(new), *known)[:EVENTS] if new else known
