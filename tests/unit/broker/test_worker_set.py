"""A pool's decisions about workers, scene by scene."""

from __future__ import annotations

from typing import Any

import pytest

from snakepit.pools.broker.pool.worker import State
from snakepit.pools.broker.ports import Exit

# Starts


def test_workers_start_in_batches_with_a_pause_between(table: Any) -> None:
    t = table(size=7, startup_batch=3, startup_delay=2.0)
    assert len(t.started()) == 3
    t.pass_time(1.9)
    assert len(t.started()) == 3
    t.pass_time(0.2)
    assert len(t.started()) == 6
    t.pass_time(2.0)
    assert len(t.started()) == 7
    t.pass_time(50.0)
    assert len(t.started()) == 7


def test_without_a_pause_all_batches_start_at_once(table: Any) -> None:
    t = table(size=7, startup_batch=3, startup_delay=0.0)
    t.pass_time(0.0)
    assert len(t.started()) == 7


def test_every_worker_has_a_name_of_its_own_with_the_brokers_mark(table: Any) -> None:
    t = table(size=3)
    assert sorted(t.pool.worker_set.workers) == ["p-0-1", "p-0-2", "p-0-3"]


def test_a_worker_that_is_not_ready_in_time_is_killed_and_counts_as_a_failed_start(table: Any) -> None:
    t = table(startup_timeout=10.0, boot_budget=1)
    t.pass_time(9.9)
    assert t.killed() == []
    t.pass_time(0.2)
    assert t.killed() == [1]
    t.die(1, Exit(signal=9))
    assert "not ready within 10 s" in t.told("pool.failed")[0].message


def test_a_hello_that_comes_after_the_kill_is_ignored(table: Any) -> None:
    t = table(startup_timeout=10.0)
    t.pass_time(10.0)
    t.ready(1)
    assert t.states()[1] == "stopping"


# Failed starts


def test_the_pause_before_the_next_start_doubles_with_each_failure(table: Any) -> None:
    t = table(boot_budget=1000, startup_delay=0.0)
    pauses = []
    for worker in range(1, 9):
        t.fail_boot(worker)
        began = t.now
        while len(t.started()) == worker:
            assert t.pool.timers.next() is not None
            t.pass_time(t.pool.timers.next() - t.now)
        pauses.append(t.now - began)
    for number, pause in enumerate(pauses):
        assert 0.8 * min(60, 0.5 * 2**number) <= pause <= 1.2 * min(60, 0.5 * 2**number)


def test_after_a_failure_one_start_at_a_time_is_tried(table: Any) -> None:
    t = table(size=4, startup_delay=0.0)
    for worker in (1, 2, 3, 4):
        t.fail_boot(worker)
    t.pass_time(20.0)
    t.sweep()
    assert t.count(State.STARTING) == 1
    t.ready(5)
    assert t.count(State.STARTING) == 3, "it can be done after all: the others follow at once"


@pytest.mark.parametrize("delay", [0.0, 0.75])
def test_while_the_one_try_is_under_way_no_alarm_rings_for_another(table: Any, delay: float) -> None:
    t = table(size=3, startup_delay=delay, startup_timeout=60.0, boot_budget=1)
    for worker in (1, 2, 3):
        t.fail_boot(worker)
    t.pass_time(6.0)
    assert t.count(State.STARTING) == 1
    alarms = 0
    until = t.now + 30.0
    while (due := t.pool.timers.next()) is not None and due <= until and alarms < 100:
        t.now = max(t.now, due)
        t.do(t.pool.tick(t.now))
        alarms += 1
    assert alarms <= 2, "the broker would spin until the worker is ready"


def test_the_boot_budget_fails_the_pool_and_a_later_success_recovers_it(table: Any) -> None:
    t = table(size=1, boot_budget=3, startup_timeout=1000.0)
    for worker in (1, 2, 3):
        assert not t.told("pool.failed")
        t.fail_boot(worker, "no model")
        t.pass_time(5.0)
    (failed,) = t.told("pool.failed")
    assert failed.message == "3 starts failed within 60 s; the last one: no model"
    assert failed.level == "error"
    t.pass_time(60.0)
    t.ready(4)
    (recovered,) = t.told("pool.recovered")
    assert "no model" in recovered.message
    t.submit()
    assert t.assigned() == [(1, 4)]


def test_a_failed_pool_is_probed_at_least_every_minute_or_so(table: Any) -> None:
    t = table(boot_budget=1, startup_delay=0.0, startup_timeout=1000.0)
    for worker in range(1, 12):
        t.fail_boot(worker)
        t.pass_time(72.1)
        assert len(t.started()) == worker + 1
    assert len(t.told("pool.failed")) == 1, "it is told once, not at every probe"


def test_failures_that_are_far_apart_do_not_fail_a_pool(table: Any) -> None:
    t = table(size=2, boot_budget=2, startup_timeout=1000.0).ready(1)
    t.fail_boot(2)
    t.pass_time(61.0)
    t.fail_boot(3)
    assert not t.told("pool.failed")


def test_a_new_definition_gives_a_failed_pool_another_chance(table: Any) -> None:
    t = table(boot_budget=1)
    t.fail_boot(1)
    t.submit()
    assert t.failed() == {1: "pool_failed"}
    t.apply(args={"path": "right"})
    assert t.count(State.STARTING) == 1, "at once, whatever the pause was"
    t.submit()
    assert 2 not in t.failed()


def test_an_operator_gives_a_failed_pool_another_chance(table: Any) -> None:
    t = table(boot_budget=1)
    t.fail_boot(1)
    assert t.count(State.STARTING) == 0
    t.recycle()
    assert t.count(State.STARTING) == 1


# Deaths


def test_a_dead_worker_is_reported_with_evidence_and_replaced_immediately(table: Any) -> None:
    t = table().ready(1)
    t.do(t.pool.sampled("p-0-1", 77.0, t.now))
    t.pass_time(5.0)
    t.do(t.pool.exited("p-0-1", Exit(signal=11), t.now, begun=set(), evidence="Segmentation fault"))
    (died,) = t.told("worker.died")
    assert died.message == "died at work (ready), signal SIGSEGV: it crashed in native code"
    assert died.data["signal"] == 11
    assert (died.data["output"], died.data["memory_mb"], died.data["lived"]) == ("Segmentation fault", 77.0, 5.0)
    t.pass_time(1.0)
    assert t.started() == [1, 2]
    assert t.pool.worker_set.died == 1


def test_too_many_deaths_fail_the_pool_and_slow_its_starts(table: Any) -> None:
    t = table(death_budget=2, startup_delay=0.0, queue_timeout=1.0)
    for worker in (1, 2, 3):
        t.ready(worker)
        t.die(worker, Exit(signal=11))
        t.pass_time(0.0)
    (failed,) = t.told("pool.failed")
    assert failed.reason == "crash_loop"
    assert "3 workers died within 60 s" in failed.message
    assert t.started() == [1, 2, 3]
    t.submit()
    assert t.failed() == {1: "pool_failed"}
    t.pass_time(3.0)
    assert t.started() == [1, 2, 3, 4]
    t.ready(4)
    assert t.told("pool.recovered")
    t.die(4, Exit(signal=11))
    assert len(t.told("pool.failed")) == 2, "a start that succeeds does not reset the budget of deaths"
    t.pass_time(3.0)
    assert t.started() == [1, 2, 3, 4], "and the next try comes later than the first"


def test_a_call_waits_in_a_crash_loop_if_the_next_start_comes_within_its_time_in_the_queue(table: Any) -> None:
    t = table(death_budget=2, startup_delay=0.0, queue_timeout=5.0)
    for worker in (1, 2, 3):
        t.ready(worker)
        t.die(worker, Exit(signal=9))
        t.pass_time(0.0)
    assert t.told("pool.failed")
    call = t.submit()
    t.pass_time(3.0)
    t.ready(4)
    assert (t.failed(), t.assigned()) == ({}, [(call, 4)])


def test_a_command_that_kills_its_worker_has_few_tries_in_a_minute(table: Any) -> None:
    t = table(death_budget=5, startup_delay=0.0, queue_timeout=600.0)
    for _ in range(600):  # as often as a worker is there
        t.pass_time(0.1)
        for worker, state in t.states().items():
            if state == "starting":
                t.ready(worker)
            t.die(worker, Exit(signal=11))
    assert t.pool.worker_set.died <= 6 + 5, "the delays are 2, 4, 8, 16 and 32 s"


def test_a_pool_whose_workers_stopped_dying_has_its_whole_budget_again(table: Any) -> None:
    t = table(death_budget=2, startup_delay=0.0)
    for worker in (1, 2, 3):
        t.ready(worker)
        t.die(worker, Exit(signal=11))
        t.pass_time(0.0)
    t.pass_time(3.0)
    t.ready(4).pass_time(61.0)
    t.die(4, Exit(signal=11))
    t.pass_time(1.0)
    assert (len(t.told("pool.failed")), t.started()) == (1, [1, 2, 3, 4, 5])


def test_deaths_that_we_caused_are_no_crashes(table: Any) -> None:
    t = table(death_budget=1, memory_hard_mb=100.0)
    for worker in range(1, 6):
        t.pass_time(1.0)
        t.ready(worker)
        t.do(t.pool.sampled(t.id(worker), 200.0, t.now))
        t.die(worker, Exit(signal=9))
    assert not t.told("pool.failed")
    assert t.pool.worker_set.died == 0


# Rollouts


def test_a_rollout_brings_the_successor_first_and_never_has_fewer_ready(table: Any) -> None:
    t = table(size=2, max_surge=1, max_unavailable=0).ready(1, 2)
    t.recycle()
    assert t.states() == {1: "ready", 2: "ready", 3: "starting"}
    t.ready(3)
    assert t.states() == {1: "stopping", 2: "ready", 3: "ready", 4: "starting"}
    t.leave(1)
    t.ready(4)
    t.leave(2)
    assert t.states() == {3: "ready", 4: "ready"}
    assert [event.reason for event in t.told("worker.recycled")] == ["operator"] * 2


def test_surge_allows_more_successors_at_once(table: Any) -> None:
    t = table(size=3, max_surge=3).ready(1, 2, 3)
    t.recycle()
    assert t.count(State.STARTING) == 3
    t.ready(4, 5, 6)
    assert sorted(t.stopped()) == [1, 2, 3]


def test_without_surge_one_leaves_before_its_successor_starts(table: Any) -> None:
    t = table(size=2, max_surge=0, max_unavailable=1).ready(1, 2)
    t.submit()
    t.recycle()
    assert t.states() == {1: "draining", 2: "ready"}
    assert t.started() == [1, 2], "the one that drains still takes its place"
    t.finish(1, 1)
    assert t.stopped() == [1]
    assert t.states() == {1: "stopping", 2: "ready", 3: "starting"}
    t.leave(1)
    t.ready(3)
    assert t.stopped() == [1, 2]
    t.leave(2)
    t.pass_time(1.0)
    t.ready(4)
    assert t.states() == {3: "ready", 4: "ready"}


def test_a_rollout_whose_new_workers_cannot_start_leaves_the_old_ones_serving(table: Any) -> None:
    t = table(size=2, boot_budget=2).ready(1, 2)
    t.apply(args={"path": "wrong"})
    for worker in (3, 4, 5):
        t.fail_boot(worker)
        t.pass_time(5.0)
    assert t.told("pool.failed")
    assert t.count(State.READY) == 2
    t.submit()
    assert t.assigned() == [(1, 1)]


def test_a_new_definition_kills_starting_workers_and_starts_new_ones(table: Any) -> None:
    t = table(size=2).ready(1)
    t.apply(args={"a": 1})
    assert t.killed() == [2]
    t.pass_time(1.0)
    assert t.worker(3).generation == 2
    t.die(2, Exit(signal=9))
    assert not t.told("worker.died"), "its end was ours"


def test_a_definition_that_changes_only_limits_replaces_no_worker(table: Any) -> None:
    t = table(size=2).ready(1, 2)
    t.apply(queue_limit=7, call_timeout=3.0)
    assert (t.started(), t.pool.worker_set.generation) == ([1, 2], 1)


def test_one_worker_can_be_replaced_alone(table: Any) -> None:
    t = table(size=2).ready(1, 2)
    t.recycle(2)
    t.pass_time(1.0)
    t.ready(3)
    assert t.stopped() == [2]


def test_a_busy_worker_finishes_what_it_holds_and_takes_nothing_new(table: Any) -> None:
    t = table(size=1).ready(1)
    t.submit()
    t.recycle()
    t.pass_time(1.0)
    t.ready(2)
    assert t.states() == {1: "draining", 2: "ready"}
    t.submit()
    assert t.assigned() == [(1, 1), (2, 2)]
    assert t.stopped() == []
    t.finish(1, 1)
    assert t.stopped() == [1]


def test_a_drain_that_takes_too_long_ends_with_a_kill(table: Any) -> None:
    t = table(drain_timeout=5.0).ready(1)
    t.submit(patience=1000)
    t.recycle()
    t.pass_time(1.0)
    t.ready(2)
    t.pass_time(4.9)
    assert t.killed() == []
    t.pass_time(0.2)
    assert t.killed() == [1]
    assert "1 calls left at the drain deadline" in t.told("worker.killed")[0].message
    t.die(1, Exit(signal=9), begun={1})
    assert t.error(1).code == "worker_lost"
    assert "drain deadline" in t.error(1).message


def test_an_idle_worker_that_does_not_leave_when_asked_is_killed(table: Any) -> None:
    t = table().ready(1)
    t.recycle()
    t.pass_time(1.0)
    t.ready(2)
    assert t.stopped() == [1]
    t.pass_time(4.9)
    assert t.killed() == []
    t.pass_time(0.2)
    assert t.killed() == [1]
    t.leave(1)
    assert len(t.pool.timers) == 0


# Size


def test_a_larger_size_starts_workers_and_a_smaller_one_lets_the_idle_go(table: Any) -> None:
    t = table(size=1).ready(1)
    t.apply(size=3)
    t.pass_time(1.0)
    t.ready(2, 3)
    t.submit()
    t.apply(size=1)
    assert sorted(t.stopped()) == [2, 3], "the one that works stays"
    assert t.states()[1] == "ready"
    assert [event.reason for event in t.told("worker.draining")] == ["scale", "scale"]


def test_a_smaller_size_ends_starting_workers_first(table: Any) -> None:
    t = table(size=3).ready(1)
    t.apply(size=1)
    assert sorted(t.killed()) == [2, 3]
    t.die(2, Exit(signal=9))
    t.die(3, Exit(signal=9))
    t.pass_time(10.0)
    assert t.states() == {1: "ready"}


# Why a worker is replaced


def test_a_worker_that_served_its_count_is_replaced(table: Any) -> None:
    t = table(max_requests=3, jitter=0.0).ready(1)
    for _ in range(3):
        t.finish(1, t.submit())
    assert t.worker(1).reason == "max_requests"
    assert t.started() == [1, 2]
    t.pass_time(1.0)
    t.ready(2)
    t.leave(1)
    (gone,) = t.told("worker.recycled")
    assert gone.message == "recycled, max_requests: 3 calls; lived 1 s, served 3"
    assert t.pool.worker_set.recycled == 1


def test_the_event_of_a_recycle_has_the_numbers_of_its_moment(table: Any) -> None:
    t = table(max_requests=3, jitter=0.0).ready(1)
    for _ in range(5):  # the successor is not ready yet: the worker serves on
        t.pass_time(2.0)
        t.finish(1, t.submit())
    t.ready(2)
    t.leave(1)
    (gone,) = t.told("worker.recycled")
    assert gone.message == "recycled, max_requests: 3 calls; lived 10 s, served 5"
    assert (gone.data["served"], gone.data["lived"]) == (5, 10.0)


def test_the_successor_by_count_starts_so_early_that_the_limit_is_kept_under_load(table: Any) -> None:
    t = table(max_requests=100, jitter=0.0)
    t.pass_time(3.0)  # what a start takes
    t.ready(1)
    while len(t.started()) < 2:
        t.pass_time(0.1)
        t.finish(1, t.submit())
    began = t.now
    while t.now < began + 3.0:  # ten calls a second, until the successor is ready
        t.pass_time(0.1)
        t.finish(1, t.submit())
    t.ready(2)
    t.leave(1)
    assert 95 <= t.told("worker.recycled")[0].data["served"] <= 105


def test_prefetched_calls_count_towards_the_limit_of_calls(table: Any) -> None:
    t = table(max_requests=20, jitter=0.0).ready(1).knows()
    calls = t.submit_together(60)
    t.finish_together(1, calls[0], seconds=0.0001)
    assert (t.worker(1).served + len(t.worker(1).assigned), t.worker(1).reason) == (20, "max_requests")
    t.ready(2)
    t.finish_together(1, *list(t.worker(1).assigned), seconds=0.0001)
    t.leave(1)
    assert t.told("worker.recycled")[0].data["served"] == 20


def test_only_workers_that_left_for_a_reason_count_as_recycled(table: Any) -> None:
    t = table(size=2).ready(1, 2)
    t.recycle(1)
    t.ready(3)
    assert t.pool.worker_set.recycled == 0, "it has not exited yet"
    t.leave(1)
    assert (t.pool.worker_set.recycled, t.pool.worker_set.died) == (1, 0)
    t.die(2, Exit(signal=11))
    assert (t.pool.worker_set.recycled, t.pool.worker_set.died) == (1, 1)
    t.do(t.pool.close(t.now))
    t.leave(3)
    assert t.pool.worker_set.recycled == 1, "the end of the pool recycles no worker"


def test_a_worker_that_is_old_enough_is_replaced_at_the_next_sweep(table: Any) -> None:
    t = table(ttl=100.0, jitter=0.0).ready(1)
    t.pass_time(99.0)
    t.sweep()
    assert t.started() == [1]
    t.pass_time(1.0)
    assert t.started() == [1], "age is checked by the sweep"
    t.sweep()
    assert t.started() == [1, 2]
    assert t.worker(1).reason == "ttl"


def test_what_falls_due_before_the_next_sweep_has_an_alarm(table: Any) -> None:
    t = table(size=2, startup_batch=1, startup_delay=7.0, ttl=100.0, jitter=0.0).ready(1)
    t.pass_time(7.0)
    t.ready(2)  # both were ready at once, the second 7 s after the first
    t.sweep(horizon=200.0)
    t.pass_time(92.5)
    assert t.started() == [1, 2]
    t.pass_time(0.5)
    assert (t.started(), t.worker(1).reason, t.worker(2).reason) == ([1, 2, 3], "ttl", "")
    t.pass_time(7.0)
    assert t.worker(2).reason == "ttl"


def slow(table: Any, size: int = 1, seconds: float = 3.0, ttl: float = 60.0, **fields: Any) -> Any:
    """A pool whose workers were ready `seconds` after their start, all at once, under sweeps that look far ahead."""
    t = table(size=size, startup_batch=size, startup_delay=0.0, ttl=ttl, **{"jitter": 0.0, **fields})
    t.pass_time(seconds)
    t.ready(*range(1, size + 1))
    t.sweep(horizon=3600.0)
    return t


def test_a_successor_starts_so_early_that_it_is_ready_when_the_old_one_is_due(table: Any) -> None:
    t = slow(table)
    t.pass_time(56.5)
    assert t.started() == [1]
    t.pass_time(0.5)
    assert t.started() == [1, 2]
    assert t.worker(1).reason == "", "it is expected to leave, and serves"
    (starting,) = t.told("worker.starting")[1:]
    assert (starting.reason, starting.message) == ("ttl", "starts in place of p-0-1, due in 3.0 s; a start takes 3.0 s")
    assert starting.data == {"replaces": "p-0-1", "load_seconds": 3.0}
    t.pass_time(2.9)
    t.ready(2)
    assert t.states() == {1: "ready", 2: "ready"}, "neither is a surplus"
    t.pass_time(0.1)
    assert (t.states(), t.worker(1).reason) == ({1: "stopping", 2: "ready"}, "ttl")


def test_a_successor_that_is_late_is_waited_for(table: Any) -> None:
    t = slow(table)
    t.pass_time(70.0)
    assert t.states() == {1: "ready", 2: "starting"}
    t.ready(2)
    assert t.states() == {1: "stopping", 2: "ready"}


def test_workers_of_one_age_that_load_slowly_are_replaced_one_after_the_other(table: Any) -> None:
    t = slow(table, size=8)
    began = t.now
    for successor in range(9, 17):
        t.pass_time(60.0 - 3.0 if successor == 9 else 0.0)
        assert t.count(State.STARTING) == 1, "no more than the surge"
        t.pass_time(3.0)
        t.ready(successor)
        (leaver,) = [number for number, state in t.states().items() if state == "stopping"]
        t.leave(leaver)
        assert t.count(State.READY) == 8
    assert [event.reason for event in t.told("worker.recycled")] == ["ttl"] * 8
    assert t.now - began == 60.0 + 7 * 3.0, "the first when it is due, each other one load time later"


def test_without_surge_no_worker_starts_before_a_place_is_free(table: Any) -> None:
    t = slow(table, size=2, max_surge=0, max_unavailable=1)
    t.pass_time(59.9)
    assert t.started() == [1, 2]
    t.pass_time(0.1)
    assert len(t.started()) == 3
    assert t.count(State.READY) == 1


def test_a_smaller_size_lets_those_go_first_that_are_expected_to_leave(table: Any) -> None:
    t = table(size=3, startup_batch=1, startup_delay=10.0, ttl=100.0, jitter=0.0).ready(1)
    for worker in (2, 3):
        t.pass_time(10.0)
        t.ready(worker)
    t.pool.worker_set.startup_times.record(5.0)
    t.submit(patience=1000.0)  # the oldest of the idle ones would go first
    assert t.assigned() == [(1, 1)]
    t.sweep(horizon=3600.0)
    t.pass_time(76.0)
    assert (t.started(), [t.worker(one).expires_soon for one in (1, 2, 3)]) == ([1, 2, 3, 4], [True, False, False])
    t.apply(size=1)
    assert (t.killed(), t.states()) == ([4], {1: "draining", 2: "ready", 3: "ready", 4: "stopping"})
    t.finish(1, 1)
    assert t.states() == {1: "stopping", 2: "stopping", 3: "ready", 4: "stopping"}


def test_a_shorter_load_time_learned_meanwhile_does_not_end_a_successor(table: Any) -> None:
    t = slow(table)
    t.pass_time(57.0)
    assert t.started() == [1, 2]
    for _ in range(5):
        t.pool.worker_set.startup_times.record(0.1)
    t.sweep(horizon=3600.0)
    assert (t.killed(), t.states()) == ([], {1: "ready", 2: "starting"})


def test_a_new_age_is_that_of_workers_that_live_already(table: Any) -> None:
    t = slow(table, jitter=0.5)
    jitter_factor = t.worker(1).jitter_factor
    t.apply(ttl=600.0, max_requests=100)
    assert t.worker(1).ttl == 600.0 * jitter_factor
    assert t.worker(1).max_served == round(100 * jitter_factor)
    t.apply(ttl=None, max_requests=None)
    assert (t.worker(1).ttl, t.worker(1).max_served) == (None, None)
    t.pass_time(1000.0)
    assert t.started() == [1]


def test_a_longer_age_keeps_workers_that_were_due(table: Any) -> None:
    t = slow(table)
    t.pass_time(58.0)
    assert t.states() == {1: "ready", 2: "starting"}
    t.apply(ttl=600.0)
    assert t.killed() == [2]
    t.pass_time(100.0)
    assert t.states()[1] == "ready"


def test_a_new_definition_has_its_own_load_time(table: Any) -> None:
    t = slow(table, seconds=9.0)
    t.apply(args={"model": "small"})
    assert t.pool.worker_set.startup_times.expected == 0.0
    t.pass_time(1.0)
    t.ready(2)
    assert t.pool.worker_set.startup_times.expected == 1.0


def test_no_worker_is_recycled_younger_than_its_minimum_life(table: Any) -> None:
    t = table(max_requests=1, jitter=0.0, min_lifetime=30.0, ttl=10.0).ready(1)
    t.finish(1, t.submit())
    t.pass_time(29.0)
    t.sweep()
    assert t.started() == [1]
    t.pass_time(1.5)
    t.sweep()
    assert t.started() == [1, 2]


def test_jitter_spreads_the_ends_of_workers_that_began_together(table: Any) -> None:
    t = table(size=20, startup_batch=20, ttl=100.0, max_requests=1000, jitter=0.5).ready(*range(1, 21))
    workers = t.pool.worker_set.workers.values()
    assert all(100.0 <= worker.ttl <= 150.0 for worker in workers)
    assert all(1000 <= worker.max_served <= 1500 for worker in workers)
    assert len({worker.ttl for worker in workers}) == 20
    assert max(worker.ttl for worker in workers) - min(worker.ttl for worker in workers) > 20
    again = table(size=20, startup_batch=20, ttl=100.0, max_requests=1000, jitter=0.5).ready(*range(1, 21))
    assert [w.ttl for w in again.pool.worker_set.workers.values()] == [w.ttl for w in workers], "the seed decides"


def test_memory_above_the_soft_line_counts_only_when_it_stays_there(table: Any) -> None:
    t = table(memory_soft_mb=100.0, memory_samples=2).ready(1)
    for memory in (150.0, 90.0, 150.0):
        t.do(t.pool.sampled("p-0-1", memory, t.now))
    assert t.worker(1).reason == ""
    t.do(t.pool.sampled("p-0-1", 150.0, t.now))
    assert t.worker(1).reason == "memory_soft"
    assert t.killed() == []


def test_memory_above_the_hard_line_ends_the_worker_at_once(table: Any) -> None:
    t = table(memory_hard_mb=100.0).ready(1)
    t.submit()
    t.do(t.pool.sampled("p-0-1", 100.5, t.now))
    assert t.killed() == [1]
    assert "memory_hard: 100 MiB, limit 100 MiB" in t.told("worker.killed")[0].message
    t.die(1, Exit(signal=9), begun={1})
    assert "memory_hard" in t.error(1).message


def test_an_idle_silent_worker_is_killed_and_a_busy_one_is_left_alone(table: Any) -> None:
    t = table(size=2).ready(1, 2)
    t.submit()
    t.do(t.pool.unresponsive("p-0-1", "no answer for 15 s", t.now, "event_loop"))
    assert t.killed() == []
    t.do(t.pool.unresponsive("p-0-2", "no answer for 15 s", t.now, "event_loop"))
    assert t.killed() == [2]
    busy, idle = t.told("worker.health_check_failed")
    assert (idle.reason, idle.message) == ("event_loop", "no answer for 15 s")
    assert (busy.reason, busy.worker) == ("busy", "p-0-1")
    assert busy.message == "no answer for 15 s; it is busy within its deadline, and is not killed"
    t.do(t.pool.unresponsive("p-0-1", "no answer for 30 s", t.now, "event_loop", known=True))
    assert len(t.told("worker.health_check_failed")) == 2, "once is enough"


def test_a_busy_worker_whose_link_is_lost_is_killed(table: Any) -> None:
    t = table().ready(1)
    t.submit()
    t.do(t.pool.unresponsive("p-0-1", "its link is lost", t.now, "transport"))
    assert t.killed() == [1]
    assert t.told("worker.health_check_failed")[0].reason == "transport"


def test_a_worker_that_leaves_by_itself_is_missed(table: Any) -> None:
    t = table().ready(1)
    t.die(1, Exit(code=0))
    (died,) = t.told("worker.died")
    assert "exit code 0: it exited by itself" in died.message
    t.pass_time(1.0)
    assert t.started() == [1, 2]


@pytest.mark.parametrize(
    ("exit", "words"),
    [
        (Exit(code=3), "exit code 3: the code that it ran ended it"),
        (Exit(code=4), "it lost the link to the broker"),
        (Exit(code=5), "its parent was not the broker"),
        (Exit(code=77), "exit code 77"),
        (Exit(signal=9), "killed from outside, or the machine ran out of memory"),
        (Exit(signal=9, out_of_memory=True), "its memory cgroup reached its limit"),
        (Exit(signal=6), "native code aborted"),
        (Exit(signal=64), "signal"),
        (Exit(signal=99), "signal 99"),
        (Exit(), "its exit status is not known"),
    ],
)
def test_every_exit_is_described_in_words(table: Any, exit: Exit, words: str) -> None:
    t = table().ready(1)
    t.die(1, exit)
    assert words in t.told("worker.died")[0].message


def test_a_death_by_the_limit_of_a_memory_cgroup_has_its_own_reason_everywhere(table: Any) -> None:
    t = table().ready(1)
    call = t.submit()
    t.die(1, Exit(signal=9, out_of_memory=True))
    (died,) = t.told("worker.died")
    assert died.reason == "out_of_memory"
    error = t.error(call)
    assert "out_of_memory: its memory cgroup reached its limit" in error.message
    assert error.details["reason"] == "out_of_memory"


def test_a_worker_that_runs_out_of_memory_while_it_loads_has_the_same_reason(table: Any) -> None:
    t = table()
    t.die(1, Exit(signal=9, out_of_memory=True))
    (died,) = t.told("worker.died")
    assert died.reason == "out_of_memory"
    assert "its memory cgroup reached its limit" in died.message
