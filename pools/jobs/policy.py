"""What becomes of a job when an attempt ended badly. Pure: facts in, verdict out.

    not_started           waits for better times, and costs no attempt
    a request that can
    never succeed         failed
    a process died        tried again, unless `retry` says never, or safe and the command is not idempotent
    the command raised    tried again only with retry=always

>>> judge(Ending("worker_lost", "unknown"), Rules(retry="safe")).state
'lost'
>>> judge(Ending("worker_lost", "unknown", idempotent=True), Rules(retry="safe")).state
'queued'
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from snakepit.pools.broker.errors import FAILED as WORK_FAILED
from snakepit.pools.broker.errors import NOT_STARTED
from snakepit.pools.models.states import FAILED, LOST, QUARANTINED, QUEUED

# Waiting does not make these any better.
PERMANENT = frozenset(
    {
        "bad_request", "unauthenticated", "permission_denied", "command_unknown", "payload_too_large", "bad_arguments",
        "definition_invalid", "result_too_large", "cancelled",
    }
)  # fmt: skip
DIED = frozenset({"worker_lost", "broker_unreachable", "shutting_down", "lease_expired"})
LONGEST_PAUSE = 3600.0  # seconds between two attempts
LONGEST_WAIT = 60.0  # seconds until a call that a broker did not take is offered again


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended, when not with a result."""

    code: str
    outcome: str
    idempotent: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """What a job says about being tried again, and how often it was."""

    retry: str = "lost"
    attempts: int = 1
    failures: int = 0  # before this attempt
    deaths: int = 0  # before this attempt
    max_attempts: int = 3
    backoff: float = 2.0
    quarantine_after: int = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    state: str
    counts: bool = True  # against max_attempts
    death: bool = False  # the worker died of it
    pause: float = 0.0


def judge(ending: Ending, rules: Rules) -> Verdict:
    """Where a job goes after this ending."""
    if ending.code in PERMANENT:
        return Verdict(FAILED)
    if ending.outcome == NOT_STARTED and ending.code != "deadline_exceeded":
        pause = min(LONGEST_WAIT, max(1.0, rules.backoff) * 2.0 ** min(rules.attempts - 1, 10))
        return Verdict(QUEUED, counts=False, pause=jittered(pause))
    death = ending.code == "worker_lost"
    if death and rules.deaths + 1 >= rules.quarantine_after:
        return Verdict(QUARANTINED, death=True)
    given_up = LOST if ending.code in DIED else FAILED
    if not wants_retry(ending, rules.retry) or rules.failures + 1 >= rules.max_attempts:
        return Verdict(given_up, death=death)
    pause = min(LONGEST_PAUSE, rules.backoff * 2.0 ** min(rules.failures, 20))
    return Verdict(QUEUED, death=death, pause=jittered(pause))


def wants_retry(ending: Ending, retry: str) -> bool:
    if retry in ("never", "always"):
        return retry == "always"
    if ending.outcome == WORK_FAILED:  # it ran and said no; it would say so again
        return False
    return ending.idempotent or ending.outcome == NOT_STARTED or (retry == "lost" and ending.code in DIED)


def jittered(pause: float) -> float:
    """Within a fifth of the pause: jobs that failed together must not come back together."""
    return pause * random.uniform(0.8, 1.2)
