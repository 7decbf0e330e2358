"""Decide a job's next state after a failed attempt. Pure: no I/O.

    not_started              queued again, and costs no attempt
    the broker was lost      the same, if the job may be repeated and nothing shows that its command began
    a permanent error        failed
    a process died           queued again, except with retry=never, or retry=safe and a command that is not idempotent
    the command raised       queued again only with retry=always
    the command put it off   queued again, and costs no attempt, up to a number of times

>>> next_transition(AttemptFailure("worker_lost", "unknown"), RetryState(retry="safe")).state
'lost'
>>> next_transition(AttemptFailure("worker_lost", "unknown", idempotent=True), RetryState(retry="safe")).state
'queued'
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from snakepit.pools.broker.errors import FAILED as WORK_FAILED
from snakepit.pools.broker.errors import NOT_STARTED, UNKNOWN
from snakepit.pools.models.states import CANCELLED, FAILED, LOST, QUARANTINED, QUEUED

# Errors that a repetition cannot fix.
PERMANENT = frozenset(
    {
        "bad_request", "unauthenticated", "permission_denied", "command_unknown", "payload_too_large", "bad_arguments",
        "definition_invalid", "result_too_large", "cancelled",
    }
)  # fmt: skip
DIED = frozenset({"worker_lost", "broker_unreachable", "shutting_down", "lease_expired"})
LONGEST_PAUSE = 3600.0  # seconds between two attempts
LONGEST_WAIT = 60.0  # seconds until a job whose call no broker accepted is tried again


@dataclass(frozen=True, slots=True)
class AttemptFailure:
    """The error of a failed attempt."""

    code: str
    outcome: str
    idempotent: bool = False
    began: bool = True  # False: the command reported nothing, and perhaps never started
    snooze: float = 0.0  # seconds for which the command put its job off


@dataclass(frozen=True, slots=True)
class RetryState:
    """A job's retry options, and its counts of attempts, failures and worker deaths."""

    retry: str = "lost"
    attempts: int = 1
    failures: int = 0  # before this attempt
    deaths: int = 0  # before this attempt
    max_attempts: int = 3
    backoff: float = 2.0
    quarantine_after: int = 2
    snoozes: int = 0  # before this attempt
    most_snoozes: int = 0


@dataclass(frozen=True, slots=True)
class Transition:
    state: str
    counts: bool = True  # against max_attempts
    death: bool = False  # the worker died of it
    pause: float = 0.0
    began: bool = True  # False: no command of this attempt has run
    snoozed: bool = False  # the command put its job off


def next_transition(failure: AttemptFailure, state: RetryState) -> Transition:
    """The job's next state after this failure."""
    if failure.code == "expired":
        return Transition(CANCELLED, counts=False, began=False)
    if failure.code == "snoozed" and state.snoozes < state.most_snoozes:
        return Transition(QUEUED, counts=False, pause=failure.snooze, snoozed=True)
    if failure.code == "snoozed":
        return Transition(FAILED)
    if failure.code in PERMANENT:
        return Transition(FAILED)
    unanswered = failure.code == "broker_unreachable" and not failure.began and wants_retry(failure, state.retry)
    if failure.outcome == NOT_STARTED or unanswered:
        pause = min(LONGEST_WAIT, max(1.0, state.backoff) * 2.0 ** min(state.attempts - 1, 10))
        return Transition(QUEUED, counts=False, pause=jittered(pause), began=failure.outcome != NOT_STARTED)
    death = failure.code == "worker_lost"
    if death and state.deaths + 1 >= state.quarantine_after:
        return Transition(QUARANTINED, death=True)
    given_up = LOST if failure.code in DIED else FAILED
    if not wants_retry(failure, state.retry) or state.failures + 1 >= state.max_attempts:
        return Transition(given_up, death=death)
    pause = min(LONGEST_PAUSE, state.backoff * 2.0 ** min(state.failures, 20))
    return Transition(QUEUED, death=death, pause=jittered(pause))


def may_repeat(retry: str, idempotent: bool) -> bool:
    """Whether a call that perhaps began, and whose process is gone, may be made again."""
    return wants_retry(AttemptFailure("broker_unreachable", UNKNOWN, idempotent), retry)


def wants_retry(failure: AttemptFailure, retry: str) -> bool:
    if retry in ("never", "always"):
        return retry == "always"
    if failure.outcome == WORK_FAILED:  # the command itself raised, and would raise again
        return False
    return failure.idempotent or failure.outcome == NOT_STARTED or (retry == "lost" and failure.code in DIED)


def jittered(pause: float) -> float:
    """Add up to 20 % jitter, so that jobs that failed together do not return together."""
    return pause * random.uniform(0.8, 1.2)
