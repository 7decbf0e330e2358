"""One attempt of a job: what its call has reported so far, and the end that follows from an answer or an error.

An attempt does no I/O: `runner` makes the call, reads and writes the rows. Only the settings are read here.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Mapping
from typing import Any

from snakepit.pools import conf
from snakepit.pools.broker.errors import (
    NOT_STARTED,
    UNKNOWN,
    BrokerError,
    BrokerUnreachable,
    DeadlineExceeded,
    Expired,
    ShuttingDown,
)
from snakepit.pools.client import Answer, Log, Progress
from snakepit.pools.jobs import leases
from snakepit.pools.jobs.arguments import storable
from snakepit.pools.jobs.calls import JobCall
from snakepit.pools.jobs.ends import End
from snakepit.pools.jobs.policy import PERMANENT, AttemptFailure, RetryState, Transition, may_repeat, next_transition
from snakepit.pools.models import Job
from snakepit.pools.models.states import CANCELLED, FAILED, LOST, QUEUED
from snakepit.pools.models.strict_json import scrub, scrub_text

TICK = 1.0  # seconds between two reads of the rows: the delay until a cancellation takes effect
FLUSH = 0.25  # seconds that an entry waits, so that several are written together
PATIENCE = 10.0  # seconds in which one attempt repeats a call that no broker accepted

DOUBLE = struct.Struct("d")


class Stopping:
    """Whether this Celery worker shuts down, and since when.

    Both numbers are in memory that a prefork worker shares with its children: the worker gets the signal, and the
    children run the jobs. The monotonic clock is the same in all of them.
    """

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 2 * DOUBLE.size)

    @property
    def since(self) -> float | None:
        (since,) = DOUBLE.unpack_from(self._shared, 0)
        return float(since) or None

    def begin(self, grace: float) -> None:
        DOUBLE.pack_into(self._shared, DOUBLE.size, grace)  # first: a child that finds `since` reads it
        DOUBLE.pack_into(self._shared, 0, self.since or time.monotonic())

    @property
    def over(self) -> bool:
        (grace,) = DOUBLE.unpack_from(self._shared, DOUBLE.size)
        return (since := self.since) is not None and time.monotonic() - since >= grace


stopping = Stopping()


class Attempt:
    """The newest attempt of a job, from its claim to its end."""

    def __init__(self, job: Job, now: float, patience: float) -> None:
        self.job = job
        # The job and the number of the attempt, which is its fencing token.
        self.key: tuple[Any, int] = (job.pk, job.attempts)
        self.entries: list[tuple[str, Any]] = []
        self.progress: tuple[float, str] | None = None
        self.call: JobCall | None = None  # a call is sent, and its outcome is not known
        self.due = now  # when the next call is made
        self.flushed = now
        self.idempotent = False
        self._until = now + patience
        self._calls = 0
        self._began = False  # the command has reported something

    @property
    def may_repeat(self) -> bool:
        return may_repeat(self.job.retry, self.idempotent)

    def timeout(self) -> float | None:
        """The remaining time for the call. Raises if there is none."""
        deadline, expires = self.job.deadline, self.job.expires
        if expires is not None and not self.job.begun and expires.timestamp() <= time.time():
            raise Expired
        if deadline is None:
            return self.job.timeout
        # Wall clocks of two hosts are compared once, at the start. From then on the call's own timeout counts.
        left: float = deadline.timestamp() - time.time()
        if left <= 0:
            raise DeadlineExceeded("The job's deadline passed before its call started.", outcome=NOT_STARTED)
        return left if self.job.timeout is None else min(left, self.job.timeout)

    def note(self, event: Any) -> None:
        """Keep an event of the call until it is written."""
        self._began = True
        if isinstance(event, Progress):
            fraction = min(1.0, max(0.0, event.fraction))
            self.progress = (fraction, scrub_text(event.message, 500))
            self.entries.append(("progress", {"fraction": fraction, "message": self.progress[1]}))
        elif isinstance(event, Log):
            self.entries.append(("log", {"message": event.message}))
        else:
            self.entries.append(("chunk", storable(event.value)))

    def repeats_call(self, error: BrokerError, now: float) -> bool:
        """Whether the call is made again: no broker accepted it. A restart or a full queue costs no attempt."""
        passing = error.outcome == NOT_STARTED and error.code not in PERMANENT
        if not passing or isinstance(error, DeadlineExceeded | Expired) or now > self._until:
            return False
        self.due = now + min(2.0, 0.1 * 2**self._calls)
        self._calls += 1
        return True

    def may_be_silence(self, error: BrokerError) -> bool:
        """Whether the client perhaps gave the call up at its timeout because the broker is frozen."""
        return isinstance(error, DeadlineExceeded) and error.outcome != NOT_STARTED and not self._began

    def success(self, answer: Answer) -> End:
        return leases.success(self.job, answer.value, {"worker": answer.worker, "call": answer.call})

    def failure(self, error: BrokerError, *, silent: bool = False) -> End:
        """`silent`: the broker does not answer now. Then the command did not overrun."""
        job = self.job
        code = BrokerUnreachable.code if silent else error.code
        failure = AttemptFailure(code, error.outcome, self.idempotent, self._began, error.retry_after)
        state = RetryState(
            job.retry, job.attempts, job.failures, job.deaths, job.max_attempts, job.backoff,
            conf.current().jobs_quarantine_after, job.snoozes, conf.current().jobs_snoozes,
        )  # fmt: skip
        transition = next_transition(failure, state)
        if isinstance(error, DeadlineExceeded) and job.deadline and job.deadline.timestamp() <= time.time():
            transition = Transition(FAILED)
        facts: dict[str, Any] = {"outcome": code, "worker": str(error.details.get("worker", ""))[:100]}
        if transition.death:
            facts["evidence"] = {"message": scrub_text(error.message, 2000), **scrub(error.details)}
        return self._end(transition, facts, None if transition.snoozed else shape(error))

    def cancelled(self) -> End:
        return self._end(Transition(CANCELLED, counts=False), {"outcome": "cancelled"}, None)

    def requeued(self) -> End:
        """The end of an attempt whose Celery worker stops. A job that perhaps began and may not run twice is lost."""
        if self.call is None or self.may_repeat:
            queued = Transition(QUEUED, counts=False, began=self.call is not None)
            return self._end(queued, {"outcome": "requeued"}, None)
        error = ShuttingDown(
            f"The Celery worker stopped while the job ran, and retry={self.job.retry} allows no second run.",
            outcome=UNKNOWN,
        )
        return self._end(Transition(LOST), {"outcome": error.code}, shape(error))

    def _end(self, transition: Transition, facts: dict[str, Any], error: dict[str, Any] | None) -> End:
        return End(self.job, transition, error, facts={"error": error, **facts})


def shape(error: BrokerError) -> dict[str, Any]:
    """An error as the row stores it."""
    details: Mapping[str, Any] = scrub(error.details)
    return {
        "code": error.code,
        "message": scrub_text(error.message, 10_000),
        "outcome": error.outcome,
        "details": details,
    }
