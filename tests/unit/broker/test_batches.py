"""Batches: which calls are in one, when it stops waiting, what happens to it when its worker dies."""

from __future__ import annotations

from typing import Any

import pytest

from snakepit.pools.broker import errors
from snakepit.pools.broker.pool.actions import Assign
from snakepit.pools.broker.pool.batches import SURE, TRY_EVERY, BatchRule, BatchTimes
from tests.unit.broker.conftest import Table

WAIT = 0.005


@pytest.fixture
def batching(table: Any) -> Any:
    def made(limit: int = 4, wait: float = WAIT, callers: int = 0, **fields: Any) -> Table:
        t: Table = table(**fields)
        t.pool.dispatcher.batches.set_rules({"run": BatchRule(limit, wait)})
        t.ready(*range(1, t.spec.size + 1))
        times = t.pool.dispatcher.batches.times["run"]
        times.crowd = float(callers)
        for _ in range(SURE):  # else some calls run alone, for the comparison
            times.record(1, 0.010)
        times.turns = 1
        return t

    return made


def groups(t: Table) -> list[list[int]]:
    return [[call.id for call in action.calls] for action in t.actions if isinstance(action, Assign)]


def test_calls_that_came_while_the_slot_was_taken_go_as_one_batch(batching: Any) -> None:
    t = batching()
    first = t.submit()
    others = [t.submit() for _ in range(3)]
    assert groups(t) == [[first]]
    t.finish(1, first)
    assert groups(t) == [[first], others]


def test_a_batch_has_no_more_calls_than_its_limit_and_takes_one_slot(batching: Any) -> None:
    t = batching(profile="thread", threads=2)
    calls = t.submit_together(9)
    assert groups(t) == [calls[:4], calls[4:8]]
    assert t.worker(1).load == 2


def test_a_single_caller_never_waits(batching: Any) -> None:
    t = batching()
    for _ in range(3):
        call = t.submit()
        assert groups(t)[-1] == [call]
        t.finish(1, call)


def test_a_call_waits_for_the_other_callers_and_no_longer_than_the_wait(batching: Any) -> None:
    t = batching(callers=4)
    call = t.submit()
    assert groups(t) == []
    t.pass_time(WAIT * 0.9)
    assert groups(t) == []
    t.pass_time(WAIT * 0.2)
    assert groups(t) == [[call]]


def test_a_batch_goes_as_soon_as_all_callers_wait(batching: Any) -> None:
    t = batching(callers=3)
    calls = [t.submit() for _ in range(3)]
    assert groups(t) == [calls]


def test_the_callers_of_the_last_batch_are_waited_for_again(batching: Any) -> None:
    t = batching(callers=2)
    pair = [t.submit(), t.submit()]
    assert groups(t) == [pair]
    t.finish_together(1, *pair)
    t.submit()
    assert groups(t) == [pair]


def test_callers_that_are_gone_are_not_waited_for_long(batching: Any) -> None:
    t = batching(callers=4)
    for _ in range(4):
        call = t.submit()
        t.pass_time(WAIT)
        t.finish(1, call)
    call = t.submit()
    assert groups(t)[-1] == [call]


def test_callers_that_come_together_are_waited_for_the_next_time(batching: Any) -> None:
    t = batching()
    first = t.submit()
    waiting = [t.submit() for _ in range(3)]
    t.finish(1, first)
    t.finish_together(1, *waiting)
    t.submit()
    assert groups(t) == [[first], waiting]


def test_a_full_batch_goes_at_once(batching: Any) -> None:
    t = batching(callers=64)
    calls = t.submit_together(4)
    assert groups(t) == [calls]


def test_a_call_near_its_deadline_waits_half_of_what_is_left(batching: Any) -> None:
    t = batching(callers=4)
    call = t.submit(patience=WAIT)
    t.pass_time(WAIT * 0.6)
    assert groups(t) == [[call]]


def test_calls_of_other_commands_pass_a_batch_that_waits(batching: Any) -> None:
    t = batching(callers=4)
    deferred = t.submit()
    other = t.submit(command="other")
    assert groups(t) == [[other]]
    t.pass_time(WAIT * 2)
    t.finish(1, other)
    assert groups(t) == [[other], [deferred]]


def test_a_cancelled_call_is_not_in_the_batch(batching: Any) -> None:
    t = batching(callers=3)
    first, second = t.submit(), t.submit()
    t.cancel(first)
    t.pass_time(WAIT * 2)
    assert groups(t) == [[second]]


def test_higher_priorities_are_in_the_next_batch_and_others_wait(batching: Any) -> None:
    t = batching(limit=2)
    busy = t.submit()
    low = [t.submit() for _ in range(2)]
    high = [t.submit(priority=5) for _ in range(2)]
    t.finish(1, busy)
    assert groups(t)[1:] == [high]
    t.finish_together(1, *high)
    assert groups(t)[2:] == [low]


def test_a_stream_runs_alone(batching: Any) -> None:
    t = batching(callers=4)
    stream = t.submit(streams=True)
    assert groups(t) == [[stream]]


def test_the_queue_is_bounded_beside_a_batch_that_waits(batching: Any) -> None:
    t = batching(limit=4, callers=64, queue_limit=2)
    calls = t.submit_together(9)
    assert groups(t) == [calls[:4]]
    assert [*t.failed().values()] == [errors.QueueFull.code] * 3


def test_a_batch_that_kills_its_worker_is_split_until_the_poisonous_call_is_alone(batching: Any) -> None:
    t = batching(limit=32, callers=32, death_budget=100)
    calls = t.submit_together(32, idempotent=True)
    poison, worker, sizes = calls[17], 1, []
    for _ in range(40):
        running = [call.id for call in t.worker(worker).assigned.values()]
        if not running:
            break
        sizes.append(len(running))
        if poison in running:
            t.die(worker, begun=set(running))
            t.pass_time(1.0)
            worker += 1
            t.ready(worker)
        else:
            t.finish_together(worker, *running)
    assert sizes[0] == 32
    assert max(sizes[1:]) <= 6
    assert t.failed() == {poison: errors.WorkerLost.code}
    assert t.pool.finished_count == 31


def test_a_batch_that_is_not_idempotent_fails_with_its_worker(batching: Any) -> None:
    t = batching(callers=3)
    calls = t.submit_together(3)
    t.die(1, begun=set(calls))
    assert sorted(t.failed()) == calls
    assert {t.error(call).outcome for call in calls} == {errors.UNKNOWN}


def test_a_batch_that_had_not_begun_runs_again_whole(batching: Any) -> None:
    t = batching(callers=3)
    calls = t.submit_together(3)
    t.die(1, begun=set())
    t.pass_time(1.0)
    t.ready(2)
    assert groups(t) == [calls, calls]


def test_a_call_past_its_deadline_does_not_end_the_others_of_its_batch(batching: Any) -> None:
    t = batching(callers=2, cancel_grace=1.0)
    late, other = t.submit(patience=2.0), t.submit(patience=20.0)
    t.pass_time(10.0)
    assert [*t.failed()] == [late]
    assert not t.killed()
    t.finish_together(1, late, other)
    assert t.pool.finished_count == 1


def test_a_batch_whose_calls_all_ended_early_is_killed_after_the_grace_of_the_last(batching: Any) -> None:
    t = batching(callers=2, cancel_grace=1.0)
    t.submit(patience=2.0), t.submit(patience=4.0)
    t.pass_time(4.9)
    assert not t.killed()
    t.pass_time(0.2)
    assert t.killed()


def test_batches_that_gain_nothing_are_not_used_and_tried_again(batching: Any) -> None:
    t = batching(callers=3)
    times = t.pool.dispatcher.batches.times["run"]
    for _ in range(SURE):
        times.record(4, 0.040)
    assert (times.gain, times.pays) == (1.0, False)
    call = t.submit()
    assert groups(t) == [[call]]
    waiting = [t.submit() for _ in range(3)]
    for _ in range(TRY_EVERY):
        times.record(1, 0.010)
    t.finish(1, call)
    assert groups(t)[1:] == [waiting]
    t.finish_together(1, *waiting)
    call = t.submit()
    more = [t.submit() for _ in range(2)]
    t.finish(1, call)
    assert groups(t)[2:] == [[call], more[:1]]  # the next try comes after as many calls


def test_the_gain_is_judged_once_enough_runs_of_both_kinds_are_known() -> None:
    for first, second in ((1, 4), (4, 1)):
        times = BatchTimes(BatchRule(4, 0.0))
        assert (times.gain, times.mean_size) == (None, 0.0)
        times.record(first, 0.010 * first)
        assert times.gain is None
        for _ in range(SURE):
            times.record(second, 0.010 * second)
        assert (times.gain, times.pays) == (1.0, True)  # of one kind there is only one run
        for _ in range(SURE - 1):
            times.record(first, 0.010 * first)
        assert not times.pays
        status = times.status("run")
        assert (status.batches, status.calls, times.mean_size) == (times.batches, 4 * times.batches, 4.0)


def test_the_first_calls_of_a_command_run_alone_now_and_then_for_the_comparison(table: Any) -> None:
    t = table()
    t.pool.dispatcher.batches.set_rules({"run": BatchRule(4, 0.0)})
    t.ready(1)
    for _ in range(12):
        t.submit_together(4)
        for _ in range(4):
            if running := [call.id for call in t.worker(1).assigned.values()]:
                seconds = 0.02
                t.finish_together(1, *running, seconds=seconds)
    (status,) = t.pool.dispatcher.batches.status()
    assert status.gain == pytest.approx(4.0, rel=0.1)
    assert str(status).startswith("batches of ")


def test_a_definition_without_the_batch_lets_what_waits_go(batching: Any) -> None:
    t = batching(callers=4)
    call = t.submit()
    t.pool.dispatcher.batches.set_rules({})
    t.sweep()
    assert groups(t) == [[call]]
