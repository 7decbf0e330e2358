"""Snapshots folded into minutes: a pure step between the broker's status and the rows of the charts.

>>> minutes = MinuteAggregator()
>>> pool = {"name": "p", "finished": 0, "failed": 0, "refused": 0, "died": 0, "waiting": 0, "oldest_wait": 0.0,
...         "ready": 1, "busy": 0, "slots": 1, "free": 1, "memory_mb": 5.0}
>>> minutes.add({"pools": [pool], "workers": []}, 59.0)
[]
>>> minutes.add({"pools": [{**pool, "finished": 7}], "workers": []}, 61.0)[0]["ok"]
7
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from snakepit.pools.broker.stats.histogram import since

MINUTE = 60
COUNTED = {"ok": "finished", "failed": "failed", "refused": "refused", "died": "died"}
MEANT = ("ready", "busy", "starting", "draining", "slots", "taken", "memory_mb")
LARGEST = ("waiting", "oldest_wait")
NOTHING: dict[str, dict[Any, int]] = {"ran": {}, "queued": {}, "recycled": {}}


@dataclass(slots=True)
class _Minute:
    """One pool in one minute. `counters` and `figures` are those at its beginning."""

    began: float
    counters: dict[str, float]
    figures: dict[str, dict[Any, int]]
    looks: int = 0
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(MEANT, 0.0))
    most: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LARGEST, 0))


class MinuteAggregator:
    """A minute ends with the first snapshot of the next one; the broker's first minute begins with the broker."""

    def __init__(self) -> None:
        self._open: dict[str, _Minute] = {}

    def add(self, snapshot: dict[str, Any], at: float) -> list[dict[str, Any]]:
        """Take a snapshot in; returns the rows of the minutes that are over."""
        states: dict[str, list[str]] = {}
        for worker in snapshot["workers"]:
            states.setdefault(worker["pool"], []).append(worker["state"])
        done = []
        for pool in snapshot["pools"]:
            name, figures = pool["name"], snapshot.get("figures", {}).get(pool["name"], NOTHING)
            minute = self._open.get(name)
            if minute is None:
                minute = self._open[name] = _Minute(at, _counters(pool), figures)
            elif at // MINUTE > minute.began // MINUTE:
                done.append(_row(name, minute, pool, figures))
                minute = self._open[name] = _Minute(at // MINUTE * MINUTE, _counters(pool), figures)
            _look(minute, pool, states.get(name, []))
        for gone in self._open.keys() - {pool["name"] for pool in snapshot["pools"]}:
            del self._open[gone]
        return done


def _counters(pool: dict[str, Any]) -> dict[str, float]:
    return {name: pool[of] for name, of in COUNTED.items()}


def _look(minute: _Minute, pool: dict[str, Any], states: list[str]) -> None:
    minute.looks += 1
    now = {
        **{name: pool[name] for name in ("ready", "busy", "slots", "memory_mb")},
        "starting": states.count("starting"),
        "draining": states.count("draining") + states.count("stopping"),
        "taken": pool["slots"] - pool["free"],
    }
    for name in MEANT:
        minute.sums[name] += now[name]
    for name in LARGEST:
        minute.most[name] = max(minute.most[name], pool[name])


def _row(name: str, minute: _Minute, pool: dict[str, Any], figures: dict[str, dict[Any, int]]) -> dict[str, Any]:
    now = _counters(pool)
    return {
        "pool": name,
        "at": minute.began,
        "seconds": MINUTE,
        **{of: max(0, int(now[of] - minute.counters[of])) for of in COUNTED},
        **{of: since(figures.get(of, {}), minute.figures.get(of, {})) for of in NOTHING},
        **{of: round(total / max(1, minute.looks), 2) for of, total in minute.sums.items()},
        **minute.most,
    }
