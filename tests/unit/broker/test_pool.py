"""A pool's decisions about calls, scene by scene."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from snakepit.pools.broker import errors
from snakepit.pools.broker.pool.dispatcher import BEGIN_SECONDS
from snakepit.pools.broker.pool.worker import IllegalTransition, State
from snakepit.pools.broker.ports import Exit

# Routing


def test_a_call_goes_to_the_least_loaded_worker(table: Any) -> None:
    t = table(size=2, profile="thread", threads=3).ready(1, 2)
    for _ in range(5):
        t.submit()
    assert t.assigned() == [(1, 1), (2, 2), (3, 1), (4, 2), (5, 1)]
    t.finish(1, 1)
    t.finish(1, 3)
    t.submit()
    assert t.assigned()[-1] == (6, 1)


def test_a_worker_never_holds_more_calls_than_slots(table: Any) -> None:
    t = table(size=1, profile="thread", threads=2).ready(1)
    for _ in range(4):
        t.submit()
    assert t.worker(1).load == 2
    assert len(t.pool.queue) == 2


def test_waiting_calls_are_served_first_come_first_served(table: Any) -> None:
    t = table().ready(1)
    for _ in range(4):
        t.submit()
    for call in (1, 2, 3):
        t.finish(1, call)
    assert [call for call, _ in t.assigned()] == [1, 2, 3, 4]


def test_a_call_of_higher_priority_goes_before_all_waiting_calls(table: Any) -> None:
    t = table().ready(1)
    t.submit()
    low, middle, high = t.submit(priority=-5), t.submit(), t.submit(priority=5)
    for call in (1, high, middle):
        t.finish(1, call)
    assert [call for call, _ in t.assigned()] == [1, high, middle, low]


def test_calls_wait_for_the_first_worker_to_be_ready(table: Any) -> None:
    t = table()
    t.submit()
    assert t.assigned() == []
    t.ready(1)
    assert t.assigned() == [(1, 1)]


# The line's limits


def test_a_call_beyond_the_queue_limit_is_refused(table: Any) -> None:
    t = table(queue_limit=2).ready(1)
    for _ in range(4):
        t.submit()
    error = t.error(4)
    assert isinstance(error, errors.QueueFull)
    assert error.outcome == "not_started"
    assert error.message == "The pool's queue is full: 2 calls wait, 2 may."
    assert t.pool.admission.refused_count == 1


def test_a_call_beyond_the_bytes_that_may_wait_is_refused(table: Any) -> None:
    t = table(queue_bytes=100).ready(1)
    for size in (90, 90, 11, 10):
        t.submit(size=size)
    assert t.failed() == {3: "queue_full"}
    assert "90 bytes wait, 100 may" in t.error(3).message
    assert t.pool.queue.bytes == 100


def test_bytes_in_shared_memory_that_wait_have_a_bound_of_their_own(table: Any) -> None:
    t = table(queue_bytes=100, max_buffer=1000).ready(1)
    t.submit()
    for size, buffered in ((1000, 1000), (1001, 1000), (90, 0), (11, 0)):
        t.submit(size=size, buffer_bytes=buffered)
    assert t.failed() == {3: "queue_full", 5: "queue_full"}
    assert "1000 bytes wait in shared memory, 1000 may" in t.error(3).message
    assert (t.pool.queue.bytes, t.pool.queue.buffer_bytes) == (90, 1000)
    t.finish(1, 1)
    assert (t.pool.queue.bytes, t.pool.queue.buffer_bytes) == (90, 0)


def test_queue_bytes_above_max_buffer_hold_for_shared_memory_too(table: Any) -> None:
    t = table(queue_bytes=3000, max_buffer=1000).ready(1)
    for _ in range(5):
        t.submit(size=1000, buffer_bytes=1000)
    assert t.failed() == {5: "queue_full"}


def test_without_a_queue_a_free_slot_still_takes_a_call(table: Any) -> None:
    t = table(queue_limit=0, queue_bytes=0).ready(1)
    t.submit(size=50)
    t.submit()
    assert t.assigned() == [(1, 1)]
    assert t.failed() == {2: "queue_full"}


def test_a_call_that_exceeds_the_queue_timeout_gets_the_reason(table: Any) -> None:
    t = table(queue_timeout=3.0).ready(1)
    t.submit()
    t.submit()
    t.pass_time(2.9)
    assert t.failed() == {}
    t.pass_time(0.2)
    error = t.error(2)
    assert (error.code, error.outcome) == ("queue_timeout", "not_started")
    assert error.message == "No worker was free within 3 s: 1 of 1 slots busy."
    assert len(t.pool.queue) == 0
    assert len(t.pool.timers) == 1, "only the running call's deadline is left"


def test_a_full_queue_is_reported_once_until_there_is_room_again(table: Any) -> None:
    t = table(queue_limit=1).ready(1)
    for _ in range(5):
        t.submit()
    assert len(t.told("pool.saturated")) == 1
    t.finish(1, 1)
    for _ in range(3):
        t.submit()
    assert len(t.told("pool.saturated")) == 2


def refused_after(t: Any) -> float:
    """The message of the first call that a full queue refuses."""
    calls = t.submit_together(t.spec.queue_limit + t.spec.slots + 1, patience=1000)
    return float(t.error(calls[-1]).retry_after)


@pytest.mark.parametrize(
    ("seconds", "threads", "expected"), [(0.5, 1, 10.0), (0.5, 4, 2.5), (0.001, 1, 0.1), (9, 1, 60)]
)
def test_retry_after_is_the_work_that_waits_divided_by_the_slots(
    table: Any, seconds: float, threads: int, expected: float
) -> None:
    profile = {"profile": "thread", "threads": threads} if threads > 1 else {}
    t = table(queue_limit=20, queue_timeout=1000.0, **profile).ready(1)
    t.finish_together(1, t.submit(), seconds=seconds)
    t.pass_time(3600.0)  # idle time changes nothing
    assert refused_after(t) == expected


def test_retry_after_counts_streams_too(table: Any) -> None:
    t = table(queue_limit=20, queue_timeout=1000.0).ready(1)
    t.finish_together(1, t.submit(streams=True), seconds=0.5)
    t.finish_together(1, t.submit(streams=True), seconds=1.5)
    assert refused_after(t) == 20.0


def test_a_call_that_waited_too_long_gets_the_time_to_try_again(table: Any) -> None:
    t = table(queue_timeout=2.0).ready(1)
    t.finish_together(1, t.submit(), seconds=0.5)
    t.submit()
    waiting = t.submit()
    t.pass_time(2.0)
    assert (t.failed(), t.error(waiting).retry_after) == ({waiting: "queue_timeout"}, 0.5)


def test_every_cancelled_call_is_counted_as_failed(table: Any) -> None:
    t = table().ready(1)
    for call in (t.submit(), t.submit(), t.submit()):
        t.cancel(call)
    assert t.pool.failed_count == 3


def test_a_new_retry_budget_is_in_force_at_once(table: Any) -> None:
    t = table(size=2).ready(1, 2)
    t.apply(retry_budget=0.0)
    t.submit(idempotent=True)
    t.die(1, begun={1})
    assert t.failed() == {1: "worker_lost"}


def test_a_call_that_had_a_slot_and_not_begun_is_retried_with_that_reason(table: Any) -> None:
    t = table(size=2).ready(1, 2)
    t.submit()
    t.die(1, begun=set())
    assert [event.message for event in t.told("call.retried")] == ["call 1 runs again: it had not begun"]


def test_retry_after_without_a_ready_worker_adds_the_time_of_a_start(table: Any) -> None:
    t = table(queue_limit=4, queue_timeout=1000.0, size=2)
    t.pass_time(3.0)
    t.ready(1)
    t.finish_together(1, t.submit(), seconds=0.5)
    t.die(1)
    assert t.error(t.submit_together(5, patience=1000)[-1]).retry_after == 4.0, "3 s, and four calls in two slots"


def test_retry_after_of_a_pool_that_never_finished_a_call_is_a_second(table: Any) -> None:
    t = table(queue_limit=0)
    t.submit()
    assert t.error(1).retry_after == 1.0


# Refusals


def test_a_paused_pool_refuses_new_calls_and_serves_those_it_took(table: Any) -> None:
    t = table().ready(1)
    t.submit()
    t.submit()
    t.apply(paused=True)
    t.submit()
    assert t.failed() == {3: "pool_paused"}
    t.finish(1, 1)
    assert t.assigned() == [(1, 1), (2, 1)]
    t.apply(paused=False)
    t.submit()
    assert 4 not in t.failed()


def test_a_closing_pool_answers_waiting_calls_finishes_running_ones_and_ends_its_workers(table: Any) -> None:
    t = table(size=2, queue_limit=5)
    t.ready(1)
    t.submit()
    t.submit()
    t.do(t.pool.close(t.now))
    assert t.failed() == {2: "shutting_down"}
    assert t.killed() == [2], "a starting worker serves no call"
    t.submit()
    assert t.failed()[3] == "shutting_down"
    assert t.states()[1] == "draining"
    t.finish(1, 1)
    assert t.stopped() == [1]
    t.leave(1)
    t.leave(2)
    assert t.states() == {}
    assert t.pool.calls == {}


def test_a_payload_above_the_limit_is_refused_also_where_a_slot_is_free(table: Any) -> None:
    t = table(max_payload=2048).ready(1)
    t.submit(size=2049)
    t.submit(size=2048)
    error = t.error(1)
    assert (error.code, error.details) == ("payload_too_large", {"bytes": 2049, "limit": 2048})
    assert error.message == (
        f"The arguments have 2,049 bytes; the max_payload of pool {t.pool.spec.name} is 2,048. "
        "Raise max_payload, send the data in parts, or pass the name of a file."
    )
    assert t.assigned() == [(2, 1)]


# Cancel and deadline


def test_a_cancelled_call_in_the_line_leaves_no_trace(table: Any) -> None:
    t = table().ready(1)
    t.submit()
    t.submit(size=70)
    t.cancel(2)
    error = t.error(2)
    assert (error.code, error.outcome) == ("cancelled", "not_started")
    assert (len(t.pool.queue), t.pool.queue.bytes) == (0, 0)
    assert t.asked_to_stop() == []
    t.finish(1, 1)
    assert t.assigned() == [(1, 1)]
    t.pass_time(BEGIN_SECONDS)
    assert (t.pool.calls, len(t.pool.timers)) == ({}, 0)


def test_a_cancelled_call_that_runs_is_asked_to_stop_and_keeps_its_slot_until_it_does(table: Any) -> None:
    t = table(cancel_grace=2.0).ready(1)
    t.submit()
    t.cancel(1)
    error = t.error(1)
    assert (error.code, error.outcome) == ("cancelled", "unknown")
    assert t.asked_to_stop() == [(1, "cancelled")]
    t.submit()
    assert len(t.pool.queue) == 1
    t.pass_time(1.0)
    t.finish(1, 1, ok=False)
    assert t.assigned() == [(1, 1), (2, 1)]
    t.pass_time(5.0)
    assert t.killed() == []


def test_cancelling_twice_or_a_stranger_does_nothing(table: Any) -> None:
    t = table().ready(1)
    t.submit()
    t.cancel(1)
    before = len(t.actions)
    t.cancel(1)
    t.cancel(99)
    assert len(t.actions) == before


def test_a_waiting_call_that_exceeds_its_deadline_is_not_started(table: Any) -> None:
    t = table(queue_timeout=60.0).ready(1)
    t.submit()
    t.submit(patience=2.0)
    t.pass_time(2.0)
    error = t.error(2)
    assert (error.code, error.outcome) == ("deadline_exceeded", "not_started")
    assert error.message == "The call did not end within 2 s (it waited until then)."
    assert t.asked_to_stop() == []


def test_a_running_call_that_exceeds_its_deadline_is_unknown_and_asked_to_stop(table: Any) -> None:
    t = table(cancel_grace=1.0).ready(1)
    t.submit(patience=3.0)
    t.pass_time(3.0)
    error = t.error(1)
    assert (error.code, error.outcome) == ("deadline_exceeded", "unknown")
    assert "it ran until then" in error.message
    assert t.asked_to_stop() == [(1, "deadline_exceeded")]


def test_a_process_that_does_not_stop_within_the_grace_is_killed_and_replaced(table: Any) -> None:
    t = table(cancel_grace=1.0).ready(1)
    t.submit(patience=3.0)
    t.pass_time(3.9)
    assert t.killed() == []
    t.pass_time(0.2)
    assert t.killed() == [1]
    assert t.told("worker.killed")[0].reason == "overrun"
    assert t.started() == [1, 2], "its successor is on the way before it is reaped"
    t.die(1, Exit(signal=9))
    assert t.told("worker.recycled")[0].reason == "overrun"
    assert not t.told("worker.died")
    assert t.pool.calls == {}
    t.ready(2)
    t.submit()
    assert t.assigned()[-1] == (2, 2)


def test_a_thread_that_does_not_stop_is_a_lost_slot_and_too_many_of_them_replace_the_worker(table: Any) -> None:
    t = table(profile="thread", threads=8, cancel_grace=1.0).ready(1)
    for _ in range(2):
        t.submit(patience=3.0)
    t.submit(patience=60.0)
    t.cancel(1)
    t.pass_time(1.0)
    assert t.killed() == []
    assert t.worker(1).lost == 1
    assert "1 of 8 slots are lost" in t.told("slot.lost")[0].message
    assert t.started() == [1], "one lost slot of eight is borne"
    t.pass_time(4.0)
    assert t.worker(1).lost == 2
    assert t.started() == [1, 2]
    t.ready(2)
    assert t.states() == {1: "draining", 2: "ready"}
    t.finish(1, 3)
    assert t.killed() == [1], "all that is left cannot end by itself"
    t.die(1, Exit(signal=9))
    assert t.told("worker.recycled")[0].reason == "lost_slots"


def test_a_lost_slot_whose_call_ends_after_all_is_room_again(table: Any) -> None:
    t = table(profile="thread", threads=8, cancel_grace=1.0).ready(1)
    t.submit()
    t.cancel(1)
    t.pass_time(1.0)
    assert t.worker(1).lost == 1
    t.finish(1, 1)
    assert (t.worker(1).lost, t.worker(1).load) == (0, 0)


def test_a_threaded_worker_of_the_old_definition_is_not_killed_for_one_deaf_call(table: Any) -> None:
    t = table(profile="thread", threads=8, cancel_grace=1.0).ready(1)
    t.submit()
    t.submit()
    t.apply(profile="process")
    t.cancel(1)
    t.pass_time(1.0)
    assert t.killed() == [], "the other calls of its threads would die with it"
    assert t.worker(1).lost == 1


def test_a_late_answer_changes_nothing(table: Any) -> None:
    t = table(cancel_grace=5.0).ready(1)
    t.submit(patience=1.0)
    t.pass_time(1.5)
    t.finish(1, 1)
    t.finish(1, 1)
    t.finish(2, 1)
    assert t.failed() == {1: "deadline_exceeded"}
    assert (t.pool.finished_count, t.pool.failed_count) == (0, 1)
    assert t.worker(1).served == 1
    t.pass_time(10)
    assert t.killed() == []


# Retry


def test_a_call_that_had_not_begun_runs_again_elsewhere_and_goes_first(table: Any) -> None:
    t = table(size=2).ready(1, 2)
    t.submit()
    t.submit()
    t.submit()
    t.die(1, begun=set())
    assert t.failed() == {}
    assert "it had not begun" in t.told("call.retried")[0].message
    t.finish(2, 2)
    assert t.assigned() == [(1, 1), (2, 2), (1, 2)], "before the one that only waited"


def test_an_idempotent_call_runs_again_though_it_had_begun(table: Any) -> None:
    t = table(size=2).ready(1, 2)
    t.submit(idempotent=True)
    t.die(1, begun={1})
    assert t.assigned() == [(1, 1), (1, 2)]
    assert "it is idempotent" in t.told("call.retried")[0].message


def test_a_call_that_may_have_run_is_lost_with_its_worker(table: Any) -> None:
    t = table(size=2).ready(1, 2)
    t.submit()
    t.die(1, Exit(signal=9), begun=None)
    error = t.error(1)
    assert (error.code, error.outcome) == ("worker_lost", "unknown")
    assert error.details["worker"] == "p-0-1"


def test_a_call_that_kills_each_of_its_workers_is_tried_six_times_at_most(table: Any) -> None:
    t = table(size=1).ready(1)
    t.submit(patience=1000, idempotent=True)
    for worker in range(1, 7):
        t.die(worker, begun={1})
        t.ready(worker + 1)
    assert t.assigned() == [(1, worker) for worker in range(1, 7)]
    assert t.failed() == {1: "worker_lost"}
    assert t.pool.retried_count == 5
    assert t.pool.worker_set.gate.failed == "", "the pool has not failed by one such call"


@pytest.mark.parametrize("killed", [0.05, 0.1, 0.2])
def test_no_idempotent_call_is_lost_in_a_storm_of_kills(table: Any, killed: float) -> None:
    """A share of all attempts ends by a kill from outside; the budget allows as many retries as that."""
    rng, worker = Random(7), 1
    t = table(size=1, death_budget=100_000, retry_budget=1.0, queue_timeout=100.0).ready(1)
    for call in range(1, 2001):
        t.submit(patience=1000, idempotent=True)
        while rng.random() < killed:
            t.die(worker, begun={call})
            worker += 1
            while t.id(worker) not in t.pool.workers:  # after many deaths, starts have a pause
                t.pass_time(1.0)
            t.ready(worker)
        t.finish(worker, call)
    assert t.failed() == {}
    assert t.pool.finished_count == 2000


def test_the_retry_budget_ends_retries(table: Any) -> None:
    t = table(size=1, profile="thread", threads=30, retry_budget=0.5).ready(1)
    for _ in range(30):
        t.submit(patience=1000, idempotent=True)
    t.die(1, begun=set())
    assert t.pool.retried_count == 25, "ten to begin with, and half of thirty"
    assert len(t.failed()) == 5
    assert set(t.failed().values()) == {"worker_lost"}


def test_without_a_retry_budget_nothing_is_tried_again(table: Any) -> None:
    t = table(retry_budget=0.0).ready(1)
    t.submit(idempotent=True)
    t.die(1, begun=set())
    error = t.error(1)
    assert (error.code, error.outcome) == ("worker_lost", "not_started")


def test_the_oldest_of_the_orphans_goes_first(table: Any) -> None:
    t = table(profile="thread", threads=3).ready(1)
    for _ in range(3):
        t.submit()
    t.die(1, begun=set())
    t.ready(2)
    assert t.assigned()[3:] == [(1, 2), (2, 2), (3, 2)]


def test_an_answered_call_dies_silently_with_its_worker(table: Any) -> None:
    t = table().ready(1)
    t.submit(idempotent=True)
    t.cancel(1)
    t.die(1, begun={1})
    assert t.failed() == {1: "cancelled"}
    assert (t.pool.calls, t.told("call.retried")) == ({}, [])


@pytest.mark.parametrize("end", ["cancel", "queue_timeout", "deadline", "failed", "close"])
def test_a_retried_call_that_had_begun_is_never_not_started(table: Any, end: str) -> None:
    t = table(queue_timeout=5.0, boot_budget=1).ready(1)
    t.submit(patience=3.0 if end == "deadline" else 60.0, idempotent=True)
    t.die(1, begun={1})
    if end == "cancel":
        t.cancel(1)
    elif end == "close":
        t.do(t.pool.close(t.now))
    elif end == "failed":
        t.fail_boot(2)
    else:
        t.pass_time(10.0)
    assert t.error(1).outcome == "unknown"


def test_no_retry_outlives_the_pools_end(table: Any) -> None:
    t = table().ready(1)
    t.submit(idempotent=True)
    t.do(t.pool.close(t.now))
    t.die(1, begun={1})
    assert t.failed() == {1: "worker_lost"}


# Failure of the pool


def test_a_pool_whose_workers_cannot_start_refuses_waiting_and_new_calls(table: Any) -> None:
    t = table(boot_budget=1)
    t.submit()
    t.fail_boot(1, "ModuleNotFoundError: no module named 'x'")
    t.submit()
    for call in (1, 2):
        assert t.error(call).code == "pool_failed"
        assert "no module named 'x'" in t.error(call).message
    assert t.error(2).retry_after > 0


def test_a_call_that_waits_gets_the_reason_why_no_worker_starts(table: Any) -> None:
    t = table(boot_budget=100, queue_timeout=3.0)
    t.fail_boot(1, "ModuleNotFoundError: no module named 'x'")
    t.submit()
    t.submit(patience=1.0)
    t.pass_time(3.1)
    assert t.error(1).message == (
        "No worker became ready within 3 s. The pool's workers cannot start: 1 failed start in a row; the last one: "
        f"{t.pool.worker_set.gate.last_failure}."
    )
    assert "no module named 'x'" in t.error(1).message
    assert (t.error(2).code, t.error(2).outcome) == ("deadline_exceeded", "not_started")
    assert "no module named 'x'" in t.error(2).message


def test_a_failed_pool_whose_other_worker_serves_still_takes_calls(table: Any) -> None:
    t = table(size=2, boot_budget=1).ready(1)
    t.fail_boot(2)
    assert t.told("pool.failed")
    t.submit()
    assert t.assigned() == [(1, 1)]


# Odds and ends


def test_facts_about_strangers_are_ignored(table: Any) -> None:
    t = table().ready(1)
    t.ready(7)
    t.finish(7, 1)
    t.die(7)
    t.do(t.pool.sampled("p-0-7", 1e9, t.now))
    t.do(t.pool.unresponsive("p-0-7", "silent", t.now, "event_loop"))
    t.pool.boot_failed("p-0-7", "why")
    assert t.states() == {1: "ready"}


def test_an_illegal_move_of_a_worker_raises(table: Any) -> None:
    t = table().ready(1)
    with pytest.raises(IllegalTransition, match="ready -> starting"):
        t.worker(1).move(State.STARTING)


def test_a_pool_reports_why_a_call_waits(table: Any) -> None:
    t = table(size=3, profile="thread", threads=2).ready(1, 2)
    t.submit()
    assert t.pool.worker_set.describe_load() == "1 of 4 slots busy, 1 starting"
    workers = "<Worker p-0-1 ready 1/2>, <Worker p-0-2 ready 0/2>, <Worker p-0-3 starting 0/2>"
    assert repr(t.pool) == f"<Pool p [{workers}] 0 waiting>"


def test_the_oldest_wait_is_measured(table: Any) -> None:
    t = table(queue_timeout=60.0).ready(1)
    assert t.pool.queue.oldest_wait(t.now) == 0.0
    t.submit()
    t.submit()
    t.pass_time(2.5)
    t.submit(priority=9)
    assert t.pool.queue.oldest_wait(t.now) == 2.5


def test_what_was_said_to_a_worker_without_room_is_nothing(table: Any) -> None:
    t = table().ready(1)
    for _ in range(3):
        t.submit()
    t.die(1, begun={1})
    assert t.assigned() == [(1, 1)], "nothing is given to a worker that is gone"
    t.ready(2)
    assert t.assigned()[-1] == (2, 2)


def test_an_operator_kills_a_worker_whatever_it_runs_and_gets_a_new_one(table: Any) -> None:
    t = table(size=1).ready(1)
    t.submit()
    before = t.pool.worker_set.died
    t.do(t.pool.kill(t.worker(1), "it hangs", t.now))
    assert t.killed() == [1]
    assert t.worker(1).reason == "operator"
    t.die(1, Exit(signal=9), begun={1})
    assert t.states() == {2: "starting"}
    assert t.pool.worker_set.died == before  # it was meant
