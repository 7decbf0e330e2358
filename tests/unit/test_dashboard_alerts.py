"""Alerts: one for each trouble, none where all is healthy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from snakepit.pools.broker.status import CLOCK_MISSING, RecordedEvent
from snakepit.pools.dashboard.alerts import Alert, EndedJobs, StoredState, find_alerts
from snakepit.pools.dashboard.leaks import leak_of, seconds_to
from snakepit.pools.dashboard.memory import EVERY, KEPT, MemoryHistory
from snakepit.pools.dashboard.state import StateStore
from tests.statuses import command_growth, event, growth, pool, status, template, worker

POOL = pool("p", size=2, ready=2, queue_limit=10, slots=2, free=1)
WORKER = worker("p-1", memory_mb=80.0, started_at=0.0)
LEAKS = growth(4.93, mostly="embed", calls=4000, samples=40)
CHANCE = command_growth("embed", 5.0, 3.0)
TIED = command_growth("", None, None, verdict="cannot be told apart")
FELL_BACK = template("refused", reason="unsafe", why="3 threads run after preload()")
LOST_JOBS = EndedJobs("lost", "p", "train", "worker_lost", 3, 7.0)
WARNED = ("one by one: 3 threads run after preload()",)


def alerts(*, node: Any = (), pool: Any = (), worker: Any = (), events: Any = (),
           stored: StoredState | None = None, now: float = 1000.0) -> list[Alert]:  # fmt: skip
    found = status([replace(POOL, **dict(pool))], [replace(WORKER, **dict(worker))], **dict(node))
    return find_alerts(found, events, stored or StoredState(), 1.0, now)


def test_a_healthy_pool_has_no_alert() -> None:
    assert alerts() == []


@pytest.mark.parametrize(
    ("trouble", "key", "level"),
    [
        ({"node": {"clock": "lifecycle clock missing"}}, "clock", "warning"),
        ({"node": {"problems": ("p: size: 0",)}}, "problem:p: size: 0", "error"),
        ({"node": {"draining": True}}, "draining", "warning"),
        (
            {"node": {"draining": True, "drain_since": 5.0, "drain_actor": "ada", "drain_reason": ""}},
            "drained",
            "warning",
        ),
        ({"pool": {"state": "failed", "reason": "ImportError"}}, "failed:p", "error"),
        ({"pool": {"state": "degraded", "reason": "1 of 2", "ready": 1}}, "degraded:p", "warning"),
        ({"pool": {"state": "degraded", "reason": "3 failed starts", "ready": 2, "size": 2}}, "degraded:p", "warning"),
        (
            {"pool": {"state": "degraded", "reason": "x", "ready": 2, "size": 2, "suspended": ("resize",)}},
            "suspended:p",
            "error",
        ),
        ({"pool": {"state": "starting", "reason": "the last start failed"}}, "starting:p", "error"),
        ({"pool": {"state": "paused", "reason": "x"}}, "paused:p", "warning"),
        ({"pool": {"waiting": 10}}, "full:p", "error"),
        ({"pool": {"waiting": 2, "oldest_wait": 1.5}}, "wait:p", "warning"),
        ({"pool": {"lost": 1}}, "lost:p", "warning"),
        ({"worker": {"gil_culprit": "orjson"}}, "gil:p-1", "warning"),
        ({"worker": {"mb_per_hour": 90.0}}, "growth:p-1", "warning"),
        ({"pool": {"growth": LEAKS}}, "leak:p", "warning"),
        ({"pool": {"growth": replace(LEAKS, commands=(replace(CHANCE, error=1.0),))}}, "leak:p", "warning"),
        (
            {"pool": {"growth": replace(LEAKS, commands=(CHANCE, TIED))}},
            "leak:p",
            "warning",
        ),
        ({"pool": {"races": ("index",)}}, "race:p", "warning"),
        ({"pool": {"template": FELL_BACK, "warnings": WARNED}}, "template:p", "warning"),
        ({"stored": StoredState(silent_nodes=(("m", 5.0),))}, "silent:m", "error"),
        ({"stored": StoredState(quarantined=2, quarantined_since=7.0)}, "quarantined", "warning"),
        ({"stored": StoredState(full_disks=(("/data", 5 * 2**20),))}, "disk:/data", "error"),
        ({"stored": StoredState(ended_jobs=(LOST_JOBS,))}, "jobs:lost:p.train:worker_lost", "warning"),
        ({"stored": StoredState(late_schedules=("nightly",), late_since=7.0)}, "periodic:late", "error"),
        ({"stored": StoredState(refused_schedules=("a", "b"), refused_since=7.0)}, "periodic:refused", "warning"),
        ({"stored": StoredState(ended_others=2)}, "jobs:others", "warning"),
        ({"stored": StoredState(transport="redis://cache: refused", transport_since=7.0)}, "transport", "error"),
    ],
)
def test_each_trouble_is_one_alert(trouble: dict[str, Any], key: str, level: str) -> None:
    (alert,) = alerts(**trouble)
    assert (alert.key, alert.level) == (key, level)
    assert alert.title
    assert alert.cause


@pytest.mark.parametrize(
    "usual",
    [
        {"pool": {"state": "starting"}},
        {"pool": {"oldest_wait": 0.9}},
        {"worker": {"gil": "off"}},
        {"worker": {"mb_per_hour": 30.0}},
        {"worker": {"mb_per_hour": 900.0, "started_at": 900.0}},  # it only warms up
        {"worker": {"mb_per_hour": 132.0, "started_at": 600.0}},  # 8 MiB with its first large calls
        {"pool": {"growth": growth(0.3)}},
        {"pool": {"growth": growth()}},
        {"pool": {"growth": LEAKS}, "worker": {"started_at": 900.0}},  # all of its workers only warm up
        {"pool": {"growth": replace(LEAKS, commands=(CHANCE,))}},
        {"pool": {"growth": replace(LEAKS, samples=3)}},  # a command that only raises grows so while it warms up
        {"node": {"clock": "lifecycle clock missing"}, "stored": StoredState(uses_jobs=False)},
        {"pool": {"template": FELL_BACK, "warnings": ()}},  # the pool does not ask for one
    ],
)
def test_what_is_only_unusual_is_no_alert(usual: dict[str, Any]) -> None:
    assert alerts(**usual) == []


def test_a_failed_pool_is_one_alert_whatever_its_failed_starts_bring_with_them() -> None:
    deaths = [event(at, "worker.died", message="x") for at in (990, 980, 970)]
    reason = "5 starts failed: ImportError"
    pool = {"state": "failed", "reason": reason, "template": FELL_BACK, "warnings": WARNED}
    (alert,) = alerts(pool=pool, events=deaths)
    assert (alert.key, alert.cause) == ("failed:p", reason)


def test_deaths_are_a_crash_loop_when_they_are_many_and_lately() -> None:
    def death(at: int, kind: str = "worker.died") -> RecordedEvent:
        return event(at, kind, worker=f"p-{at}", message="signal SIGSEGV")

    deaths = [death(990), death(980), death(970)]
    (alert,) = alerts(events=deaths)
    assert (alert.key, alert.since, alert.argument) == ("crash:p", 970.0, "p-990")
    assert "signal SIGSEGV" in alert.cause
    assert alerts(events=deaths[:2]) == []
    assert alerts(events=[death(600), *deaths[1:]], now=1000.0) == []
    assert alerts(events=[death(one.seq, "worker.recycled") for one in deaths]) == []


def test_a_stuck_rollout_is_one_alert_and_deaths_at_work_are_another() -> None:
    stuck = {"state": "degraded", "reason": "5 starts failed: no model file", "ready": 2}
    starts = [event(at, "worker.died", reason="boot_failure") for at in (990, 980, 970)]
    assert [one.key for one in alerts(pool=stuck, events=starts)] == ["degraded:p"]
    assert [one.key for one in alerts(events=starts)] == ["crash:p"], "no other alert has the reason"
    crashes = [event(at, "worker.died", reason="crash") for at in (990, 980, 970)]
    assert [one.key for one in alerts(pool=stuck, events=crashes)] == ["crash:p", "degraded:p"]


def test_the_worst_comes_first() -> None:
    found = alerts(node={"clock": "lifecycle clock missing"}, pool={"state": "failed", "reason": "x"})
    assert [alert.level for alert in found] == ["error", "warning"]


def test_an_alert_keeps_the_moment_at_which_it_was_first_seen() -> None:
    store, paused = StateStore(), replace(POOL, state="paused")
    for at in (10.0, 20.0):
        store.fold(status([paused]), at)
    assert [alert.since for alert in store.state.alerts] == [10.0]
    store.fold(status([POOL]), 30.0)
    store.fold(status([paused]), 40.0)
    assert [alert.since for alert in store.state.alerts] == [40.0]
    assert [alert.first_seen for alert in store.state.alerts] == [True]
    failed = status([replace(POOL, state="failed")], events=[event(5, "pool.failed")])
    assert [(alert.since, alert.first_seen) for alert in store.fold(failed, 50.0).alerts] == [(5.0, False)]


@pytest.mark.parametrize(
    ("trouble", "events", "since"),
    [
        ({"pool": {"state": "failed"}}, [(700, "pool.failed", "")], 700.0),
        ({"pool": {"state": "failed"}}, [(800, "pool.failed", ""), (700, "pool.failed", "")], 700.0),
        (
            {"pool": {"state": "failed"}},
            [(800, "pool.failed", ""), (700, "pool.recovered", ""), (600, "pool.failed", "")],
            800.0,
        ),
        ({"pool": {"state": "paused"}}, [(700, "operator.acted", "pause"), (600, "operator.acted", "scale")], 700.0),
        (
            {"pool": {"state": "paused"}},
            [(700, "operator.acted", "pause"), (600, "operator.acted", "resume"), (500, "operator.acted", "pause")],
            700.0,
        ),
        (
            {"pool": {"state": "starting", "reason": "x"}},
            [(700, "worker.died", ""), (650, "worker.died", ""), (600, "worker.started", "")],
            650.0,
        ),
        ({"node": {"clock": "lifecycle clock missing"}}, [(700, "clock.missing", "")], 700.0),
        ({"pool": {"races": ("index",)}}, [(800, "thread.race", ""), (700, "thread.race", "")], 700.0),
        ({"worker": {"gil_culprit": "orjson"}}, [(700, "gil.enabled", "")], 700.0),
        ({"pool": {"waiting": 2, "oldest_wait": 90.0}}, [], 910.0),
        ({"pool": {"state": "failed"}}, [(700, "worker.died", "")], 0.0),
    ],
)
def test_since_is_when_it_happened(trouble: dict[str, Any], events: list[Any], since: float) -> None:
    (alert,) = alerts(**trouble, events=[event(at, kind, reason=reason) for at, kind, reason in events])
    assert alert.since == since


def test_another_pool_has_its_own_since() -> None:
    (alert,) = alerts(pool={"state": "failed"}, events=[event(700, "pool.failed", pool="q")])
    assert alert.since == 0.0


def test_a_leak_names_the_command_and_the_time_to_the_soft_limit() -> None:
    grows = {"memory_mb": 80.0, "mb_per_hour": 60.0}
    (alert,) = alerts(pool={"growth": LEAKS}, worker=grows, stored=StoredState(soft_limits={"p": 100.0}))
    assert alert.title == "p leaks 4.9 MiB per 1,000 calls in `embed`"
    assert alert.cause == "p-1 reaches its soft limit of 100 MiB in about 20 min, and is then replaced."
    assert (alert.view, alert.argument, alert.right) == ("pool-recycle", "p", "operate")
    (now,) = alerts(
        pool={"growth": LEAKS}, worker={**grows, "memory_mb": 120.0}, stored=StoredState(soft_limits={"p": 100.0})
    )
    assert "within a minute" in now.cause


def test_a_leak_that_reaches_its_limit_much_later_is_no_alert() -> None:
    stored = StoredState(soft_limits={"p": 1000.0})
    assert alerts(pool={"growth": LEAKS}, worker={"mb_per_hour": 10.0}, stored=stored) == []
    assert alerts(pool={"growth": LEAKS}, worker={"mb_per_hour": 90.0}, stored=stored) == []


def test_a_leak_without_a_limit_leads_to_the_advice() -> None:
    (alert,) = alerts(pool={"growth": growth(4.93, samples=40)}, worker={"mb_per_hour": 90.0})
    assert (alert.view, alert.action, alert.right) == ("diagnostics", "Advice", "view")
    assert alert.title == "p leaks 4.9 MiB per 1,000 calls"
    assert "memory_soft_mb" in alert.cause


def test_several_races_are_one_alert_that_names_the_first() -> None:
    (alert,) = alerts(pool={"races": ("index", "count", "cache")})
    assert alert.title == "p has a race: two threads wrote to `index` and 2 more"


@pytest.mark.parametrize(
    "worker",
    [{"memory_mb": -1.0}, {"mb_per_hour": None}, {"mb_per_hour": -5.0}, {"state": "draining"}, {"mb_per_hour": 0.0}],
)
def test_a_worker_that_does_not_grow_reaches_no_limit(worker: dict[str, Any]) -> None:
    growing = replace(WORKER, mb_per_hour=60.0)
    assert seconds_to(100.0, growing) == pytest.approx(1200.0)
    assert seconds_to(None, growing) is None
    assert seconds_to(100.0, replace(growing, **worker)) is None


def test_the_worker_that_reaches_its_limit_first_is_named() -> None:
    workers = [replace(WORKER, id=ident, mb_per_hour=slope) for ident, slope in (("a", 10.0), ("b", 60.0))]
    leak = leak_of(replace(POOL, growth=LEAKS), workers, 100.0)
    assert leak is not None
    assert (leak.command, leak.worker, leak.seconds) == ("embed", "b", 1200.0)


def test_memory_keeps_a_sample_every_few_seconds_of_the_workers_that_are_there() -> None:
    memory = MemoryHistory()
    for second in range(int(EVERY * KEPT) + 50):
        memory.add("p-1", 100.0 + second, float(second))
    assert len(memory.values("p-1")) == KEPT
    assert None not in memory.values("p-1")
    memory.add("p-1", 1.0, EVERY * KEPT + 50 + 3 * EVERY)  # no page was open in between
    assert memory.values("p-1")[-4:][1:] == [None, None, 1.0]
    memory.add("p-1", 2.0, 1e9)
    assert memory.values("p-1") == [*[None] * (KEPT - 1), 2.0]
    memory.add("p-2", -1, 5.0)  # not measured yet
    assert memory.values("p-2") == []
    memory.keep(["p-2"])
    assert memory.values("p-1") == []


def test_a_death_by_the_memory_cgroup_is_an_alert_that_says_what_to_change() -> None:
    deaths = [event(at, "worker.died", reason="out_of_memory", worker="p-1") for at in (990, 980)]
    (alert,) = alerts(events=deaths)
    assert (alert.key, alert.level, alert.since) == ("oom:p", "error", 980)
    assert alert.title == "The kernel killed 2 workers of p: the memory cgroup is full"
    assert "memory_hard_mb" in alert.cause


def test_an_alert_of_many_jobs_says_where_its_count_stops() -> None:
    ended = (EndedJobs("failed", "p", "train", "KeyError", 2000, 1.0),)
    stored = StoredState(quarantined=1001, overdue=1001, ended_jobs=ended, ended_more=True)
    assert [alert.title for alert in alerts(stored=stored)] == [
        "more than 1,000 jobs are due and wait",
        "more than 1,000 jobs are quarantined",
        "at least 2000 jobs of `p.train` failed in the last hour: KeyError",
    ]


def test_a_transport_that_is_away_is_the_cause_of_waiting_jobs_and_of_the_missing_clock() -> None:
    away = {"transport": "redis://cache: Connection refused", "transport_since": 7.0}
    found = alerts(node={"clock": CLOCK_MISSING}, stored=StoredState(overdue=1, overdue_since=5.0, **away))  # type: ignore[arg-type]
    assert [alert.key for alert in found] == ["transport", "jobs:overdue", "clock"]
    assert all("message transport" in alert.title + alert.cause for alert in found)
    assert not any("celery -A" in alert.cause for alert in found)
    alone = alerts(node={"clock": CLOCK_MISSING}, stored=StoredState(overdue=1, overdue_since=5.0))
    assert all("`celery -A your_project " in alert.cause for alert in alone)
    known = alerts(node={"clock": CLOCK_MISSING}, stored=StoredState(overdue=1, overdue_since=5.0, celery="shop"))
    assert all("`celery -A shop " in alert.cause for alert in known)


def test_a_silent_node_that_answers_cannot_write() -> None:
    found = status([POOL], [WORKER])
    stored = StoredState(silent_nodes=((found.node.name, 5.0), ("m", 6.0)))
    titles = [one.title for one in find_alerts(found, (), stored, 1.0, 1000.0)]
    assert titles == [f"Node {found.node.name} cannot write to the database", "Node m is silent"]
    titles = [one.title for one in find_alerts(found, (), stored, 1.0, 1000.0, is_old=True)]
    assert titles == [f"Node {found.node.name} is silent", "Node m is silent"]
