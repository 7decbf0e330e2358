"""Prefetched calls: to which worker, which, how many, and what revokes them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from snakepit.pools.broker.pool.actions import Revoke
from snakepit.pools.broker.pool.calls import Call
from snakepit.pools.broker.pool.dispatcher import (
    BEGIN_SECONDS,
    PREFETCH_CALLS,
    PREFETCH_SECONDS,
    STALL_SECONDS,
    has_room,
    may_prefetch,
)
from snakepit.pools.broker.pool.worker import State, Worker
from tests.unit.broker.conftest import Table


def test_a_known_short_call_is_prefetched_by_a_busy_worker_and_counts_as_waiting(table: Any) -> None:
    t = table().ready(1).knows()
    for _ in range(3):
        t.submit()
    assert t.assigned() == [(1, 1), (2, 1), (3, 1)]
    worker = t.worker(1)
    assert (worker.load, worker.prefetched, t.pool.waiting, t.pool.dispatcher.load_index.with_free_slot) == (1, 2, 2, 0)
    t.finish(1, 1)
    assert (worker.load, worker.prefetched, t.pool.waiting) == (1, 1, 1)


def test_a_free_slot_comes_before_any_busy_worker(table: Any) -> None:
    t = table(size=2).ready(1).knows()
    for _ in range(3):
        t.submit()
    t.ready(2)
    t.submit()
    assert t.assigned()[3:] == [(4, 2)]


def test_prefetched_calls_are_shared_evenly(table: Any) -> None:
    t = table(size=2).ready(1, 2).knows()
    for _ in range(8):
        t.submit()
    assert [t.worker(1).prefetched, t.worker(2).prefetched] == [3, 3]


def test_nothing_is_prefetched_while_run_times_are_unknown(table: Any) -> None:
    t = table().ready(1)
    for _ in range(3):
        t.submit()
    assert t.assigned() == [(1, 1)]


@pytest.mark.parametrize(
    "fields", [{"command": "long"}, {"command": "strange"}, {"streams": True}], ids=["long", "unknown", "stream"]
)
def test_nothing_is_prefetched_behind_a_call_that_may_take_long(table: Any, fields: dict[str, Any]) -> None:
    t = table().ready(1).knows().knows("long", 0.5)
    t.submit(**fields)
    t.submit()
    assert t.assigned() == [(1, 1)]


@pytest.mark.parametrize(
    "fields",
    [{"command": "long"}, {"command": "strange"}, {"streams": True}, {"size": 100_000}],
    ids=["long", "unknown", "stream", "large"],
)
def test_only_short_and_small_calls_are_prefetched_and_those_behind_others_wait(
    table: Any, fields: dict[str, Any]
) -> None:
    t = table().ready(1).knows().knows("long", 0.5)
    t.submit()
    t.submit(**fields)
    t.submit()
    assert t.assigned() == [(1, 1)], "first come first served"


def test_the_wait_of_prefetched_calls_is_bounded_in_time_and_number(table: Any) -> None:
    t = table().ready(1).knows(seconds=0.0006)
    for _ in range(9):
        t.submit()
    assert sum(call.expected for call in t.worker(1).assigned.values()) <= PREFETCH_SECONDS + 2 * 0.0006
    assert len(t.pool.queue) > 0
    t = table().ready(1).knows(seconds=0.000001)
    for _ in range(PREFETCH_CALLS + 9):
        t.submit()
    assert t.worker(1).prefetched == PREFETCH_CALLS


def test_one_long_run_makes_a_command_long_for_a_while(table: Any) -> None:
    t = table().ready(1).knows()
    t.submit()
    t.do(t.pool.finished(t.id(1), 1, t.now, seconds=5.0))
    t.submit()
    t.submit()
    assert len(t.assigned()) == 2


def test_calls_prefetched_behind_a_long_one_are_revoked_and_go_first(table: Any) -> None:
    t = table(size=2).ready(1).knows()
    for _ in range(3):
        t.submit()
    t.submit(command="strange")
    t.pass_time(STALL_SECONDS)
    assert t.revoked() == [(1, [2, 3])]
    t.ready(2)
    t.confirm_revoked(1, 2, 3)
    assert t.assigned()[3:] == [(4, 2)], "the free slot did not wait for them"
    t.finish(2, 4)
    assert t.assigned()[4:] == [(2, 2), (3, 2)], "and the stalled worker prefetches nothing"
    assert t.pool.retried_count == 0
    assert {call.attempts for call in t.worker(2).assigned.values()} == {1}


def test_nothing_more_is_prefetched_until_the_worker_ends_a_call(table: Any) -> None:
    t = table().ready(1).knows()
    t.submit()
    t.submit()
    t.pass_time(STALL_SECONDS)
    t.submit()
    assert t.assigned() == [(1, 1), (2, 1)]
    t.confirm_revoked(1)
    assert t.assigned() == [(1, 1), (2, 1)]
    t.finish(1, 1)
    assert t.assigned() == [(1, 1), (2, 1), (3, 1)], "the worker ended a call"


def test_a_call_that_was_not_confirmed_is_revoked_again(table: Any) -> None:
    t = table().ready(1).knows()
    t.submit()
    t.submit()
    t.pass_time(STALL_SECONDS)
    t.confirm_revoked(1)
    t.pass_time(STALL_SECONDS)
    assert t.revoked() == [(1, [2]), (1, [2])]


def test_a_worker_that_ends_calls_is_not_revoked(table: Any) -> None:
    t = table().ready(1).knows()
    t.submit()
    t.submit()
    t.pass_time(STALL_SECONDS / 2)
    t.finish(1, 1)
    t.submit()
    t.pass_time(STALL_SECONDS * 0.9)
    assert t.revoked() == []
    t.pass_time(STALL_SECONDS)
    assert t.revoked() == [(1, [3])]


def test_unbegun_calls_of_a_dead_worker_go_elsewhere_without_event_and_budget(table: Any) -> None:
    t = table(retry_budget=0.0).ready(1).knows()
    for _ in range(4):
        t.submit()
    t.die(1, begun={1})
    t.ready(2)
    assert t.failed() == {1: "worker_lost"}
    assert t.assigned()[4:] == [(2, 2), (3, 2), (4, 2)]
    assert (t.told("call.retried"), t.pool.retried_count, t.pool.waiting) == ([], 0, 2)


def test_unbegun_calls_are_never_used_up_by_workers_that_die(table: Any) -> None:
    t = table(death_budget=99).ready(1).knows()
    t.submit()
    t.submit(patience=1000)
    for worker in range(1, 8):
        t.die(worker, begun={call for call, at in t.assigned() if at == worker} - {2})
        t.ready(worker + 1)
        if worker < 7:
            t.cancel(t.submit(command="strange"))
    assert 2 not in t.failed() or t.failed()[2] == "worker_lost"


def test_a_revoked_call_that_is_answered_is_forgotten(table: Any) -> None:
    t = table(cancel_grace=0.0).ready(1).knows()
    t.submit()
    t.submit()
    t.cancel(2)
    t.pass_time(STALL_SECONDS)
    assert (t.revoked(), t.killed()) == ([(1, [2])], [])
    t.confirm_revoked(1, 2)
    assert (set(t.pool.calls), t.failed()) == ({1}, {2: "cancelled"})


def test_no_worker_is_killed_for_a_cancelled_call_that_is_only_prefetched(table: Any) -> None:
    t = table(cancel_grace=0.1).ready(1).knows()
    t.submit()
    t.submit()
    t.cancel(2)
    t.pass_time(0.5)
    assert t.killed() == []
    t.finish(1, 1)
    t.pass_time(0.5)
    assert t.killed() == [1], "now it runs, and does not stop"


def test_calls_revoked_in_a_closing_pool_are_answered(table: Any) -> None:
    t = table().ready(1).knows()
    t.submit()
    t.submit()
    t.do(t.pool.close(t.now))
    t.pass_time(STALL_SECONDS)
    t.confirm_revoked(1, 2)
    assert t.failed() == {2: "shutting_down"}


FULL = {number: Call(number, "run", arrived=0.0, deadline=60.0) for number in range(1 + PREFETCH_CALLS)}
UNFIT: list[dict[str, Any]] = [
    {"state": State.STARTING}, {"state": State.DRAINING}, {"reason": "age"}, {"stalled": True}, {"silent": True},
    {"process_ended": True}, {"lost": 1}, {"backlog": PREFETCH_SECONDS * 1.01}, {"assigned": FULL},
    {"served": 4, "max_served": 4}, {"served": 3, "max_served": 4, "assigned": {1: FULL[1]}},
]  # fmt: skip


@pytest.mark.parametrize("fields", UNFIT, ids=str)
def test_a_worker_that_may_not_run_the_call_soon_prefetches_nothing(fields: dict[str, Any]) -> None:
    ready = Worker("w-1", 1, slots=1, born=0.0, state=State.READY, backlog=PREFETCH_SECONDS, served=2, max_served=4)
    ready.assigned[1] = FULL[1]
    assert may_prefetch(ready)
    assert not may_prefetch(with_fields(ready, fields))


@pytest.mark.parametrize(
    "fields", [{"state": State.STARTING}, {"state": State.DRAINING}, {"silent": True}, {"process_ended": True}], ids=str
)
def test_a_worker_that_takes_no_calls_has_no_room(fields: dict[str, Any]) -> None:
    ready = Worker("w-1", 1, slots=1, born=0.0, state=State.READY)
    assert has_room(ready)
    assert not has_room(with_fields(ready, fields))


def with_fields(worker: Worker, fields: dict[str, Any]) -> Worker:
    for name, value in fields.items():
        setattr(worker, name, value)
    return worker


def test_the_queue_limit_counts_prefetched_calls(table: Any) -> None:
    t = table(queue_limit=2).ready(1).knows()
    for _ in range(4):
        t.submit()
    assert t.failed() == {4: "queue_full"}


def test_a_worker_near_its_last_call_prefetches_no_more_than_it_may_serve(table: Any) -> None:
    t = table(max_requests=3, jitter=0.0, max_surge=1).ready(1).knows()
    for _ in range(6):
        t.submit()
    assert len(t.assigned()) == 3


def test_a_draining_worker_finishes_what_it_holds_and_gets_nothing_ahead(table: Any) -> None:
    t = table().ready(1).knows()
    t.submit()
    t.submit()
    t.recycle(1)
    t.ready(2)
    t.submit()
    t.submit()
    assert t.assigned()[2:] == [(3, 2), (4, 2)]
    t.finish(1, 1)
    t.finish(1, 2)
    assert t.stopped() == [1]


# What is kept of prefetched calls


def test_the_prefetched_calls_of_several_workers_are_counted_together(table: Any) -> None:
    t = table(size=2).ready(1, 2).knows()
    t.submit_together(8)
    assert (t.worker(1).prefetched, t.worker(2).prefetched, t.pool.dispatcher.prefetched) == (3, 3, 6)
    t.finish_together(1, *list(t.worker(1).assigned)[:1])
    assert t.pool.dispatcher.prefetched == 5
    t.pass_time(STALL_SECONDS)
    (one, _), _ = t.revoked()
    t.confirm_revoked(one, *[call.id for call in t.worker(one).waiting()][:1])
    assert t.pool.dispatcher.prefetched == sum(t.worker(number).prefetched for number in (1, 2))


def test_the_expected_work_of_a_worker_shrinks_with_each_call_that_ends(table: Any) -> None:
    t = table().ready(1).knows(seconds=0.0006)
    t.submit_together(9)
    assigned = len(t.worker(1).assigned)
    assert t.worker(1).backlog == pytest.approx(0.0006 * assigned)
    t.finish_together(1, 1, 2)
    assert t.worker(1).backlog == pytest.approx(0.0006 * len(t.worker(1).assigned))
    t.finish_together(1, *t.worker(1).assigned)
    t.finish_together(1, *t.worker(1).assigned)
    assert t.worker(1).backlog == 0.0


def test_a_revoke_comes_when_the_first_prefetched_call_has_waited_long_enough(table: Any) -> None:
    t = table().ready(1).knows()
    t.submit()
    t.submit()
    t.pass_time(STALL_SECONDS * 0.5)
    t.submit()
    t.finish(1, 1)
    t.pass_time(STALL_SECONDS * 0.6)
    assert t.revoked() == [], "the call that waits now was prefetched half of the time ago"
    t.pass_time(STALL_SECONDS * 0.5)
    assert t.revoked() == [(1, [3])]


def test_a_worker_that_stops_is_not_revoked_and_leaves_no_timer(table: Any) -> None:
    t = table().ready(1).knows()
    t.submit()
    t.submit()
    t.do(t.pool.kill(t.worker(1), "asked", t.now))
    t.pass_time(STALL_SECONDS)
    assert t.revoked() == []
    t.ready(2)
    t.submit()
    t.submit()
    t.die(1)
    t.die(2, begun={3})
    assert not any(key[0] == "stall" for key in set(t.pool.timers.keys()) if isinstance(key, tuple))


def test_a_worker_whose_process_has_ended_gets_no_more_calls(table: Any) -> None:
    t = table().ready(1)
    t.pool.process_ended("p-0-1")
    t.pool.process_ended("p-0-9")
    t.submit()
    assert t.assigned() == []
    t.pool.worker_set.mark_if_due(t.worker(1), t.now)
    t.do(t.pool.sampled("p-0-1", 50.0, t.now))
    assert t.assigned() == [], "also after a sample, which places it anew"


batches = st.lists(
    st.tuples(st.integers(1, 12), st.sampled_from(["run", "run", "long"]), st.integers(-1, 1), st.integers(0, 3000)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150)
@given(batches, st.integers(1, 3), st.integers(0, 3), st.integers(0, 30), st.integers(0, 20_000))
# Calls of a lower priority wait while two short ones come: each worker gets one, and has its own timer.
@example([(4, "run", 0, 0), (2, "long", -1, 0), (2, "run", 0, 0)], 2, 2, 30, 20_000)
def test_calls_that_come_together_fare_as_if_they_had_come_one_by_one(
    script: list[tuple[int, str, int, int]], size: int, ready: int, limit: int, room: int
) -> None:
    fields = {"size": size, "queue_limit": limit, "queue_bytes": room, "profile": "thread", "threads": 2}
    together, alone = Table(**fields).knows().knows("long", 0.5), Table(**fields).knows().knows("long", 0.5)
    for table in (together, alone):
        table.ready(*range(1, min(ready, size) + 1))
    for count, command, priority, bytes_each in script:
        fields = {"command": command, "priority": priority, "size": bytes_each}
        together.submit_together(count, **fields)
        for _ in range(count):
            alone.submit(**fields)
        assert together.failed() == alone.failed()
        assert (together.pool.waiting, together.pool.dispatcher.prefetched) == (
            alone.pool.waiting,
            alone.pool.dispatcher.prefetched,
        )
        assert together.pool.timers.keys() == alone.pool.timers.keys()
        assert {call for call, _ in together.assigned()} == {call for call, _ in alone.assigned()}


def test_calls_that_come_together_take_the_free_slots_first_and_are_shared_out_evenly(table: Any) -> None:
    t = table(size=2).ready(1, 2).knows()
    t.submit_together(8)
    assert t.assigned()[:2] == [(1, 1), (2, 2)]
    assert [t.worker(1).prefetched, t.worker(2).prefetched] == [3, 3]


def test_calls_that_end_together_are_counted_one_by_one_and_make_room_for_as_many(table: Any) -> None:
    t = table().ready(1).knows(seconds=0.000001)
    t.submit_together(PREFETCH_CALLS + 21)
    assert len(t.pool.queue) == 20
    t.cancel(2)
    t.finish_together(1, *range(1, 21), seconds=0.000001)
    assert (t.pool.finished_count, t.pool.failed_count, t.worker(1).served) == (19, 1, 20)
    assert (len(t.pool.queue), t.worker(1).prefetched, t.worker(1).growth.counts) == (0, PREFETCH_CALLS, {"run": 20})
    assert t.pool.dispatcher.run_times.status()[0].count == 8 + 20


def test_only_calls_of_one_command_are_handed_ahead_at_once_and_in_their_order(table: Any) -> None:
    t = table().ready(1).knows().knows("walk")
    t.submit(command="strange")
    for command in ("run", "run", "walk", "run", "strange", "run"):
        t.submit(command=command)
    t.finish(1, 1)
    assert t.assigned() == [(call, 1) for call in (1, 2, 3, 4, 5)]


def test_a_worker_that_dies_amid_calls_that_came_together_takes_only_what_it_had_begun(table: Any) -> None:
    t = table().ready(1).knows()
    t.submit_together(5)
    t.finish_together(1, 1, 2)
    t.die(1, begun={3})
    t.ready(2)
    assert t.failed() == {3: "worker_lost"}
    assert t.assigned()[5:] == [(4, 2), (5, 2)]


def test_calls_that_came_together_and_wait_fall_due_together(table: Any) -> None:
    t = table(queue_timeout=5.0).ready(1)
    t.submit_together(4)
    t.pass_time(5.0)
    assert t.failed() == dict.fromkeys((2, 3, 4), "queue_timeout")


# Calls that wait again


def test_a_revoked_call_waits_for_at_most_its_queue_timeout_again(table: Any) -> None:
    t = table(queue_timeout=5.0).ready(1).knows()
    t.submit()
    t.submit()
    t.pass_time(3.0)
    t.confirm_revoked(1, 2)
    t.pass_time(4.9)
    assert t.failed() == {}
    t.pass_time(0.2)
    assert t.failed() == {2: "queue_timeout"}
    assert not t.worker(1).waiting()


def test_a_call_that_one_of_its_workers_had_begun_may_have_run(table: Any) -> None:
    t = table(size=2, retry_budget=1.0, queue_timeout=1.0).ready(1, 2)
    t.submit(idempotent=True)
    t.die(1, begun={1})
    t.die(2, begun=set())
    t.pass_time(1.1)
    assert t.error(1).outcome == "unknown"


def test_every_call_that_its_worker_took_with_it_is_counted_as_failed(table: Any) -> None:
    t = table(size=2, retry_budget=0.0).ready(1, 2)
    t.submit()
    t.submit()
    t.die(1)
    t.die(2)
    assert (t.pool.failed_count, t.pool.finished_count) == (2, 0)
    assert not any(isinstance(key, int) for key in set(t.pool.timers.keys())), "no call has a timer any more"


def test_every_call_that_ended_badly_is_counted_as_failed(table: Any) -> None:
    t = table(size=1).ready(1)
    for _ in range(3):
        t.finish(1, t.submit(), ok=False)
    assert (t.pool.failed_count, t.pool.finished_count) == (3, 0)


def test_a_drained_worker_whose_last_call_is_revoked_is_stopped(table: Any) -> None:
    t = table().ready(1).knows()
    t.submit()
    t.submit()
    t.recycle(1)
    t.ready(2)
    t.pass_time(STALL_SECONDS)
    t.finish(1, 1)
    assert t.stopped() == []
    t.confirm_revoked(1, 2)
    assert (t.stopped(), t.assigned()[-1]) == ([1], (2, 2))


def test_all_calls_revoked_in_a_closing_pool_are_answered_and_forgotten(table: Any) -> None:
    t = table().ready(1).knows()
    for _ in range(4):
        t.submit()
    t.cancel(2)
    t.do(t.pool.close(t.now))
    t.pass_time(STALL_SECONDS)
    t.confirm_revoked(1, 2, 3, 4)
    assert t.failed() == {2: "cancelled", 3: "shutting_down", 4: "shutting_down"}
    assert {key for key in set(t.pool.timers.keys()) if isinstance(key, int)} == {1}


def test_what_is_due_together_is_done_together(table: Any) -> None:
    t = table(size=2, startup_timeout=1.0, startup_delay=0.0).ready(1).knows()
    t.pass_time(0.99)
    t.submit()
    t.submit()
    t.now += 0.2
    t.do(t.pool.tick(t.now))  # the start of worker 2 is late, and a prefetched call has waited too long
    assert (t.killed(), t.revoked(), t.started()) == ([2], [(1, [2])], [1, 2, 3])


def test_calls_that_a_worker_does_not_begin_go_to_another_one(table: Any) -> None:
    t = table(size=2).ready(1, 2)
    first, second = t.submit(), t.submit()
    t.pass_time(BEGIN_SECONDS)
    assert [(action.worker, [call.id for call in action.calls]) for action in t._of(Revoke)] == [
        ("p-0-1", [first]),
        ("p-0-2", [second]),
    ]
    t.confirm_revoked(2)  # the second one runs
    t.confirm_revoked(1, first)
    assert first in t.pool.queue, "the silent worker gets no calls, and the other one is busy"
    t.finish(2, second)
    assert t.pool.calls[first].worker == "p-0-2"
    assert t.pool.calls[first].attempts == 1
    third = t.submit()
    assert third in t.pool.queue
    t.do(t.pool.responsive("p-0-1", t.now))
    assert t.pool.calls[third].worker == "p-0-1"


def test_a_long_call_is_asked_for_once(table: Any) -> None:
    t = table(size=1).ready(1)
    t.submit(patience=1000)
    t.pass_time(BEGIN_SECONDS)
    t.confirm_revoked(1)
    t.pass_time(100.0)
    assert len(t._of(Revoke)) == 1
