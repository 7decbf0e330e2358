"""What needs somebody: one need for each trouble, none where all is well."""

from __future__ import annotations

from typing import Any

import pytest

from pools.dashboard.board import Board
from pools.dashboard.memory import ENOUGH, Growth
from pools.dashboard.needs import Need, Rows, find_needs

NODE = {"name": "n", "clock": "beat", "problems": [], "draining": False}
POOL = {"name": "p", "state": "ready", "reason": "", "size": 2, "ready": 2, "waiting": 0, "queue_limit": 10,
        "oldest_wait": 0.0, "lost": 0, "slots": 2, "free": 1}  # fmt: skip
WORKER = {"id": "p-1", "pool": "p", "state": "ready", "memory_mb": 80.0, "gil": "on", "gil_culprit": ""}


def needs(*, node: Any = (), pool: Any = (), worker: Any = (), events: Any = (), growth: float = 0.0,
          rows: Rows | None = None, now: float = 1000.0) -> list[Need]:  # fmt: skip
    status = {
        "node": {**NODE, **dict(node)},
        "pools": [{**POOL, **dict(pool)}],
        "workers": [{**WORKER, **dict(worker)}],
    }
    return find_needs(status, events, {"p-1": growth}, rows or Rows(), 1.0, now)


def test_nothing_needs_anybody_where_all_is_well() -> None:
    assert needs() == []


@pytest.mark.parametrize(
    ("trouble", "key", "level"),
    [
        ({"node": {"clock": "lifecycle clock missing"}}, "clock", "warning"),
        ({"node": {"problems": ["p: size: 0"]}}, "problem:p: size: 0", "error"),
        ({"node": {"draining": True}}, "draining", "warning"),
        ({"pool": {"state": "failed", "reason": "ImportError"}}, "failed:p", "error"),
        ({"pool": {"state": "degraded", "reason": "1 of 2", "ready": 1}}, "degraded:p", "warning"),
        ({"pool": {"state": "starting", "reason": "the last start failed"}}, "starting:p", "error"),
        ({"pool": {"state": "paused", "reason": "x"}}, "paused:p", "warning"),
        ({"pool": {"waiting": 10}}, "full:p", "error"),
        ({"pool": {"waiting": 2, "oldest_wait": 1.5}}, "wait:p", "warning"),
        ({"pool": {"lost": 1}}, "lost:p", "warning"),
        ({"worker": {"gil_culprit": "orjson"}}, "gil:p-1", "warning"),
        ({"growth": 3.0}, "growth:p-1", "warning"),
        ({"rows": Rows(silent_nodes=(("m", 5.0),))}, "silent:m", "error"),
        ({"rows": Rows(quarantined=2, quarantined_since=7.0)}, "quarantined", "warning"),
    ],
)
def test_each_trouble_is_one_need(trouble: dict[str, Any], key: str, level: str) -> None:
    (need,) = needs(**trouble)
    assert (need.key, need.level) == (key, level)
    assert need.title
    assert need.cause


@pytest.mark.parametrize(
    "usual",
    [{"pool": {"state": "starting"}}, {"pool": {"oldest_wait": 0.9}}, {"worker": {"gil": "off"}}, {"growth": 0.5}],
)
def test_what_is_only_unusual_needs_nobody(usual: dict[str, Any]) -> None:
    assert needs(**usual) == []


def test_deaths_are_a_crash_loop_when_they_are_many_and_lately() -> None:
    def death(at: float, kind: str = "worker.died") -> dict[str, Any]:
        return {"kind": kind, "at": at, "pool": "p", "worker": f"p-{at:.0f}", "message": "signal SIGSEGV"}

    deaths = [death(990.0), death(980.0), death(970.0)]
    (need,) = needs(events=deaths)
    assert (need.key, need.since, need.argument) == ("crash:p", 970.0, "p-990")
    assert "signal SIGSEGV" in need.cause
    assert needs(events=deaths[:2]) == []
    assert needs(events=[death(600.0), *deaths[1:]], now=1000.0) == []
    assert needs(events=[death(one["at"], "worker.recycled") for one in deaths]) == []


def test_the_worst_comes_first() -> None:
    found = needs(node={"clock": "lifecycle clock missing"}, pool={"state": "failed", "reason": "x"})
    assert [need.level for need in found] == ["error", "warning"]


def test_a_need_keeps_the_moment_at_which_it_was_first_seen() -> None:
    board, paused = Board(), {**POOL, "state": "paused", "finished": 0, "failed": 0, "busy": 0, "memory_mb": 0.0}
    node = {**NODE, "pid": 1, "started_at": 1.0}
    for at in (10.0, 20.0):
        board.fold({"node": node, "pools": [paused], "workers": []}, at)
    assert [need.since for need in board.facts.needs] == [10.0]
    board.fold({"node": node, "pools": [{**paused, "state": "ready"}], "workers": []}, 30.0)
    board.fold({"node": node, "pools": [paused], "workers": []}, 40.0)
    assert [need.since for need in board.facts.needs] == [40.0]


def test_growth_is_only_told_of_workers_that_were_watched_for_long_enough() -> None:
    grows = Growth()
    for second in range(0, int(ENOUGH) - 20, 10):
        grows.add("p-1", 100 + second / 10, float(second))
    assert grows.slopes() == {}
    for second in range(int(ENOUGH) - 20, int(ENOUGH) + 20, 10):
        grows.add("p-1", 100 + second / 10, float(second))
    assert grows.slopes()["p-1"] == pytest.approx(6.0)
    grows.add("p-2", -1, 5.0)  # not measured yet
    assert grows.values("p-2") == []
    grows.keep(["p-2"])
    assert grows.slopes() == {}
