"""One attempt of a job, inside a Celery task: claim, call, store output, write the end.

an event loop: client.aevents() ─▶ _CallReader ─▶ queue ─▶ Celery's thread: Attempt ─▶ leases.* (the database)
                                                                             └─ every second: lease, cancel, shutdown

Call and database run in different threads, so neither blocks the other. Cancelling the reader ends the call.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import mmap
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Mapping
from typing import Any

from django.db import Error

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
from snakepit.pools.client import Answer, Client, Log, Progress, connect
from snakepit.pools.jobs import commands, eager, leases, messages
from snakepit.pools.jobs.arguments import restore, storable
from snakepit.pools.jobs.policy import PERMANENT, AttemptFailure, RetryState, Transition, may_repeat, next_transition
from snakepit.pools.jobs.signals import (
    emit,
    emit_finished,
    emit_requeued,
    job_finished,
    job_progressed,
    job_requeued,
    job_started,
)
from snakepit.pools.models import Job
from snakepit.pools.models.states import CANCELLED, FAILED, LOST, QUEUED
from snakepit.pools.models.strict_json import scrub, scrub_text

logger = logging.getLogger("snakepit.jobs")
TICK = 1.0  # seconds between two reads of the row: the delay until a cancellation takes effect
FLUSH = 0.25  # seconds that an entry waits, so that several are written together
BUFFERED_EVENTS = 64  # events that may wait for the database before the command has to wait
PATIENCE = 10.0  # seconds in which one attempt repeats a call that no broker accepted
DB_PATIENCE = 60.0  # seconds that the end of an attempt waits for the database; then the lease expires

DOUBLE = struct.Struct("d")

_claims = itertools.count(1)


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


def run(job_id: str, patience: float | None = None) -> str:
    """Run a job if it is still queued. Returns its state afterwards, or "" if another attempt has it."""
    claimant = f"{socket.gethostname()}:{os.getpid()}:{next(_claims)}"
    job = leases.patiently(lambda: leases.claim(job_id, claimant, conf.node_name()), DB_PATIENCE)
    if job is None:
        return ""
    emit(job_started, job)
    if patience is None:
        patience = min(PATIENCE, eager.PATIENCE) if eager.is_running(str(job_id)) else PATIENCE
    return Attempt(job, connect(), patience).run()


_loops: dict[int, asyncio.AbstractEventLoop] = {}
_lock = threading.Lock()


def _event_loop() -> asyncio.AbstractEventLoop:
    """The event loop of this process for all readers. Keyed by process id, because a fork has no running loop."""
    with _lock:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="snakepit-jobs", daemon=True).start()
        return loop


class _CallReader:
    """Runs the call on an event loop and puts its events into a queue."""

    def __init__(self, client: Client, job: Job, timeout: float | None) -> None:
        self.items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        call = self._run(client, job, timeout)
        self._future = asyncio.run_coroutine_threadsafe(call, _event_loop())

    async def _run(self, client: Client, job: Job, timeout: float | None) -> None:
        arguments = restore(job.arguments)
        try:
            events = client.aevents(job.pool, job.command, arguments, timeout=timeout, priority=job.priority)
            async with events:
                async for event in events:
                    self.items.put(event)
                    if self.items.qsize() > BUFFERED_EVENTS:
                        await self._room()
        except BrokerError as error:
            self.items.put(error)
        except Exception as error:  # passed to the attempt, which would wait forever otherwise
            logger.exception("the call of job %s failed in the client", job.pk)
            self.items.put(BrokerError(f"{type(error).__name__}: {error}"))

    async def _room(self) -> None:
        """Wait until the database has caught up. Meanwhile the stream has no credit, and the command waits."""
        while self.items.qsize() > BUFFERED_EVENTS // 2:  # noqa: ASYNC110  (the queue's other side is a thread)
            await asyncio.sleep(FLUSH / 10)

    def take(self, timeout: float) -> Any:
        """The next event, a BrokerError, or None after the timeout."""
        try:
            return self.items.get(timeout=timeout)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Cancel a call that still runs: the broker asks the command to stop, then kills its worker."""
        self._future.cancel()


class _Superseded(Exception):
    """A newer attempt has the job: this one must write nothing."""


class _ShuttingDown(Exception):
    """This Celery worker shuts down: another one must run the job."""


class _Cancelled(Exception):
    """The job's cancellation was requested."""


class Attempt:
    """The newest attempt of a job, until it ends or a newer one supersedes it."""

    def __init__(self, job: Job, client: Client, patience: float | None = None) -> None:
        self.job = job
        self.client = client
        self.patience = PATIENCE if patience is None else patience
        self.entries: list[tuple[str, Any]] = []
        self.progress: tuple[float, str] | None = None
        self.calling = False  # a call is sent, and its outcome is not known
        self.began = False  # the command has reported something
        self.idempotent = False
        now = time.monotonic()
        self._looked = self._renewed = self._flushed = now

    def run(self) -> str:
        """Run the attempt to its end. Returns the job's state, or "" if a newer attempt has the job."""
        try:
            answer = self._call()
        except _Superseded:
            logger.warning("job %s: attempt %d was superseded; its result is dropped", self.job.pk, self.job.attempts)
            return ""
        except _Cancelled:
            return self._fail(Transition(CANCELLED, counts=False), {"outcome": "cancelled"}, None)
        except _ShuttingDown:
            return self._give_back()
        except BrokerError as error:
            return self._handle_failure(error)
        facts = {"worker": answer.worker, "call": answer.call}
        wrote = self._write(lambda: leases.succeed(self.job, answer.value, facts))
        return self._report("succeeded", wrote)

    def _call(self) -> Answer:
        """Repeat the call until a broker accepts it: a restart or a full queue costs no attempt."""
        end = time.monotonic() + self.patience
        for round_ in itertools.count():
            try:
                return self._listen()
            except BrokerError as error:
                passing = error.outcome == NOT_STARTED and error.code not in PERMANENT
                if not passing or isinstance(error, DeadlineExceeded | Expired) or time.monotonic() > end:
                    raise
            wait = time.monotonic() + min(2.0, 0.1 * 2**round_)
            while time.monotonic() < wait:
                self._beat()
                threading.Event().wait(min(FLUSH, max(0.0, wait - time.monotonic())))
        raise AssertionError("unreachable")

    def _listen(self) -> Answer:
        # Before the call: a broker that is lost later cannot be asked any more.
        if not self._read_idempotency() and self.job.retry == "safe":
            raise BrokerUnreachable("The broker did not answer which commands are idempotent.", outcome=NOT_STARTED)
        if stopping.over or (stopping.since and not self._may_repeat()):
            raise _ShuttingDown
        reader = _CallReader(self.client, self.job, self._timeout())
        self.calling = True
        try:
            while True:
                event = reader.take(FLUSH)
                if isinstance(event, BrokerError):
                    self.calling = False
                    raise event
                if isinstance(event, Answer):
                    self._flush()
                    return event
                if event is not None:
                    self._note(event)
                self._beat()
        finally:
            reader.close()

    def _timeout(self) -> float | None:
        """The remaining time for the call."""
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

    def _read_idempotency(self) -> bool:
        """Read whether the command is idempotent; False if the broker does not answer."""
        known = commands.cache.find(self.client, self.job.pool)
        if known:
            self.idempotent = commands.is_idempotent(known, self.job.command)
        return known is not None

    def _may_repeat(self) -> bool:
        return may_repeat(self.job.retry, self.idempotent)

    def _note(self, event: Any) -> None:
        self.began = True
        if isinstance(event, Progress):
            fraction = min(1.0, max(0.0, event.fraction))
            self.progress = (fraction, scrub_text(event.message, 500))
            self.entries.append(("progress", {"fraction": fraction, "message": self.progress[1]}))
            emit(job_progressed, self.job, fraction=fraction, message=event.message)
        elif isinstance(event, Log):
            self.entries.append(("log", {"message": event.message}))
        else:
            self.entries.append(("chunk", storable(event.value)))

    def _beat(self) -> None:
        """Flush output, renew the lease, check for cancellation and shutdown, each at its own interval."""
        now = time.monotonic()
        if stopping.over:
            raise _ShuttingDown
        if self.entries and now - self._flushed >= FLUSH:
            self._flush()
        try:
            if now - self._renewed >= conf.current().jobs_lease / leases.RENEWALS:
                with leases.db_unit():
                    alive = leases.renew(self.job)
                self._renewed = now
                if not alive:
                    raise _Superseded
            if now - self._looked >= TICK:
                self._looked = now
                with leases.db_unit():
                    alive, cancel = leases.check(self.job)
                if not alive:
                    raise _Superseded
                if cancel:
                    raise _Cancelled
        except Error as error:
            # The call continues: if the database is back before the lease expires, nothing is lost.
            logger.warning("job %s: the database is unavailable: %s", self.job.pk, error)

    def _flush(self) -> None:
        entries, progress = self.entries, self.progress
        if not entries:
            return
        self._flushed = time.monotonic()
        if not self._write(lambda: leases.append_entries(self.job, entries, progress)):
            raise _Superseded
        self.entries, self.progress = [], None

    def _write(self, work: Any) -> Any:
        return leases.patiently(work, DB_PATIENCE)

    def _give_back(self) -> str:
        """End the attempt of a Celery worker that stops. A job that perhaps began and may not run twice is lost."""
        if not self.calling or self._may_repeat():
            return self._fail(Transition(QUEUED, counts=False, began=self.calling), {"outcome": "requeued"}, None)
        error = ShuttingDown(
            f"The Celery worker stopped while the job ran, and retry={self.job.retry} allows no second run.",
            outcome=UNKNOWN,
        )
        return self._fail(Transition(LOST), {"outcome": error.code}, shape(error))

    def _handle_failure(self, error: BrokerError) -> str:
        job = self.job
        if error.outcome != NOT_STARTED and not self.idempotent:
            self._read_idempotency()  # the pool's first worker may have reported its commands during the call
        # The client gives up a call on a frozen broker at the timeout of the call. The command did not overrun then.
        code = BrokerUnreachable.code if self._is_silent(error) else error.code
        failure = AttemptFailure(code, error.outcome, self.idempotent, self.began, error.retry_after)
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
        return self._fail(transition, facts, None if transition.snoozed else shape(error))

    def _is_silent(self, error: BrokerError) -> bool:
        """Whether a call ended without a word of the broker, which does not answer now either."""
        if not isinstance(error, DeadlineExceeded) or error.outcome == NOT_STARTED or self.began:
            return False
        return commands.cache.find(self.client, self.job.pool, fresh=True) is None

    def _fail(self, transition: Transition, facts: dict[str, Any], error: dict[str, Any] | None) -> str:
        if self.entries:
            entries, progress = self.entries, self.progress
            self._write(lambda: leases.append_entries(self.job, entries, progress))
        wrote = self._write(lambda: leases.fail(self.job, transition, error, facts))
        if wrote and transition.state == QUEUED:
            messages.send(self.job.pk, messages.queue_of(self.job.pool), transition.pause)
            if job_requeued.receivers:
                with leases.db_unit():
                    emit_requeued(self.job.pk)
            return QUEUED
        return self._report(transition.state, wrote)

    def _report(self, state: str, wrote: bool) -> str:
        if not wrote:
            logger.warning("job %s: attempt %d ended too late; its end is dropped", self.job.pk, self.job.attempts)
            return ""
        if job_finished.receivers:
            with leases.db_unit():
                emit_finished(self.job.pk)
        return state


def shape(error: BrokerError) -> dict[str, Any]:
    """An error as the row stores it."""
    details: Mapping[str, Any] = scrub(error.details)
    return {
        "code": error.code,
        "message": scrub_text(error.message, 10_000),
        "outcome": error.outcome,
        "details": details,
    }
