"""What the dashboard knows of its broker, folded from one status after the other. No I/O: facts in, facts out.

    status ─▶ fold() ─▶ Facts (immutable, the newest)      ring of points for the charts of the last minutes
    failure ─▶ miss() ─▶ the same Facts, stale since ...

Everything that a page shows says how old it is: `seen_at` is when the broker said it, `trouble_since` since when it
has said nothing new.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from snakepit.pools.dashboard.alerts import Need, Rows, find_needs
from snakepit.pools.dashboard.memory import Memory
from snakepit.pools.dashboard.points import NOTHING, Point, Track

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
    sparks: dict[str, list[float]] = field(default_factory=dict)  # calls a second in the last minute, of each pool
    needs: tuple[Need, ...] = ()
    memory: dict[str, list[float]] = field(default_factory=dict)  # MiB of each worker in the last minutes
    recycled: dict[str, dict[str, int]] = field(default_factory=dict)  # of each pool, by reason
    rows: Rows = field(default_factory=Rows)

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

    def __init__(self, objective: float = 1.0) -> None:
        self.objective = objective  # seconds that a call may wait
        self.facts = Facts()
        self._tracks: dict[str, Track] = {}
        self._lock = threading.Lock()
        self._broker = ""  # which one: another pid or start means other counters and other numbers of events
        self._settled = False
        self._memory = Memory()
        self._rows = Rows()
        self._since: dict[str, float] = {}  # when each need was first seen

    def fold(self, status: dict[str, Any], at: float) -> Facts:
        with self._lock:
            node, pools = status["node"], tuple(status["pools"])
            boot = f"{node.get('name')} {node.get('pid')} {node.get('started_at')}"
            self._settled = boot == self._broker
            if not self._settled:
                self._tracks.clear()
                self._memory.clear()
                self._broker = boot
            self._add_points(status, at)
            self.facts = Facts(
                version=self.facts.version + 1,
                seen_at=at,
                node=node,
                pools=pools,
                workers=tuple(status["workers"]),
                events=_newest(self.facts.events if self._settled else (), status.get("events", ())),
                rates={name: track.points[-1] for name, track in self._tracks.items()},
                sparks={name: track.spark() for name, track in self._tracks.items()},
                memory={worker["id"]: self._memory.values(worker["id"]) for worker in status["workers"]},
                recycled={name: one.get("recycled", {}) for name, one in status.get("figures", {}).items()},
                rows=self._rows,
            )
            self.facts = replace(self.facts, needs=self._needs(status, at))
            return self.facts

    def note(self, rows: Rows) -> None:
        """What the database says; shown with the next facts."""
        self._rows = rows

    def miss(self, trouble: str, at: float) -> Facts:
        """The broker did not answer: what was known stays, marked as old."""
        with self._lock:
            since = self.facts.trouble_since or at
            self.facts = replace(self.facts, version=self.facts.version + 1, trouble=trouble, trouble_since=since)
            return self.facts

    def points(self, pool: str, after: float = 0.0) -> list[Point]:
        with self._lock:
            return [point for point in self._points(pool) if point.at > after]

    def last_event(self) -> int:
        """The number behind which the broker is asked for events. 0, all, until one broker has answered twice."""
        return int(self.facts.events[0]["seq"]) if self.facts.events and self._settled else 0

    def _needs(self, status: dict[str, Any], at: float) -> tuple[Need, ...]:
        found = find_needs(status, self.facts.events, self._rows, self.objective, at)
        self._since = {need.key: need.since or self._since.get(need.key, at) for need in found}
        return tuple(replace(need, since=self._since[need.key]) for need in found)

    def _points(self, pool: str) -> Iterable[Point]:
        return self._tracks[pool].points if pool in self._tracks else ()

    def _add_points(self, status: dict[str, Any], at: float) -> None:
        states: dict[str, list[str]] = {pool["name"]: [] for pool in status["pools"]}
        for worker in status["workers"]:
            states.setdefault(worker["pool"], []).append(worker["state"])
        figures = status.get("figures", {})
        for pool in status["pools"]:
            name = pool["name"]
            self._tracks.setdefault(name, Track()).add(pool, states[name], figures.get(name, NOTHING), at)
        for worker in status["workers"]:
            self._memory.add(worker["id"], worker["memory_mb"], at)
        self._memory.keep([worker["id"] for worker in status["workers"]])
        for gone in self._tracks.keys() - {pool["name"] for pool in status["pools"]}:
            del self._tracks[gone]


def _newest(known: tuple[dict[str, Any], ...], fresh: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The broker numbers its events: one that came twice is one."""
    have = {event["seq"] for event in known}
    new = [event for event in fresh if event["seq"] not in have]
    return (*reversed(new), *known)[:EVENTS] if new else known
