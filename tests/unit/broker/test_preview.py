"""The forecast says what the planner then does."""

from __future__ import annotations

from typing import Any

import pytest

from snakepit.pools.broker.pool.preview import forecast
from snakepit.pools.broker.status import RecyclePlan


def planned(t: Any, chosen: int = 0) -> RecyclePlan:
    workers = t.pool.worker_set.workers.values()
    learned = t.pool.worker_set.startup_times.expected
    return forecast(workers, t.pool.spec, t.now, t.id(chosen) if chosen else "", learned)


def turns(found: RecyclePlan) -> list[int]:
    return [worker.in_turn for worker in found.workers]


def test_every_serving_worker_has_a_turn_oldest_first(table: Any) -> None:
    t = table(size=3).ready(3, 1, 2)
    found = planned(t)
    assert [worker.id for worker in found.workers] == ["p-0-1", "p-0-2", "p-0-3"]
    assert turns(found) == [1, 2, 3]
    assert {worker.effect for worker in found.workers} == {"is replaced in its turn"}
    assert {worker.reason for worker in found.workers} == {""}


@pytest.mark.parametrize(("surge", "missing"), [(1, 0), (2, 0), (0, 1), (1, 1), (0, 3), (3, 2)])
def test_the_order_and_the_number_at_once_are_those_of_the_planner(table: Any, surge: int, missing: int) -> None:
    t = table(size=4, max_surge=surge, max_unavailable=missing).ready(1, 2, 3, 4)
    found = planned(t)
    foreseen = [worker.id for worker in sorted(found.workers, key=lambda worker: worker.in_turn)]
    t.recycle()
    assert found.at_once == len(t.started()) - 4, "the successors that are started at once"
    for worker in range(5, 9):
        for gone in [number for number, state in t.states().items() if state == "stopping"]:
            t.leave(gone)
        if worker in t.started():
            t.ready(worker)
    assert [event.worker for event in t.told("worker.draining")] == foreseen[: len(t.told("worker.draining"))]
    assert len(t.told("worker.draining")) >= 4 - missing


def test_only_the_chosen_worker_and_those_that_are_marked_have_a_turn(table: Any) -> None:
    t = table(size=3).ready(1, 2, 3)
    assert turns(planned(t, 2)) == [0, 1, 0]
    t.recycle(3)  # it waits for its successor
    found = planned(t, 2)
    assert turns(found) == [0, 1, 2, 0]
    assert [worker.effect for worker in found.workers] == [
        "stays", "is replaced in its turn", "is marked already, and is replaced in its turn", "stays",
    ]  # fmt: skip
    assert (found.workers[2].reason, found.workers[2].detail) == ("operator", "asked")


def test_a_starting_or_leaving_worker_has_no_turn(table: Any) -> None:
    t = table(size=2, max_unavailable=1).ready(1)
    call = t.submit()
    t.ready(2)
    t.recycle(1)
    found = {worker.id: worker for worker in planned(t).workers}
    assert (found["p-0-1"].state, found["p-0-1"].in_turn, found["p-0-1"].load) == ("draining", 0, 1)
    assert found["p-0-1"].effect == "drains: it finishes its calls"
    assert (found["p-0-3"].state, found["p-0-3"].in_turn) == ("starting", 0)
    assert found["p-0-3"].effect == "is ended and started anew: it has no calls yet"
    assert {worker.id: worker.effect for worker in planned(t, 2).workers}["p-0-3"] == "stays"
    t.finish(1, call)
    assert {worker.id: worker.effect for worker in planned(t).workers}["p-0-1"] == "stops: its process ends"


def test_age_and_count_are_counted_down(table: Any) -> None:
    t = table(size=1, ttl=100.0, max_requests=3, jitter=0.0, min_lifetime=20.0)
    assert (planned(t).workers[0].seconds_until_ttl, planned(t).workers[0].age) == (None, 0.0)
    t.ready(1)
    t.pass_time(30.0)
    t.finish(1, t.submit())
    (worker,) = planned(t).workers
    assert (worker.age, worker.seconds_until_ttl, worker.served, worker.calls_until_max) == (30.0, 70.0, 1, 2)
    assert worker.reason == ""
    t.pass_time(75.0)
    (worker,) = planned(t).workers
    assert (worker.seconds_until_ttl, worker.reason, worker.detail) == (0.0, "ttl", "100 s")
    assert t.worker(1).reason == "", "looking has marked the worker"


def test_the_minimum_life_is_kept_in_the_countdown(table: Any) -> None:
    t = table(size=1, ttl=5.0, jitter=0.0, min_lifetime=20.0).ready(1)
    t.pass_time(8.0)
    assert planned(t).workers[0].seconds_until_ttl == 12.0


def test_without_limits_nothing_is_counted_down(table: Any) -> None:
    (worker,) = planned(table().ready(1)).workers
    assert (worker.seconds_until_ttl, worker.calls_until_max) == (None, None)


def test_the_forecast_names_the_moment_at_which_the_planner_starts_the_successor(table: Any) -> None:
    t = table(size=1, ttl=100.0, jitter=0.0)
    t.pass_time(4.0)
    t.ready(1)  # a start takes 4 s
    t.sweep(horizon=3600.0)
    t.pass_time(10.0)
    (worker,) = planned(t).workers
    assert (worker.seconds_until_ttl, worker.seconds_until_successor, planned(t).load_seconds) == (90.0, 86.0, 4.0)
    t.pass_time(worker.seconds_until_successor - 0.5)
    assert t.started() == [1]
    t.pass_time(0.5)
    assert t.started() == [1, 2]
    (worker, _) = planned(t).workers
    assert (worker.seconds_until_ttl, worker.seconds_until_successor, worker.reason) == (4.0, 0.0, "")
    t.pass_time(3.0)
    t.ready(2)
    assert t.stopped() == [], "it is not due"
    until = planned(t).workers[0].seconds_until_ttl
    assert until == 1.0
    t.pass_time(until)
    assert t.stopped() == [1]


def test_a_marked_worker_has_no_successor_to_wait_for(table: Any) -> None:
    t = table(size=1, ttl=100.0, jitter=0.0).ready(1)
    t.recycle()
    assert planned(t).workers[0].seconds_until_successor is None
