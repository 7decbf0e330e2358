"""Calls handed ahead: to whom, which, how many, and what brings them back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snakepit.pools.broker.pool.dispatcher import STALL
from snakepit.pools.broker.pool.worker import AHEAD_CALLS, AHEAD_SECONDS
from tests.unit.broker.conftest import Table


def test_a_known_short_call_is_handed_to_a_busy_worker_and_counts_as_waiting(table: Any) -> None:
    t = table().ready(1).knows()
    for _ in range(3):
        t.submit()
    assert t.assigned() == [(1, 1), (2, 1), (3, 1)]
    worker = t.worker(1)
    assert (worker.load, worker.ahead, t.pool.waiting, t.pool.door.is_full()) == (1, 2, 2, True)
    t.finish(1, 1)
    assert (worker.load, worker.ahead, t.pool.waiting) == (1, 1, 1)


def test_a_free_slot_comes_before_any_busy_worker(table: Any) -> None:
    t = table(size=2).ready(1).knows()
    for _ in range(3):
        t.submit()
    t.ready(2)
    t.submit()
    assert t.assigned()[3:] == [(4, 2)]


def test_what_is_handed_ahead_is_shared_out_evenly(table: Any) -> None:
    t = table(size=2).ready(1, 2).knows()
    for _ in range(8):
        t.submit()
    assert [t.worker(1).ahead, t.worker(2).ahead] == [3, 3]


def test_nothing_is_handed_ahead_while_run_times_are_unknown(table: Any) -> None:
    t = table().ready(1)
    for _ in range(3):
        t.submit()
    assert t.assigned() == [(1, 1)]


@pytest.mark.parametrize(
    "fields", [{"command": "long"}, {"command": "strange"}, {"streams": True}], ids=["long", "unknown", "stream"]
)
def test_nothing_is_handed_ahead_behind_a_call_that_may_take_long(table: Any, fields: dict[str, Any]) -> None:
    t = table().ready(1).knows().knows("long", 0.5)
    t.submit(**fields)
    t.submit()
    assert t.assigned() == [(1, 1)]


@pytest.mark.parametrize(
    "fields",
    [{"command": "long"}, {"command": "strange"}, {"streams": True}, {"size": 100_000}],
    ids=["long", "unknown", "stream", "large"],
)
def test_only_short_and_small_calls_are_handed_ahead_and_who_is_behind_them_waits(
    table: Any, fields: dict[str, Any]
) -> None:
    t = table().ready(1).knows().knows("long", 0.5)
    t.submit()
    t.submit(**fields)
    t.submit()
    assert t.assigned() == [(1, 1)], "first come first served"


def test_the_wait_in_a_workers_hands_is_bounded_in_time_and_number(table: Any) -> None:
    t = table().ready(1).knows(seconds=0.0006)
    for _ in range(9):
        t.submit()
    assert sum(call.expected for call in t.worker(1).held.values()) <= AHEAD_SECONDS + 2 * 0.0006
    assert len(t.pool.line) > 0
    t = table().ready(1).knows(seconds=0.000001)
    for _ in range(AHEAD_CALLS + 9):
        t.submit()
    assert t.worker(1).ahead == AHEAD_CALLS


def test_one_long_run_makes_a_command_long_for_a_while(table: Any) -> None:
    t = table().ready(1).knows()
    t.submit()
    t.do(t.pool.finished(t.id(1), 1, t.now, seconds=5.0))
    t.submit()
    t.submit()
    assert len(t.assigned()) == 2


def test_calls_that_lie_behind_one_that_turns_out_long_are_taken_back_and_go_first(table: Any) -> None:
    t = table(size=2).ready(1).knows()
    for _ in range(3):
        t.submit()
    t.submit(command="strange")
    t.pass_time(STALL)
    assert t.taken_back() == [(1, [2, 3])]
    t.ready(2)
    t.give_back(1, 2, 3)
    assert t.assigned()[3:] == [(4, 2)], "the free slot did not wait for them"
    t.finish(2, 4)
    assert t.assigned()[4:] == [(2, 2), (3, 2)], "and not the stalled worker's hands again"
    assert t.pool.retried_count == 0
    assert {call.attempts for call in t.worker(2).held.values()} == {1}


def test_nothing_more_is_handed_ahead_until_the_worker_moves(table: Any) -> None:
    t = table().ready(1).knows()
    t.submit()
    t.submit()
    t.pass_time(STALL)
    t.submit()
    assert t.assigned() == [(1, 1), (2, 1)]
    t.give_back(1)
    assert t.assigned() == [(1, 1), (2, 1)]
    t.finish(1, 1)
    assert t.assigned() == [(1, 1), (2, 1), (3, 1)], "the worker moves"


def test_what_was_not_given_back_is_asked_for_again(table: Any) -> None:
    t = table().ready(1).knows()
    t.submit()
    t.submit()
    t.pass_time(STALL)
    t.give_back(1)
    t.pass_time(STALL)
    assert t.taken_back() == [(1, [2]), (1, [2])]


def test_who_moves_on_is_not_asked(table: Any) -> None:
    t = table().ready(1).knows()
    t.submit()
    t.submit()
    t.pass_time(STALL / 2)
    t.finish(1, 1)
    t.submit()
    t.pass_time(STALL * 0.9)
    assert t.taken_back() == []
    t.pass_time(STALL)
    assert t.taken_back() == [(1, [3])]


def test_unbegun_calls_of_a_dead_worker_go_elsewhere_without_a_word_and_without_budget(table: Any) -> None:
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


def test_an_answered_call_that_comes_back_is_forgotten(table: Any) -> None:
    t = table(cancel_grace=0.0).ready(1).knows()
    t.submit()
    t.submit()
    t.cancel(2)
    t.pass_time(STALL)
    assert (t.taken_back(), t.killed()) == ([(1, [2])], [])
    t.give_back(1, 2)
    assert (set(t.pool.calls), t.failed()) == ({1}, {2: "cancelled"})


def test_nobody_is_killed_for_a_cancelled_call_that_only_waits_in_his_hands(table: Any) -> None:
    t = table(cancel_grace=0.1).ready(1).knows()
    t.submit()
    t.submit()
    t.cancel(2)
    t.pass_time(0.5)
    assert t.killed() == []
    t.finish(1, 1)
    t.pass_time(0.5)
    assert t.killed() == [1], "now it runs, and does not stop"


def test_calls_that_come_back_to_a_closing_pool_are_told(table: Any) -> None:
    t = table().ready(1).knows()
    t.submit()
    t.submit()
    t.do(t.pool.close(t.now))
    t.pass_time(STALL)
    t.give_back(1, 2)
    assert t.failed() == {2: "shutting_down"}


def test_the_queue_limit_counts_what_lies_in_workers_hands(table: Any) -> None:
    t = table(queue_limit=2).ready(1).knows()
    for _ in range(4):
        t.submit()
    assert t.failed() == {4: "queue_full"}


def test_a_worker_near_its_last_call_is_handed_no_more_than_it_may_serve(table: Any) -> None:
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


batches = st.lists(
    st.tuples(st.integers(1, 12), st.sampled_from(["run", "run", "long"]), st.integers(-1, 1), st.integers(0, 3000)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(batches, st.integers(1, 3), st.integers(0, 3), st.integers(0, 30), st.integers(0, 20_000))
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
        assert (together.pool.waiting, together.pool.hands.waiting) == (alone.pool.waiting, alone.pool.hands.waiting)
        assert together.pool.timers.keys() == alone.pool.timers.keys()
        assert {call for call, _ in together.assigned()} == {call for call, _ in alone.assigned()}


def test_calls_that_come_together_take_the_free_slots_first_and_are_shared_out_evenly(table: Any) -> None:
    t = table(size=2).ready(1, 2).knows()
    t.submit_together(8)
    assert t.assigned()[:2] == [(1, 1), (2, 2)]
    assert [t.worker(1).ahead, t.worker(2).ahead] == [3, 3]


def test_calls_that_end_together_are_counted_one_by_one_and_make_room_for_as_many(table: Any) -> None:
    t = table().ready(1).knows(seconds=0.000001)
    t.submit_together(AHEAD_CALLS + 21)
    assert len(t.pool.line) == 20
    t.cancel(2)
    t.finish_together(1, *range(1, 21), seconds=0.000001)
    assert (t.pool.finished_count, t.pool.failed_count, t.worker(1).served) == (19, 1, 20)
    assert (len(t.pool.line), t.worker(1).ahead, t.worker(1).growth.counts) == (0, AHEAD_CALLS, {"run": 20})
    assert t.pool.hands.run_times.rows()[0]["count"] == 8 + 20


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
