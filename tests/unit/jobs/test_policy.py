"""What becomes of a job after a bad end, and the table of its moves: pure, without rows."""

from __future__ import annotations

import doctest

import pytest

from snakepit.pools.broker.errors import ERRORS
from snakepit.pools.jobs import arguments, policy, schema_check
from snakepit.pools.jobs.policy import AttemptFailure, RetryState, next_transition
from snakepit.pools.models import states
from snakepit.pools.models.states import STATES, TERMINAL, TRANSITIONS, UNSUCCESSFUL, IllegalMove, may_move, sources


@pytest.mark.parametrize("module", [states, policy, arguments, schema_check], ids=lambda module: module.__name__)
def test_the_examples_in_the_docstrings_are_true(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted
    assert not found.failed


def test_every_state_is_reached_and_only_a_success_is_for_ever() -> None:
    assert {new for allowed in TRANSITIONS.values() for new in allowed} == set(STATES)
    assert [state for state in STATES if not TRANSITIONS[state]] == ["succeeded"]
    assert all(TRANSITIONS[state] == {"queued", "blocked"} for state in UNSUCCESSFUL)
    assert all(may_move(old, new) == (old in sources(new)) for old in STATES for new in STATES)


def test_an_unknown_state_is_no_goal() -> None:
    with pytest.raises(IllegalMove, match="'done' is not a state"):
        sources("done")


# code, outcome, idempotent ─▶ the state for each of never, safe, lost, always
TABLE = [
    ("queue_full", "not_started", False, ("queued",) * 4),
    ("broker_unreachable", "not_started", False, ("queued",) * 4),
    ("worker_lost", "not_started", False, ("queued",) * 4),
    ("pool_paused", "not_started", False, ("queued",) * 4),
    ("command_unknown", "not_started", False, ("failed",) * 4),
    ("bad_arguments", "not_started", True, ("failed",) * 4),
    ("result_too_large", "failed", True, ("failed",) * 4),
    ("adapter_error", "failed", True, ("failed", "failed", "failed", "queued")),
    ("worker_lost", "unknown", False, ("lost", "lost", "queued", "queued")),
    ("worker_lost", "unknown", True, ("lost", "queued", "queued", "queued")),
    ("lease_expired", "unknown", False, ("lost", "lost", "queued", "queued")),
    ("deadline_exceeded", "not_started", False, ("queued",) * 4),
    ("deadline_exceeded", "unknown", False, ("failed", "failed", "failed", "queued")),
    ("deadline_exceeded", "unknown", True, ("failed", "queued", "queued", "queued")),
]


@pytest.mark.parametrize(("code", "outcome", "idempotent", "expected"), TABLE)
def test_a_failure_leads_to_the_expected_state(
    code: str, outcome: str, idempotent: bool, expected: tuple[str, ...]
) -> None:
    failure = AttemptFailure(code, outcome, idempotent)
    assert (
        tuple(next_transition(failure, RetryState(retry=retry)).state for retry in ("never", "safe", "lost", "always"))
        == expected
    )


@pytest.mark.parametrize("code", sorted(ERRORS))
@pytest.mark.parametrize("outcome", ["not_started", "failed", "unknown"])
def test_no_error_is_repeated_without_limit(code: str, outcome: str) -> None:
    transition = next_transition(
        AttemptFailure(code, outcome, True), RetryState(retry="always", failures=2, max_attempts=3)
    )
    assert transition.state in TERMINAL or (outcome == "not_started" and not transition.counts)


@pytest.mark.parametrize(("began", "counts"), [(False, False), (True, True)])
def test_a_lost_broker_costs_an_attempt_only_if_the_command_began(began: bool, counts: bool) -> None:
    failure = AttemptFailure("broker_unreachable", "unknown", began=began)
    transition = next_transition(failure, RetryState(retry="lost", max_attempts=9))
    assert (transition.state, transition.counts) == ("queued", counts)
    assert next_transition(failure, RetryState(retry="never")).state == "lost"
    assert next_transition(failure, RetryState(retry="safe")).state == "lost"
    again = AttemptFailure("broker_unreachable", "unknown", idempotent=True, began=began)
    assert next_transition(again, RetryState(retry="safe", max_attempts=9)).counts is counts


def test_the_second_worker_death_quarantines_but_not_one_before_the_start() -> None:
    assert (
        next_transition(AttemptFailure("worker_lost", "unknown"), RetryState(deaths=1, max_attempts=9)).state
        == "quarantined"
    )
    assert next_transition(AttemptFailure("worker_lost", "not_started"), RetryState(deaths=1)).state == "queued"
    assert next_transition(AttemptFailure("worker_lost", "unknown"), RetryState(deaths=1, quarantine_after=3)).death


def test_pauses_double_within_a_jitter_and_have_an_end() -> None:
    for failures, pause in ((0, 2), (1, 4), (2, 8), (40, policy.LONGEST_PAUSE)):
        state = RetryState(failures=failures, max_attempts=100)
        found = next_transition(AttemptFailure("worker_lost", "unknown"), state).pause
        assert 0.8 * pause <= found <= 1.2 * pause
    waits = next_transition(AttemptFailure("pool_paused", "not_started"), RetryState(attempts=50)).pause
    assert waits <= 1.2 * policy.LONGEST_WAIT


def test_a_command_may_put_its_job_off_up_to_a_number_of_times_and_it_costs_no_attempt() -> None:
    failure = AttemptFailure("snoozed", "failed", snooze=600.0)
    off = next_transition(failure, RetryState(retry="never", failures=2, max_attempts=3, snoozes=4, most_snoozes=5))
    assert (off.state, off.counts, off.pause, off.snoozed) == ("queued", False, 600.0, True)
    over = next_transition(failure, RetryState(retry="always", snoozes=5, most_snoozes=5))
    assert (over.state, over.snoozed) == ("failed", False)


@pytest.mark.parametrize("retry", ["never", "safe", "lost", "always"])
def test_an_expired_job_is_cancelled(retry: str) -> None:
    transition = next_transition(AttemptFailure("expired", "not_started"), RetryState(retry=retry))
    assert (transition.state, transition.counts, transition.began) == ("cancelled", False, False)


def test_only_an_attempt_that_started_its_command_begins_a_job() -> None:
    assert not next_transition(AttemptFailure("pool_paused", "not_started"), RetryState()).began
    assert next_transition(AttemptFailure("worker_lost", "unknown"), RetryState()).began
    assert next_transition(AttemptFailure("snoozed", "failed"), RetryState(most_snoozes=1)).began
