"""Kills of workers: which ask for the stacks first, and which slots and reasons count meanwhile."""

from __future__ import annotations

from typing import Any

from snakepit.pools.broker.pool.actions import Kill
from tests.unit.broker.conftest import Table


def kills(t: Table) -> list[bool]:
    """For each kill, whether the stacks are read first."""
    return [action.stacks for action in t.actions if isinstance(action, Kill)]


def test_the_stacks_of_a_worker_that_hangs_are_read(table: Any) -> None:
    silent = table().ready(1)
    silent.do(silent.pool.unresponsive("p-0-1", "no answer for 15 s", silent.now, "event_loop"))
    assert kills(silent) == [True]
    loading = table(startup_timeout=5.0)
    loading.pass_time(5.1)
    assert kills(loading) == [True]
    draining = table(drain_timeout=5.0).ready(1)
    draining.submit(patience=1000)
    draining.recycle()
    draining.pass_time(1.0)
    draining.ready(2)
    draining.pass_time(5.1)
    assert kills(draining) == [True]


def test_the_stacks_of_a_worker_with_too_much_memory_are_not_read(table: Any) -> None:
    t = table(memory_hard_mb=100.0).ready(1)
    t.do(t.pool.sampled("p-0-1", 100.5, t.now))
    assert kills(t) == [False]


def test_lost_slots_and_workers_that_leave_are_no_ready_slots(table: Any) -> None:
    t = table(size=2, profile="thread", threads=4).ready(1, 2)
    assert t.pool.worker_set.slots_ready() == 8
    t.worker(1).lost = 1
    assert t.pool.worker_set.slots_ready() == 7
    t.die(2)
    assert t.pool.worker_set.slots_ready() == 3


def test_a_worker_that_leaves_keeps_its_first_reason(table: Any) -> None:
    t = table(max_requests=1).ready(1)
    t.submit(patience=1000)
    t.recycle()
    reason = t.worker(1).reason
    t.finish(1, 1)
    t.pool.worker_set.mark_if_due(t.worker(1), t.now)
    assert t.worker(1).reason == reason != ""
