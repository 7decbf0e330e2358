"""The dashboard's memory: statuses folded into facts, points and events."""

from __future__ import annotations

from typing import Any

import pytest

from snakepit.pools.broker.stats.histogram import Histogram, quantile
from snakepit.pools.broker.status import BrokerStatus, PoolHistograms, PoolStatus, RecordedEvent
from snakepit.pools.dashboard.alerts import StoredState
from snakepit.pools.dashboard.memory import MemoryHistory
from snakepit.pools.dashboard.points import RING, SPAN, SPARK_SLOTS, as_columns
from snakepit.pools.dashboard.state import StateStore
from tests import statuses
from tests.statuses import event


def pool(name: str = "p", **more: Any) -> PoolStatus:
    return statuses.pool(name, slots=2, free=1, memory_mb=5.0, **more)


def status(*pools: PoolStatus, events: tuple[RecordedEvent, ...] = (), pid: int = 1, **more: Any) -> BrokerStatus:
    return statuses.status(pools, [statuses.worker("p-1", state="starting")], events=events, pid=pid, **more)


def test_a_rate_is_measured_over_the_last_seconds() -> None:
    store = StateStore()
    for second in range(10):
        store.fold(status(pool(finished=100 * second, failed=second)), float(second))
    point = store.points("p")[-1]
    assert (point.ok_rate, point.failed_rate, point.starting, point.taken) == (100.0, 1.0, 1, 1)


def test_a_first_look_and_a_counter_that_fell_are_no_rate() -> None:
    store = StateStore()
    store.fold(status(pool(finished=500)), 1.0)
    store.fold(status(pool(finished=3)), 2.0)
    assert [point.ok_rate for point in store.points("p")] == [None, 0.0]


def test_percentiles_are_of_the_calls_of_the_last_seconds() -> None:
    store = StateStore()
    slow, quick = PoolHistograms({60: 100}), PoolHistograms({60: 100, 20: 50}, {10: 5})
    store.fold(status(pool(), histograms={"p": slow}), 0.5)
    assert store.points("p")[-1].p50 is None  # what came before the first look is of no known time
    store.fold(status(pool(), histograms={"p": quick}), 1.0)
    point = store.points("p")[-1]
    assert point.p99 is not None
    assert point.p99 < 0.001
    assert point.wait_p95 is not None
    store.fold(status(pool(), histograms={"p": quick}), 2.0 + SPAN)
    assert store.points("p")[-1].p50 is None


def test_the_memory_of_a_pool_is_bounded_and_ends_with_it() -> None:
    store = StateStore()
    for number in range(RING + 50):
        store.fold(status(pool()), number / 2)
    assert len(store.points("p")) == RING
    assert [point.at for point in store.points("p", after=(RING + 48) / 2)] == [(RING + 49) / 2]
    store.fold(status(), 1000.0)
    assert store.points("p") == []


def test_events_are_kept_once_and_the_newest_first() -> None:
    store = StateStore()
    store.fold(
        status(
            events=(
                event(1),
                event(2),
            )
        ),
        1.0,
    )
    assert store.last_event() == 0  # only a broker that answered twice is asked for the rest alone
    store.fold(
        status(
            events=(
                event(1),
                event(2),
                event(3),
            )
        ),
        2.0,
    )
    assert [one.seq for one in store.state.events] == [3, 2, 1]
    assert store.last_event() == 3


def test_another_broker_has_other_events_and_other_counters() -> None:
    store = StateStore()
    for at in (1.0, 2.0):
        store.fold(status(pool(finished=50), events=(event(7),)), at)
    store.fold(status(pool(), pid=2, events=(event(1),)), 3.0)
    assert [one.seq for one in store.state.events] == [1]
    assert len(store.points("p")) == 1
    assert store.last_event() == 0


def test_what_was_known_stays_when_the_broker_is_away() -> None:
    store = StateStore()
    store.fold(status(pool()), 1.0)
    store.miss("gone", 2.0)
    state = store.miss("still gone", 2.0)
    assert (state.known, state.seen_at, state.trouble, state.trouble_since) == (True, 1.0, "still gone", 2.0)
    assert not store.fold(status(pool()), 4.0).trouble


def test_all_pools_together_add_up_and_the_worst_wait_counts() -> None:
    store = StateStore()
    for second in (1.0, 2.0):
        calls = int(second) * 10
        one, other = pool(finished=calls, oldest_wait=1.0), pool("q", finished=calls, oldest_wait=3.0)
        store.fold(status(one, other), second)
    points = store.points("")
    assert [point.ok_rate for point in points] == [None, 20.0]
    assert [point.oldest_wait for point in points] == [3.0, 3.0]
    assert [point.p95 for point in points] == [None, None]
    assert store.state.total == points[-1]


def test_percentiles_of_all_pools_are_of_all_their_calls() -> None:
    quick, slow = Histogram(), Histogram()
    quick.extend([0.001] * 990)
    slow.extend([2.4] * 10)
    store = StateStore()
    store.fold(status(pool(), pool("q")), 1.0)
    found = {"p": PoolHistograms(quick.sparse()), "q": PoolHistograms(slow.sparse())}
    total = store.fold(status(pool(), pool("q"), histograms=found), 2.0).total
    assert total is not None
    assert total.p50 == total.p95 == pytest.approx(quantile(quick.sparse(), 0.5), rel=0.01)
    assert store.state.rates["q"].p50 == pytest.approx(quantile(slow.sparse(), 0.5), rel=0.01)


def test_a_sparkline_is_of_the_last_minute_and_has_gaps() -> None:
    store = StateStore()
    for second in range(60):
        store.fold(status(pool(finished=10 * second)), float(second))
    assert [value for value in store.state.sparks["p"] if value is not None][-1] == 10.0
    later = 1800.0
    for second in range(10):
        store.fold(status(pool(finished=600)), later + second)
    spark = store.state.sparks["p"]
    assert len(spark) == SPARK_SLOTS
    assert spark.count(None) > SPARK_SLOTS / 2, "nothing was measured in most of the last minute"
    assert {value for value in spark if value is not None} == {0.0}


def test_a_line_breaks_where_nobody_looked() -> None:
    store = StateStore()
    for second in (1, 2, 3, 60, 61, 62):
        store.fold(status(pool(finished=10 * second)), float(second))
    columns = as_columns(store.points(""))
    assert columns["at"] == [1, 2, 3, 4, 60, 61, 62]
    assert columns["ready"] == [1, 1, 1, None, 1, 1, 1]
    assert columns["ok_rate"] == [None, 10.0, 10.0, None, None, 10.0, 10.0], "a first look is no rate"


def test_a_clock_that_is_set_back_stops_no_rate_and_no_chart() -> None:
    store = StateStore()
    for second in range(10):
        store.fold(status(pool(finished=10 * second)), 7200.0 + second)
    for second in range(10, 20):
        store.fold(status(pool(finished=10 * second)), float(second))
    for name in ("p", ""):
        assert [point.at for point in store.points(name)] == [float(second) for second in range(10, 20)]
        assert [point.ok_rate for point in store.points(name)][1:] == [10.0] * 9
    memory = MemoryHistory()
    for moment in (7200.0, 10.0, 12.0, 15.0):
        memory.add("p-1", moment, moment)
    assert memory.values("p-1") == [7200.0, 10.0, 15.0]


def test_two_looks_in_the_wrong_order_lose_no_point() -> None:
    store = StateStore()
    for second in (1.0, 2.0, 1.9, 3.0):
        store.fold(status(pool(finished=int(10 * second))), second)
    assert len(store.points("p")) == len(store.points("")) == 4


def test_alerts_of_the_database_are_of_now_while_the_broker_is_away() -> None:
    store = StateStore()
    store.fold(status(pool()), at=100.0)
    store.note(StoredState(quarantined=1, quarantined_since=150.0))
    assert [one.key for one in store.miss("it is away", 110.0, at=160.0).alerts] == ["quarantined"]
    store.note(StoredState())
    assert store.miss("it is away", 110.0, at=170.0).alerts == ()
    never = StateStore()
    never.note(StoredState(overdue=2, overdue_since=50.0))
    assert [one.key for one in never.miss("it is away", 110.0, at=160.0).alerts] == ["jobs:overdue"]
