"""The usage of a pool over the last minutes: windows, evidence, and what is forgotten."""

from __future__ import annotations

import pytest

from snakepit.pools.broker.ports import NoMeter
from snakepit.pools.broker.stats.usage import SPAN, STEP, Usage, Usages, WorkerUsage
from snakepit.pools.broker.status import PoolStatus
from tests import statuses


def watched(seconds: int, slots: int = 2, busy: int = 1, start: int = 0, usage: Usage | None = None) -> Usage:
    usage = usage or Usage(float(start))
    for second in range(start + 1, start + seconds + 1):
        usage.observe(float(second), slots, busy)
    return usage


def test_the_busy_share_is_of_the_slot_time() -> None:
    usage = watched(10, slots=2, busy=2)
    watched(10, slots=4, busy=0, start=10, usage=usage)
    assert usage.status().busy == pytest.approx(20 / 60, abs=1e-3)
    assert usage.status().peak == 2


def test_calls_that_were_handed_ahead_do_not_make_a_pool_busier_than_it_is() -> None:
    assert watched(5, slots=1, busy=3).status().busy == 1.0


def test_only_the_last_minutes_count() -> None:
    usage = Usage(0.0)
    for _ in range(50):
        usage.answered("ok", queued=9.0, ran=1.0)
    watched(20, busy=2, usage=usage)
    assert usage.status().wait_p95 == pytest.approx(9.0, rel=0.2)
    watched(int(SPAN + 2 * STEP), busy=0, start=20, usage=usage)
    found = usage.status()
    assert (found.answered, found.busy, found.wait_p95, found.peak) == (0, 0.0, None, 0)
    assert SPAN <= found.seconds <= SPAN + 2 * STEP


def test_a_pool_that_is_watched_for_ever_keeps_a_bounded_history() -> None:
    usage = watched(int(3 * SPAN))
    assert len(usage._marks) <= SPAN / STEP + 2


def test_a_wait_in_vain_counts_among_the_waits_and_a_refusal_does_not() -> None:
    usage = Usage(0.0)
    usage.answered("queue_timeout", queued=5.0, ran=0.0)
    usage.answered("queue_full", queued=0.0, ran=0.0)
    usage.answered("deadline_exceeded", queued=0.1, ran=3.0)
    usage.answered("worker_lost", queued=0.1, ran=0.0)
    found = watched(1, usage=usage).status()
    assert (found.waited, found.timed_out, found.refused, found.overran, found.lost) == (2, 1, 1, 1, 1)


def test_a_new_definition_begins_a_new_window() -> None:
    usage = watched(60, busy=2)
    usage.answered("ok", 4.0, 1.0)
    usage.renew(60.0)
    found = watched(5, busy=0, start=60, usage=usage).status()
    assert (found.seconds, found.answered, found.busy, found.peak, found.wait_p95) == (5.0, 0, 0.0, 0, None)


def test_cpu_time_is_shown_once_there_are_enough_calls() -> None:
    usage = Usage(0.0)
    usage.sampled("p-1", 0.0, 50.0, cpu_seconds=3.0, served=0)  # loading is no call's
    usage.sampled("p-1", 15.0, 50.0, cpu_seconds=4.0, served=10)
    assert watched(20, usage=usage).status().cpu_per_call is None
    usage.sampled("p-1", 30.0, 50.0, cpu_seconds=4.5, served=10)  # a call that still runs
    usage.sampled("p-1", 45.0, 50.0, cpu_seconds=5.0, served=20)
    found = watched(30, start=20, usage=usage).status()
    assert (found.cpu_per_call, found.cpu_calls) == (pytest.approx(0.1), 20)


def test_a_slope_of_memory_needs_samples_time_and_a_first_call() -> None:
    usage = Usage(0.0)
    for second in range(0, 300, 60):
        usage.sampled("p-1", float(second), 50.0 + second, None, served=0)
    assert usage.workers["p-1"].mb_per_hour is None
    for second in range(300, 540, 60):
        usage.sampled("p-1", float(second), 100.0, None, served=1)
    assert usage.workers["p-1"].mb_per_hour is None
    usage.sampled("p-1", 540.0, 100.0, None, served=1)
    assert usage.workers["p-1"].mb_per_hour == 0.0


def test_an_old_workers_samples_are_thinned_and_reach_back_to_the_first() -> None:
    one = WorkerUsage()
    for turn in range(1000):
        one.sampled(15.0 * turn, float(turn))
    assert len(one.samples) <= 32
    assert one.samples[0] == (0.0, 0.0)
    assert one.mb_per_hour == pytest.approx(240.0)


def pool(name: str, free: int = 1) -> PoolStatus:
    return statuses.pool(name, slots=2, free=free)


def test_calls_that_ended_well_together_count_as_if_they_had_ended_one_by_one() -> None:
    usages = Usages(NoMeter())
    usages.observe(1.0, [pool("a"), pool("b")], [])
    usages.succeeded("a", "echo", (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    for waited in (0.1, 0.2, 0.3):
        usages.executed("b", "echo", "ok", waited, 1.0)
    usages.succeeded("c", "echo", (0.1,), (1.0,))  # answers of a pool that is closing
    usages.observe(2.0, [pool("a"), pool("b")], [])
    assert usages.of("a", 2.0).status() == usages.of("b", 2.0).status()
    assert usages.of("a", 2.0).status().answered == usages.of("a", 2.0).status().waited == 3


def test_a_worker_that_left_the_snapshot_is_forgotten() -> None:
    usages = Usages(NoMeter())
    usages.observe(1.0, [pool("a"), pool("b")], [])
    usages.of("a", 1.0).sampled("a-1", 1.0, 50.0, 1.0, 1)
    usages.observe(2.0, [pool("a")], [statuses.worker("a-2")])
    assert usages.of("a", 2.0).workers == {}
    usages.executed("b", "echo", "ok", 0.0, 1.0)  # an answer of a pool that is closing
    usages.executed("a", "echo", "ok", 0.0, 1.0)
    usages.observe(3.0, [pool("a")], [])
    assert usages.of("a", 3.0).status().answered == 1
    assert usages.of("b", 3.0).status().answered == 0


@pytest.mark.parametrize("code", ["pool_failed", "pool_paused", "node_draining", "shutting_down", "payload_too_large"])
def test_calls_that_were_refused_at_the_door_are_not_answered(code: str) -> None:
    usage = Usage(0.0)
    for _ in range(362):
        usage.answered(code, queued=0.0, ran=0.0)
    usage.answered("ok", queued=0.0, ran=1.0)
    usage.answered("queue_full", queued=0.0, ran=0.0)
    usage.answered("queue_timeout", queued=5.0, ran=0.0)
    found = watched(20, usage=usage).status()
    assert (found.answered, found.refused, found.timed_out) == (3, 1, 1)
