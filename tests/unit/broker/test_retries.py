"""Whether a call whose worker died runs again, and what that costs the pool's budget."""

from __future__ import annotations

import pytest

from snakepit.pools.broker.pool.calls import Call, CallBatch
from snakepit.pools.broker.pool.retries import MAX_ATTEMPTS, RetryRule

STORED = 10  # retries that a new pool has, before its calls earn more


def call(number: int = 1, *, attempts: int = 1, idempotent: bool = True) -> Call:
    return Call(number, "echo", arrived=0.0, deadline=60.0, attempts=attempts, idempotent=idempotent)


def batch(size: int, *, attempts: int = 1) -> list[Call]:
    calls = [call(number, attempts=attempts) for number in range(size)]
    together = CallBatch(size, {one.id: one for one in calls})
    for one in calls:
        one.batch = together
    return calls


def left(rule: RetryRule) -> int:
    """How many retries of single calls the budget still pays."""
    return sum(rule.grant(call(), begun=False, accepted=0) for _ in range(STORED + 1))


@pytest.mark.parametrize(
    ("begun", "idempotent", "attempts", "again"),
    [
        (False, False, 1, True),
        (True, False, 1, False),
        (True, True, 1, True),
        (True, True, MAX_ATTEMPTS - 1, True),
        (True, True, MAX_ATTEMPTS, False),
        (False, False, MAX_ATTEMPTS, False),
    ],
)
def test_a_call_runs_again_if_it_may_and_has_attempts_left(
    begun: bool, idempotent: bool, attempts: int, again: bool
) -> None:
    rule = RetryRule(0.1)
    one = call(attempts=attempts, idempotent=idempotent)
    assert rule.grant(one, begun=begun, accepted=0) is again
    assert left(rule) == STORED - again


def test_a_batch_that_killed_its_worker_runs_again_in_smaller_ones_at_one_retry_each() -> None:
    rule, calls = RetryRule(0.1), batch(9)
    assert all(rule.grant(one, begun=True, accepted=0) for one in calls)
    assert {one.batch_limit for one in calls} == {3}
    assert {one.batch for one in calls} == {None}
    assert left(rule) == STORED - 3


def test_the_last_try_of_a_batch_runs_each_call_alone() -> None:
    calls = batch(3, attempts=2)
    assert all(RetryRule(0.1).grant(one, begun=True, accepted=0) for one in calls)
    assert {one.batch_limit for one in calls} == {1}


def test_a_batch_that_had_not_begun_runs_again_as_it_was_at_one_retry() -> None:
    rule, calls = RetryRule(0.1), batch(9)
    assert all(rule.grant(one, begun=False, accepted=0) for one in calls)
    assert {one.batch_limit for one in calls} == {0}
    assert left(rule) == STORED - 1


def test_without_a_budget_nothing_runs_again() -> None:
    assert not RetryRule(0.0).grant(call(), begun=False, accepted=1000)
    assert not any(RetryRule(0.0).grant(one, begun=True, accepted=1000) for one in batch(3))


def test_calls_earn_retries() -> None:
    rule = RetryRule(0.5)
    assert left(rule) == STORED
    assert [rule.grant(call(), begun=False, accepted=4) for _ in range(3)] == [True, True, False]
