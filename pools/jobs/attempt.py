"""One attempt at a job, inside a Celery task: claim, call, keep what is said, write the end.

an event loop: client.aevents() ─▶ _Pump ─▶ queue ─▶ Celery's thread: Attempt ─▶ hold.* (the database)
                                                                      └─ every second: lease, cancel, shutdown

The pump has the call, the attempt has the database: neither can hold up the other, and a cancelled pump ends the call.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

from django.db import Error

from snakepit.pools import conf
from snakepit.pools.broker.errors import NOT_STARTED, BrokerError, DeadlineExceeded
from snakepit.pools.client import Answer, Client, Log, Progress, connect
from snakepit.pools.jobs import leases, messages
from snakepit.pools.jobs.arguments import restore, storable
from snakepit.pools.jobs.policy import PERMANENT, Ending, Rules, Verdict, judge
from snakepit.pools.jobs.signals import job_finished, job_progressed, job_started, tell, tell_finished
from snakepit.pools.models import Job
from snakepit.pools.models.states import CANCELLED, QUEUED
from snakepit.pools.models.strict_json import scrub, scrub_text

logger = logging.getLogger("snakepit.jobs")
TICK = 1.0  # seconds between two looks at the row: what a cancellation takes to be noticed
FLUSH = 0.25  # seconds that an entry may wait for others to be written with it
AHEAD = 64  # events that may wait for the database before the command is held up
PATIENCE = 10.0  # seconds in which a call that no broker took is offered again within the same attempt
DB_PATIENCE = 60.0  # seconds that an end waits for the database; beyond it the lease tells

_claims = itertools.count(1)


class Stopping:
    """Whether this Celery worker is about to end, and since when."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.grace = 0.0

    def begin(self, grace: float) -> None:
        self.since = self.since or time.monotonic()
        self.grace = grace

    @property
    def over(self) -> bool:
        return self.since is not None and time.monotonic() - self.since >= self.grace


stopping = Stopping()


def run(job_id: str) -> str:
    """Run a job that a message named, if it still waits; returns the state it is in then, or "" if it was not ours."""
    claimant = f"{socket.gethostname()}:{os.getpid()}:{next(_claims)}"
    job = leases.patiently(lambda: leases.claim(job_id, claimant, conf.node_name()), DB_PATIENCE)
    if job is None:
        return ""
    tell(job_started, job)
    return Attempt(job, connect()).run()


_loops: dict[int, asyncio.AbstractEventLoop] = {}
_lock = threading.Lock()


def _event_loop() -> asyncio.AbstractEventLoop:
    """The loop that all pumps of this process share; by process id, because a fork has no running loop."""
    with _lock:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="snakepit-jobs", daemon=True).start()
        return loop


class _Pump:
    """Runs the call on an event loop and puts what it says into a queue."""

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
                    if self.items.qsize() > AHEAD:
                        await self._taken_up()
        except BrokerError as error:
            self.items.put(error)
        except Exception as error:  # told to the attempt, which would wait for ever otherwise
            logger.exception("the call of job %s failed in the client", job.pk)
            self.items.put(BrokerError(f"{type(error).__name__}: {error}"))

    async def _taken_up(self) -> None:
        """Until the database has caught up; meanwhile the command finds no more room for chunks, and waits."""
        while self.items.qsize() > AHEAD // 2:  # noqa: ASYNC110  (the queue's other side is a thread)
            await asyncio.sleep(FLUSH / 10)

    def take(self, timeout: float) -> Any:
        """The next event, a BrokerError, or None when nothing came in time."""
        try:
            return self.items.get(timeout=timeout)
        except queue.Empty:
            return None

    def close(self) -> None:
        """End the call if it has not ended: the broker asks the command to stop, and then ends its worker."""
        self._future.cancel()


class _Overtaken(Exception):
    """Another attempt has the job: whatever this one does, it does not count."""


class _GivenBack(Exception):
    """This Celery worker ends: another shall run the job."""


class _Cancelled(Exception):
    """Somebody asked for the job's end."""


class Attempt:
    """The newest attempt at a job, until it ends or is overtaken."""

    def __init__(self, job: Job, client: Client) -> None:
        self.job = job
        self.client = client
        self.entries: list[tuple[str, Any]] = []
        self.progress: tuple[float, str] | None = None
        now = time.monotonic()
        self._looked = self._renewed = self._flushed = now

    def run(self) -> str:
        """To its end; returns the job's state then, "" when it was overtaken."""
        try:
            answer = self._call()
        except _Overtaken:
            logger.warning("job %s: attempt %d was overtaken and writes nothing", self.job.pk, self.job.attempts)
            return ""
        except _Cancelled:
            return self._fail(Verdict(CANCELLED, counts=False), {"outcome": "cancelled"}, None)
        except _GivenBack:
            return self._fail(Verdict(QUEUED, counts=False), {"outcome": "given_back"}, None)
        except BrokerError as error:
            return self._judge(error)
        facts = {"worker": answer.worker, "call": answer.call}
        wrote = self._write(lambda: leases.succeed(self.job, answer.value, facts))
        return self._told("succeeded", wrote)

    def _call(self) -> Answer:
        """Call until a broker took it: one that starts again, or is full for a moment, costs no attempt."""
        end = time.monotonic() + PATIENCE
        for round_ in itertools.count():
            try:
                return self._listen()
            except BrokerError as error:
                passing = error.outcome == NOT_STARTED and error.code not in PERMANENT
                if not passing or isinstance(error, DeadlineExceeded) or time.monotonic() > end:
                    raise
            wait = time.monotonic() + min(2.0, 0.1 * 2**round_)
            while time.monotonic() < wait:
                self._beat()
                threading.Event().wait(min(FLUSH, max(0.0, wait - time.monotonic())))
        raise AssertionError("unreachable")

    def _listen(self) -> Answer:
        pump = _Pump(self.client, self.job, self._timeout())
        try:
            while True:
                event = pump.take(FLUSH)
                if isinstance(event, BrokerError):
                    raise event
                if isinstance(event, Answer):
                    self._flush()
                    return event
                if event is not None:
                    self._note(event)
                self._beat()
        finally:
            pump.close()

    def _timeout(self) -> float | None:
        """What is left for the call."""
        deadline = self.job.deadline
        if deadline is None:
            return self.job.timeout
        # Between two wall clocks, once, at the start; from there on the call's own time counts.
        left = deadline.timestamp() - time.time()
        if left <= 0:
            raise DeadlineExceeded("The job's deadline passed before it was called.", outcome=NOT_STARTED)
        return left if self.job.timeout is None else min(left, self.job.timeout)

    def _note(self, event: Any) -> None:
        if isinstance(event, Progress):
            fraction = min(1.0, max(0.0, event.fraction))
            self.progress = (fraction, scrub_text(event.message, 500))
            self.entries.append(("progress", {"fraction": fraction, "message": self.progress[1]}))
            tell(job_progressed, self.job, fraction=fraction, message=event.message)
        elif isinstance(event, Log):
            self.entries.append(("log", {"message": event.message}))
        else:
            self.entries.append(("chunk", storable(event.value)))

    def _beat(self) -> None:
        """What has to happen while the call runs; cheap when it is not yet time."""
        now = time.monotonic()
        if stopping.over:
            raise _GivenBack
        if self.entries and now - self._flushed >= FLUSH:
            self._flush()
        try:
            if now - self._renewed >= conf.current().jobs_lease / leases.RENEWALS:
                with leases.db_unit():
                    alive = leases.renew(self.job)
                self._renewed = now
                if not alive:
                    raise _Overtaken
            if now - self._looked >= TICK:
                self._looked = now
                with leases.db_unit():
                    alive, cancel = leases.look(self.job)
                if not alive:
                    raise _Overtaken
                if cancel:
                    raise _Cancelled
        except Error as error:
            # The call goes on: a database that is back before the lease ends has missed nothing.
            logger.warning("job %s: the database does not answer: %s", self.job.pk, error)

    def _flush(self) -> None:
        entries, progress = self.entries, self.progress
        if not entries:
            return
        self._flushed = time.monotonic()
        if not self._write(lambda: leases.keep(self.job, entries, progress)):
            raise _Overtaken
        self.entries, self.progress = [], None

    def _write(self, work: Any) -> Any:
        return leases.patiently(work, DB_PATIENCE)

    def _judge(self, error: BrokerError) -> str:
        job = self.job
        ending = Ending(error.code, error.outcome, self._idempotent() if error.outcome != NOT_STARTED else False)
        rules = Rules(
            job.retry, job.attempts, job.failures, job.deaths, job.max_attempts, job.backoff,
            conf.current().jobs_quarantine_after,
        )  # fmt: skip
        verdict = judge(ending, rules)
        facts: dict[str, Any] = {"outcome": error.code, "worker": str(error.details.get("worker", ""))[:100]}
        if verdict.death:
            facts["evidence"] = {"message": scrub_text(error.message, 2000), **scrub(error.details)}
        return self._fail(verdict, facts, shape(error))

    def _idempotent(self) -> bool:
        """Asked only when it matters. A broker that is away cannot say; then it is taken for not idempotent."""
        try:
            commands = self.client.commands(self.job.pool)
        except BrokerError:
            return False
        return any(one["name"] == self.job.command and one["idempotent"] for one in commands)

    def _fail(self, verdict: Verdict, facts: dict[str, Any], error: dict[str, Any] | None) -> str:
        if self.entries:
            entries, progress = self.entries, self.progress
            self._write(lambda: leases.keep(self.job, entries, progress))
        wrote = self._write(lambda: leases.fail(self.job, verdict, error, facts))
        if wrote and verdict.state == QUEUED:
            messages.send(self.job.pk, messages.queue_of(self.job.pool), verdict.pause)
            return QUEUED
        return self._told(verdict.state, wrote)

    def _told(self, state: str, wrote: bool) -> str:
        if not wrote:
            logger.warning("job %s: attempt %d came too late and wrote nothing", self.job.pk, self.job.attempts)
            return ""
        if job_finished.receivers:
            with leases.db_unit():
                tell_finished(self.job.pk)
        return state


def shape(error: BrokerError) -> dict[str, Any]:
    """An error as the row holds it."""
    details: Mapping[str, Any] = scrub(error.details)
    return {
        "code": error.code,
        "message": scrub_text(error.message, 10_000),
        "outcome": error.outcome,
        "details": details,
    }
