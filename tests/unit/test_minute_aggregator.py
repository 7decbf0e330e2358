"""The minutes of the charts: every call is in exactly one, from the first second of a broker to its last."""

from __future__ import annotations

from typing import Any

from snakepit.pools.adapters.records.minute_aggregator import MinuteAggregator, MinuteTotals
from snakepit.pools.broker.status import BrokerStatus
from tests.statuses import pool, status

NOON = 1_800_000_000.0 // 60 * 60


def at(**counted: int) -> BrokerStatus:
    return status([pool("p", **counted)])


def summed(minutes: list[MinuteTotals], name: str) -> Any:
    return sum(getattr(one, name) for one in minutes)


def test_calls_before_the_first_status_count() -> None:
    minutes = MinuteAggregator()
    found = minutes.add(at(finished=3, failed=1), NOON + 30)
    found += minutes.add(at(finished=10, failed=2), NOON + 61)
    assert [(one.at, one.ok, one.failed) for one in found] == [(NOON + 30, 10, 2)]


def test_a_broker_that_stops_ends_its_minute() -> None:
    minutes = MinuteAggregator()
    found = minutes.add(at(finished=3), NOON)
    found += minutes.add(at(finished=5), NOON + 61)
    found += minutes.add(at(finished=9, refused=4), NOON + 70)
    found += minutes.end()
    assert [(one.at, one.ok, one.refused) for one in found] == [(NOON, 5, 0), (NOON + 60, 4, 4)]
    assert minutes.end() == []


def test_a_pool_that_is_removed_keeps_the_calls_of_its_last_minute() -> None:
    minutes = MinuteAggregator()
    minutes.add(at(finished=7, died=1), NOON)
    found = minutes.add(status([]), NOON + 5)
    assert (summed(found, "ok"), summed(found, "died")) == (7, 1)


def test_the_sum_of_the_minutes_is_what_was_done_whatever_the_moments() -> None:
    minutes, found = MinuteAggregator(), list[MinuteTotals]()
    for calls in range(1, 200):
        found += minutes.add(at(finished=calls, failed=calls // 3), NOON + 7.3 * calls)
    found += minutes.end()
    assert (summed(found, "ok"), summed(found, "failed")) == (199, 66)


def test_a_clock_that_is_set_back_ends_the_minute_and_loses_no_call() -> None:
    minutes, found = MinuteAggregator(), list[MinuteTotals]()
    moments = [NOON, NOON + 30, NOON + 61, NOON - 7200.0, NOON - 7190, NOON - 7139, NOON + 1, NOON + 62, NOON + 123]
    for calls, moment in enumerate(moments, 1):
        found += minutes.add(at(finished=10 * calls), moment)
    found += minutes.end()
    assert max(one.ok for one in found) <= 30, "no minute has the calls of hours"
    assert summed(found, "ok") == 90
    assert len({one.at for one in found}) == len(found), "the database takes one row for a moment"


def test_a_clock_that_is_corrected_by_a_moment_ends_no_minute() -> None:
    minutes = MinuteAggregator()
    minutes.add(at(finished=1), NOON)
    found = minutes.add(at(finished=2), NOON + 60.1) + minutes.add(at(finished=3), NOON + 59.9)
    found += minutes.add(at(finished=4), NOON + 60.4) + minutes.end()
    assert [(one.at, one.ok) for one in found] == [(NOON, 2), (NOON + 60, 2)]
