"""The events of a pool: which worker, which reason, which level, and the numbers of a death."""

from __future__ import annotations

from typing import Any

from snakepit.pools.broker.ports import Exit
from tests.unit.broker.conftest import Table


def told(t: Table, kind: str) -> tuple[str, str, str, str]:
    """Worker, reason, level and message of the only event of a kind."""
    (event,) = t.told(kind)
    assert event.pool == "p"
    return event.worker, event.reason, event.level, event.message


def test_a_death_at_work(table: Any) -> None:
    t = table().ready(1)
    t.do(t.pool.sampled("p-0-1", 77.0, t.now))
    t.submit()
    t.pass_time(1.23456)
    t.do(t.pool.exited("p-0-1", Exit(signal=11), t.now, begun={1}, evidence="bye"))
    assert told(t, "worker.died")[:3] == ("p-0-1", "crash", "error")
    assert t.told("worker.died")[0].data == {
        "exit_code": None,
        "signal": 11,
        "served": 0,
        "lived": 1.235,
        "memory_mb": 77.0,
        "mb_per_1000_calls": None,
        "output": "bye",
        "assigned": 1,
    }


def test_a_death_before_it_was_ready(table: Any) -> None:
    t = table(boot_budget=1)
    t.fail_boot(1)
    assert told(t, "worker.died") == ("p-0-1", "boot_failure", "error", "died before it was ready, no model")
    assert t.told("worker.died")[0].data["exit_code"] == 3
    worker, reason, level, message = told(t, "pool.failed")
    assert (worker, reason, level) == ("", "boot_failure", "error")
    assert message == "1 starts failed within 60 s; the last one: no model"


def test_a_crash_loop(table: Any) -> None:
    t = table(death_budget=1).ready(1)
    t.die(1)
    t.pass_time(1.0)
    t.ready(2)
    t.die(2, Exit(code=7))
    worker, reason, level, message = told(t, "pool.failed")
    assert (worker, reason, level) == ("", "crash_loop", "error")
    assert message == "2 workers died within 60 s; the last one: exit code 7: it exited by itself"
    assert t.pool.worker_set.died == 2


def test_a_lost_slot(table: Any) -> None:
    t = table(profile="thread", threads=8, cancel_grace=1.0).ready(1)
    t.cancel(t.submit())
    t.pass_time(1.0)
    message = "call 1 of run did not stop within 1 s; 1 of 8 slots are lost"
    assert told(t, "slot.lost") == ("p-0-1", "overrun", "warning", message)


def test_an_overrun_that_ends_the_process(table: Any) -> None:
    t = table(cancel_grace=1.0).ready(1)
    t.cancel(t.submit())
    t.pass_time(1.0)
    message = "killed, overrun: call 1 of run did not stop within 1 s"
    assert told(t, "worker.killed") == ("p-0-1", "overrun", "warning", message)


def test_a_retry(table: Any) -> None:
    t = table(size=2).ready(1, 2)
    t.submit(idempotent=True)
    t.die(1, begun={1})
    message = "call 1 runs again: it is idempotent"
    assert told(t, "call.retried") == ("p-0-1", "worker_died", "info", message)


def test_a_worker_that_does_not_answer(table: Any) -> None:
    t = table().ready(1)
    t.do(t.pool.unresponsive("p-0-1", "no answer", t.now, "event_loop"))
    assert told(t, "worker.health_check_failed") == ("p-0-1", "event_loop", "warning", "no answer")
    assert told(t, "worker.killed") == ("p-0-1", "health", "warning", "killed, health: no answer")


def test_an_operators_kill(table: Any) -> None:
    t = table().ready(1)
    t.do(t.pool.kill(t.worker(1), "asked for by ada", t.now))
    assert told(t, "worker.killed") == ("p-0-1", "operator", "warning", "killed, operator: asked for by ada")
    assert t.started() == [1, 2], "and its successor starts"


def test_a_drain_that_takes_too_long_keeps_its_reason(table: Any) -> None:
    t = table(drain_timeout=3.0).ready(1)
    t.submit()
    t.recycle(1)
    t.ready(2)
    assert told(t, "worker.draining") == ("p-0-1", "operator", "info", "drains, operator: asked")
    t.pass_time(3.0)
    message = "killed, operator: asked; 1 calls left at the drain deadline"
    assert told(t, "worker.killed") == ("p-0-1", "operator", "warning", message)


def test_a_worker_that_does_not_exit_when_asked_to_is_killed(table: Any) -> None:
    t = table().ready(1)
    t.recycle(1)
    t.ready(2)
    assert (t.stopped(), t.killed()) == ([1], [])
    t.pass_time(5.0)
    assert t.killed() == [1]
    assert not t.told("worker.killed"), "it was leaving already"


def test_a_new_definition_names_the_generation_that_replaces_a_worker(table: Any) -> None:
    t = table().ready(1)
    t.apply(args={"model": "b"})
    assert (t.worker(1).reason, t.worker(1).detail) == ("definition", "generation 2 is in force")
    worker, reason, level, message = [
        (event.worker, event.reason, event.level, event.message) for event in t.told("worker.starting")
    ][-1]
    assert (worker, reason, level) == ("p-0-2", "definition", "info")
    assert message == "starts in place of p-0-1, definition: generation 2 is in force"


def test_a_pool_that_closes_has_shutdown_as_the_reason(table: Any) -> None:
    t = table(size=2, preload="on").load(1).ready(1)
    t.do(t.pool.close(t.now))
    assert told(t, "worker.killed") == ("p-0-2", "shutdown", "warning", "killed, shutdown: the pool is shutting down")
    assert told(t, "template.ended")[1] == "shutdown"
    assert (t.worker(1).reason, t.stopped()) == ("shutdown", [1])
