"""The limits of calls by key and owner, without a clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit.pools.broker.caller import CallerIdentity, Limits, find_limit_problem
from snakepit.pools.broker.quotas import Quotas, queue_refusal


def test_calls_in_flight_are_bounded_and_an_end_makes_room() -> None:
    quotas, caller = Quotas(), CallerIdentity("snk_1", "ada", Limits(calls_in_flight=2))
    assert [quotas.admit(caller, 0.0) for _ in range(2)] == [None, None]
    error = quotas.admit(caller, 0.0)
    assert error is not None
    assert error.details == {"limit": "calls_in_flight", "value": 2, "of": "key"}
    assert error.http_status == 429
    assert error.retry_after > 0
    assert [(one.name, one.refused, one.over_in_flight) for one in quotas.status()] == [("snk_1", 1, 1), ("ada", 0, 0)]
    quotas.ended(caller)
    assert quotas.admit(caller, 0.0) is None


def test_keys_of_one_owner_share_its_limit_and_another_owner_has_its_own() -> None:
    quotas, limits = Quotas(), Limits(calls_in_flight=1)
    assert quotas.admit(CallerIdentity("snk_1", "ada", owner_limits=limits), 0.0) is None
    error = quotas.admit(CallerIdentity("snk_2", "ada", owner_limits=limits), 0.0)
    assert error is not None
    assert error.details["of"] == "owner"
    assert quotas.admit(CallerIdentity("snk_3", "bob", owner_limits=limits), 0.0) is None


def test_a_refused_call_uses_nothing_of_any_limit() -> None:
    quotas, caller = (
        Quotas(),
        CallerIdentity("snk_1", "ada", Limits(calls_per_second=1, calls_burst=5), Limits(calls_in_flight=1)),
    )
    assert quotas.admit(caller, 0.0) is None
    for _ in range(10):
        assert quotas.admit(caller, 0.0) is not None
    assert quotas.left(caller, 0.0) == (4, 1.0)


@given(st.floats(0.5, 50), st.integers(1, 20), st.lists(st.floats(0, 3), min_size=1, max_size=60))
def test_a_rate_admits_its_burst_and_then_its_rate(rate: float, burst: int, pauses: list[float]) -> None:
    quotas, caller = Quotas(), CallerIdentity("snk_1", "", Limits(calls_per_second=rate, calls_burst=burst))
    now, admitted = 0.0, 0
    for pause in pauses:
        now += pause
        error = quotas.admit(caller, now)
        admitted += error is None
        if error:
            assert quotas.admit(caller, now + error.retry_after + 0.001) is None
            now += error.retry_after + 0.001
            admitted += 1
    assert admitted <= burst + rate * now + 1


def test_a_key_may_fill_only_its_share_of_a_queue() -> None:
    caller = CallerIdentity("snk_1", "ada", key_share=0.25, owner_share=0.5)
    assert queue_refusal(caller, {("key", "snk_1"): 24}, 100, 1.0) is None
    assert queue_refusal(caller, {("key", "snk_1"): 3}, 8, 1.0) is None
    error = queue_refusal(caller, {("key", "snk_1"): 25}, 100, 1.0)
    assert error is not None
    assert error.details == {"limit": "calls_waiting", "value": 25, "of": "key"}
    error = queue_refusal(caller, {("owner", "ada"): 50}, 100, 1.0)
    assert error is not None
    assert error.details["of"] == "owner"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"calls": 1}, "'calls' is not a limit"),
        ({"streams": -1}, "streams: -1 is outside"),
        ({"streams": 1.5}, "streams: 1.5 is not a whole number"),
        ({"streams": True}, "streams: True is not a whole number"),
        ([], "is not a dict"),
    ],
)
def test_a_wrong_limit_is_refused_by_name(values: object, problem: str) -> None:
    assert problem in find_limit_problem(values)
