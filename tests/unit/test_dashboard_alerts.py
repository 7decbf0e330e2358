"""What needs somebody: one need for each trouble, none where all is well."""

from __future__ import annotations

from typing import Any

import pytest

from snakepit.pools.dashboard.alerts import Need, Rows, find_needs
from snakepit.pools.dashboard.leaks import leak_of, until
from snakepit.pools.dashboard.memory import EVERY, KEPT, Memory
from snakepit.pools.dashboard.state import Board

NODE = {"name": "n", "clock": "beat", "problems": [], "draining": False}
POOL = {"name": "p", "state": "ready", "reason": "", "size": 2, "ready": 2, "waiting": 0, "queue_limit": 10,
        "oldest_wait": 0.0, "lost": 0, "slots": 2, "free": 1}  # fmt: skip
WORKER = {"id": "p-1", "pool": "p", "state": "ready", "memory_mb": 80.0, "gil": "on", "gil_culprit": "",
          "started_at": 0.0, "mb_per_hour": None}  # fmt: skip
LEAKS = {"verdict": "measured", "mb_per_1000_calls": 4.93, "mostly": "embed"}
CHANCE = {"command": "embed", "mb_per_1000_calls": 5.0, "error": 3.0, "verdict": "measured"}
FELL_BACK = {"state": "refused", "reason": "unsafe", "why": "3 threads run after preload()"}


def needs(*, node: Any = (), pool: Any = (), worker: Any = (), events: Any = (),
          rows: Rows | None = None, now: float = 1000.0) -> list[Need]:  # fmt: skip
    status = {
        "node": {**NODE, **dict(node)},
        "pools": [{**POOL, **dict(pool)}],
        "workers": [{**WORKER, **dict(worker)}],
    }
    return find_needs(status, events, rows or Rows(), 1.0, now)


def test_nothing_needs_anybody_where_all_is_well() -> None:
    assert needs() == []


@pytest.mark.parametrize(
    ("trouble", "key", "level"),
    [
        ({"node": {"clock": "lifecycle clock missing"}}, "clock", "warning"),
        ({"node": {"problems": ["p: size: 0"]}}, "problem:p: size: 0", "error"),
        ({"node": {"draining": True}}, "draining", "warning"),
        (
            {"node": {"draining": True, "drain_since": 5.0, "drain_actor": "ada", "drain_reason": ""}},
            "drained",
            "warning",
        ),
        ({"pool": {"state": "failed", "reason": "ImportError"}}, "failed:p", "error"),
        ({"pool": {"state": "degraded", "reason": "1 of 2", "ready": 1}}, "degraded:p", "warning"),
        ({"pool": {"state": "starting", "reason": "the last start failed"}}, "starting:p", "error"),
        ({"pool": {"state": "paused", "reason": "x"}}, "paused:p", "warning"),
        ({"pool": {"waiting": 10}}, "full:p", "error"),
        ({"pool": {"waiting": 2, "oldest_wait": 1.5}}, "wait:p", "warning"),
        ({"pool": {"lost": 1}}, "lost:p", "warning"),
        ({"worker": {"gil_culprit": "orjson"}}, "gil:p-1", "warning"),
        ({"worker": {"mb_per_hour": 90.0}}, "growth:p-1", "warning"),
        ({"pool": {"growth": LEAKS}}, "leak:p", "warning"),
        ({"pool": {"growth": {**LEAKS, "commands": [CHANCE | {"error": 1.0}]}}}, "leak:p", "warning"),
        (
            {"pool": {"growth": {**LEAKS, "commands": [CHANCE, {"verdict": "cannot be told apart"}]}}},
            "leak:p",
            "warning",
        ),
        ({"pool": {"races": ["index"]}}, "race:p", "warning"),
        ({"pool": {"template": FELL_BACK, "warnings": [f"one by one: {FELL_BACK['why']}"]}}, "template:p", "warning"),
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
    [
        {"pool": {"state": "starting"}},
        {"pool": {"oldest_wait": 0.9}},
        {"worker": {"gil": "off"}},
        {"worker": {"mb_per_hour": 30.0}},
        {"worker": {"mb_per_hour": 900.0, "started_at": 900.0}},  # it only warms up
        {"pool": {"growth": {**LEAKS, "mb_per_1000_calls": 0.3}}},
        {"pool": {"growth": {"verdict": "not enough evidence", "mb_per_1000_calls": None}}},
        {"pool": {"growth": LEAKS}, "worker": {"started_at": 900.0}},  # all of its workers only warm up
        {"pool": {"growth": {**LEAKS, "commands": [CHANCE]}}},
        {"pool": {"template": FELL_BACK, "warnings": []}},  # nobody asked for one
    ],
)
def test_what_is_only_unusual_needs_nobody(usual: dict[str, Any]) -> None:
    assert needs(**usual) == []


def test_a_failed_pool_is_one_need_whatever_its_failed_starts_bring_with_them() -> None:
    deaths = [
        {"kind": "worker.died", "pool": "p", "worker": f"p-{at}", "at": at, "message": "x"} for at in (990, 980, 970)
    ]
    reason = "5 starts failed: ImportError"
    pool = {"state": "failed", "reason": reason, "template": FELL_BACK, "warnings": [f"one by one: {FELL_BACK['why']}"]}
    (need,) = needs(pool=pool, events=deaths)
    assert (need.key, need.cause) == ("failed:p", reason)


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


def test_a_leak_says_where_and_when_its_soft_line_is_reached() -> None:
    grows = {"memory_mb": 80.0, "mb_per_hour": 60.0}
    (need,) = needs(pool={"growth": LEAKS}, worker=grows, rows=Rows(soft_lines={"p": 100.0}))
    assert need.title == "p leaks 4.9 MiB per 1,000 calls in `embed`"
    assert need.cause == "p-1 reaches its soft line of 100 MiB in about 20 min, and is then replaced."
    assert (need.view, need.argument, need.right) == ("pool-recycle", "p", "operate")
    (now,) = needs(pool={"growth": LEAKS}, worker={**grows, "memory_mb": 120.0}, rows=Rows(soft_lines={"p": 100.0}))
    assert "within a minute" in now.cause


def test_a_leak_that_its_line_catches_much_later_needs_nobody() -> None:
    rows = Rows(soft_lines={"p": 1000.0})
    assert needs(pool={"growth": LEAKS}, worker={"mb_per_hour": 10.0}, rows=rows) == []
    assert needs(pool={"growth": LEAKS}, worker={"mb_per_hour": 90.0}, rows=rows) == []


def test_a_leak_without_a_line_leads_to_the_advice() -> None:
    (need,) = needs(pool={"growth": {**LEAKS, "mostly": ""}}, worker={"mb_per_hour": 90.0})
    assert (need.view, need.action, need.right) == ("diagnostics", "Advice", "view")
    assert need.title == "p leaks 4.9 MiB per 1,000 calls"
    assert "memory_soft_mb" in need.cause


def test_several_races_are_one_need_that_names_the_first() -> None:
    (need,) = needs(pool={"races": ["index", "count", "cache"]})
    assert need.title == "p has a race: two threads wrote to `index` and 2 more"


@pytest.mark.parametrize(
    "worker",
    [{"memory_mb": -1.0}, {"mb_per_hour": None}, {"mb_per_hour": -5.0}, {"state": "draining"}, {"mb_per_hour": 0.0}],
)
def test_who_does_not_grow_reaches_no_line(worker: dict[str, Any]) -> None:
    growing = {**WORKER, "mb_per_hour": 60.0}
    assert until(growing, 100.0) == pytest.approx(1200.0)
    assert until(growing, None) is None
    assert until({**growing, **worker}, 100.0) is None


def test_the_worker_that_is_first_at_its_line_is_named() -> None:
    workers = [{**WORKER, "id": ident, "mb_per_hour": slope} for ident, slope in (("a", 10.0), ("b", 60.0))]
    leak = leak_of({"name": "p", "growth": LEAKS}, workers, 100.0)
    assert leak is not None
    assert (leak.worker, leak.seconds) == ("b", 1200.0)


def test_memory_keeps_a_sample_every_few_seconds_of_the_workers_that_are_there() -> None:
    memory = Memory()
    for second in range(int(EVERY * KEPT) + 50):
        memory.add("p-1", 100.0 + second, float(second))
    assert len(memory.values("p-1")) == KEPT
    memory.add("p-2", -1, 5.0)  # not measured yet
    assert memory.values("p-2") == []
    memory.keep(["p-2"])
    assert memory.values("p-1") == []
