"""Run many attempts in one thread: make their calls, keep their output and leases, write their ends together.

a Celery task: BatchRunner.run ─┬─ source.claim ─▶ Attempt ─▶ JobCall (client's thread) ─▶ inbox ─▶ end, kept for ms
                                └─ ends.write, leases.*: a statement for many rows; each second: cancel, shutdown

Only the thread of the runner uses the database. While the database is away, calls continue and ends are kept.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import queue
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from django.db import DatabaseError, Error, InterfaceError, OperationalError, close_old_connections, connections

from snakepit.pools import conf
from snakepit.pools.broker.errors import NOT_STARTED, BrokerError, BrokerUnreachable
from snakepit.pools.client import Answer, Client, Progress, connect
from snakepit.pools.jobs import attempt as attempts
from snakepit.pools.jobs import calls, claims, commands, eager, ends, leases, messages
from snakepit.pools.jobs.attempt import Attempt
from snakepit.pools.jobs.calls import JobCall
from snakepit.pools.jobs.job_source import JobSource
from snakepit.pools.jobs.signals import (
    emit,
    emit_finished,
    emit_requeued,
    job_finished,
    job_progressed,
    job_requeued,
    job_started,
)
from snakepit.pools.jobs.waiting_ends import WaitingEnds
from snakepit.pools.models import Job, schema

logger = logging.getLogger("snakepit.jobs")
DB_PATIENCE = 60.0  # seconds that a process which stops, or whose caller waits, tries to write ends
LONGEST_PAUSE = 2.0  # seconds between two such tries
KEPT = 1.0  # seconds after which Django may close an old connection

_claims = itertools.count(1)


def claimant() -> str:
    """A new name for the claims of this process."""
    return f"{socket.gethostname()}:{os.getpid()}:{next(_claims)}"


class BatchRunner:
    """The attempts that one thread runs."""

    def __init__(self, client: Client, source: JobSource | None = None, patience: float | None = None) -> None:
        # Of jobs whose end is written; "": it came too late. A runner with a source may never end, and keeps none.
        self.states: dict[UUID, str] = {}
        self._client, self._source = client, source
        self._patience = attempts.PATIENCE if patience is None else patience
        self._inbox: calls.Inbox = queue.SimpleQueue() if source is None else source.inbox
        self._attempts: dict[tuple[Any, int], Attempt] = {}  # until their ends are written
        self._calls: dict[JobCall, Attempt] = {}
        self._uncalled: list[Attempt] = []
        self._running: Counter[str] = Counter()  # by pool, the attempts whose ends are not known
        self._said: dict[Attempt, None] = {}  # those with output that is not written, the oldest first
        self._ends = WaitingEnds()
        self._signals: deque[Callable[[], None]] = deque()  # of ends that are written
        self._database_away: float | None = None  # since when
        self._next_write = 0.0
        self._checked = self._renewed = self._cleaned = time.monotonic()

    def adopt(self, jobs: Iterable[Job]) -> None:
        """Run these jobs, which were just claimed."""
        now = time.monotonic()
        for job in jobs:
            one = Attempt(job, now, self._patience)
            self._attempts[one.key] = one
            self._uncalled.append(one)
            self._running[job.pool] += 1
            if job_started.receivers:
                emit(job_started, job)

    def run(self) -> None:
        """Return when all attempts have ended, and the source has no more jobs."""
        try:
            while self._turn(time.monotonic()):
                pass
        finally:
            for call in self._calls:
                call.close()

    def _turn(self, now: float) -> bool:
        if attempts.stopping.over:
            self._give_back()
        elif self._source is not None:
            self._claim(self._source, now)
        self._make_calls(now)
        if not self._attempts and not self._signals and (self._source is None or self._source.leave(now)):
            return False
        self._take(self._pause(now))
        now = time.monotonic()
        self._flush(now)
        if self._must_write(now):
            self._write(now)
        self._check(now)
        return True

    def _claim(self, source: JobSource, now: float) -> None:
        try:
            self.adopt(source.claim(self._running, now))
        except (OperationalError, InterfaceError) as error:
            self._unavailable(error, now)

    # Calls.

    def _make_calls(self, now: float) -> None:
        due = [one for one in self._uncalled if one.due <= now]
        if not due:
            return
        self._uncalled = [one for one in self._uncalled if one.due > now]
        # Before the calls: a broker that is lost later cannot be asked any more.
        known = {pool: commands.cache.find(self._client, pool) for pool in {one.job.pool for one in due}}
        for one in due:
            if (call := self._call(one, known[one.job.pool])) is not None:
                call.begin()

    def _call(self, one: Attempt, known: commands.Commands | None) -> JobCall | None:
        if known:
            one.idempotent = commands.is_idempotent(known, one.job.command)
        try:
            if known is None and one.job.retry == "safe":
                raise BrokerUnreachable("The broker did not answer which commands are idempotent.", outcome=NOT_STARTED)
            if attempts.stopping.since and not one.may_repeat:
                self._end(one, one.requeued())
                return None
            timeout = one.timeout()
        except BrokerError as error:
            self._failed(one, error)
            return None
        one.call = JobCall(self._client, one.job, timeout, self._inbox)
        self._calls[one.call] = one
        return one.call

    def _take(self, pause: float) -> None:
        """Wait for an item of the inbox, and handle all that have arrived."""
        try:
            self._handle(*(self._inbox.get(timeout=pause) if pause > 0 else self._inbox.get_nowait()))
            for _ in range(self._inbox.qsize()):  # no more, so that leases and ends have their turn
                self._handle(*self._inbox.get_nowait())
        except queue.Empty:
            return

    def _handle(self, key: Any, item: Any) -> None:
        one = self._calls.get(key)
        if one is None:
            if self._source is not None and not isinstance(key, JobCall):
                self._source.answered(key, item, self._running)
            return
        try:
            self._read(one, key, item)
        except Exception:  # it must not end the other attempts
            logger.exception("job %s: attempt %d failed in this process", *one.key)
            self._drop(one)

    def _read(self, one: Attempt, call: JobCall, item: Any) -> None:
        try:
            event = call.read(item)
        except BrokerError as error:
            self._no_call(one)
            self._failed(one, error)
            return
        if isinstance(event, Answer):
            self._no_call(one)
            self._end(one, one.success(event))
        elif event is not None:
            one.note(event)
            self._said[one] = None
            if isinstance(event, Progress) and one.progress:
                emit(job_progressed, one.job, fraction=one.progress[0], message=event.message)

    def _no_call(self, one: Attempt) -> None:
        if one.call is not None:
            self._calls.pop(one.call, None)
            one.call = None

    def _failed(self, one: Attempt, error: BrokerError) -> None:
        if one.repeats_call(error, time.monotonic()):
            self._uncalled.append(one)
            return
        pool = one.job.pool
        if error.outcome != NOT_STARTED and not one.idempotent:
            # The pool's first worker may have reported its commands during the call.
            one.idempotent = commands.is_idempotent(commands.cache.find(self._client, pool) or {}, one.job.command)
        silent = one.may_be_silence(error) and commands.cache.find(self._client, pool, fresh=True) is None
        self._end(one, one.failure(error, silent=silent))

    # Ends.

    def _end(self, one: Attempt, end: ends.End) -> None:
        if one.key not in self._ends:
            self._running[one.job.pool] -= 1
        self._ends.add(one.key, end, time.monotonic())

    def _drop(self, one: Attempt) -> None:
        """Write nothing more for this attempt. If it is still the newest one, its lease expires."""
        if one.call is not None:
            one.call.close()
        self._no_call(one)
        if one in self._uncalled:
            self._uncalled.remove(one)
        if self._attempts.pop(one.key, None) is not None and one.key not in self._ends:
            self._running[one.job.pool] -= 1
        self._ends.drop(one.key)
        self._said.pop(one, None)
        if self._source is None:
            self.states.setdefault(one.job.pk, "")

    def _superseded(self, one: Attempt) -> None:
        logger.warning("job %s: attempt %d was superseded; its result is dropped", *one.key)
        self._drop(one)

    def _give_back(self) -> None:
        for key, one in self._attempts.items():
            if key not in self._ends:
                self._end(one, one.requeued())
                if one.call is not None:
                    one.call.close()
                self._no_call(one)
        self._uncalled.clear()

    def _must_write(self, now: float) -> bool:
        return bool(self._ends or self._signals) and now >= max(self._next_write, self._ends.due(len(self._calls)))

    def _write(self, now: float) -> None:
        waiting = self._ends.all()
        try:
            self._write_some(waiting, now)
            self._send_signals()
        except (OperationalError, InterfaceError) as error:
            self._ends.doubtful.update(key for key, _ in waiting if key in self._ends)
            self._unavailable(error, now)
        except DatabaseError:
            for one in waiting:  # find the row that the database refuses
                try:
                    self._write_some([one], now)
                except DatabaseError:
                    logger.exception("job %s: the database refuses the end of attempt %d", *one[0])
                    self._drop(self._attempts[one[0]])

    def _write_some(self, waiting: list[tuple[tuple[Any, int], ends.End]], now: float) -> None:
        for key, _ in waiting if self._said else ():
            if (one := self._attempts.get(key)) and one.entries:
                self._append(one)
        some = [(key, end) for key, end in waiting if key in self._ends]
        written = self._database(lambda: ends.write(end for _, end in some))
        if doubtful := [end for key, end in some if key in self._ends.doubtful and end.job.pk not in written]:
            written |= self._database(lambda: ends.find_written(doubtful))
        done = []
        for key, end in some:
            self._ends.drop(key)
            self._attempts.pop(key)
            if end.job.pk in written:
                done.append(end)
            else:
                logger.warning("job %s: attempt %d ended too late; its end is dropped", *key)
            if self._source is None:
                self.states[end.job.pk] = end.transition.state if end.job.pk in written else ""
        self._report(done, now)

    def _report(self, written: list[ends.End], now: float) -> None:
        for pool, count in Counter(end.job.pool for end in written if end.is_last).items():
            if self._source is not None:
                self._source.note_ends(pool, count, now)
        for pool in {end.job.pool for end in written if end.job.limited}:
            (self._source.note_freed if self._source is not None else messages.pass_on)(pool)
        for end in written:
            if not end.is_last:
                messages.send(end.job.pk, messages.queue_of(end.job.pool), end.transition.pause)
                if job_requeued.receivers:
                    self._signals.append(functools.partial(emit_requeued, end.job.pk))
            elif job_finished.receivers:
                self._signals.append(functools.partial(emit_finished, end.job.pk))

    def _send_signals(self) -> None:
        """Send those that wait. Each reads its row: if the database is away, the rest waits for it."""
        while self._signals:
            self._database(self._signals[0])
            self._signals.popleft()

    # Output, leases, cancellations.

    def _flush(self, now: float) -> None:
        """Write output that has waited long enough."""
        for one in list(self._said):
            if now - one.flushed < attempts.FLUSH or one.key in self._ends:
                continue
            try:
                self._append(one)
            except (OperationalError, InterfaceError) as error:
                one.flushed = now
                self._unavailable(error, now)
            except DatabaseError:
                logger.exception("job %s: the database refuses the output of attempt %d", *one.key)
                self._drop(one)

    def _append(self, one: Attempt) -> None:
        if self._database(lambda: leases.append_entries(one.job, one.entries, one.progress)):
            one.entries, one.progress, one.flushed = [], None, time.monotonic()
            self._said.pop(one, None)
        else:
            self._superseded(one)

    def _check(self, now: float) -> None:
        """Renew the leases, and find cancelled and superseded attempts, each by one statement."""
        renews = now - self._renewed >= conf.current().jobs_lease / leases.RENEWALS
        checks = now - self._checked >= attempts.TICK
        if not self._attempts or not (renews or checks):
            return
        jobs = [one.job for one in self._attempts.values()]
        try:
            if renews:
                self._database(lambda: leases.renew(jobs))
                self._renewed = now
            if checks:
                self._checked = now
                self._compare(self._database(lambda: leases.check(jobs)))
        except Error as error:
            # The calls continue: if the database is back before the leases expire, nothing is lost.
            self._unavailable(error, now)

    def _compare(self, found: dict[tuple[Any, int], bool]) -> None:
        for key, one in list(self._attempts.items()):
            if key not in found:
                self._superseded(one)
            elif found[key] and key not in self._ends:
                if one.call is not None:
                    one.call.close()
                self._no_call(one)
                self._uncalled = [other for other in self._uncalled if other is not one]
                self._end(one, one.cancelled())

    # The database, and time.

    def _database(self, work: Callable[[], Any]) -> Any:
        """Run a unit of work; now and then let Django close an old connection."""
        now = time.monotonic()
        if now - self._cleaned >= KEPT:
            self._clean(now)
        found = work()
        self._database_away = None
        return found

    def _clean(self, now: float) -> None:
        self._cleaned = now
        if not connections[schema.alias()].in_atomic_block:  # the caller's transaction needs its connection
            close_old_connections()

    def _unavailable(self, error: Exception, now: float) -> None:
        """The database is away: try again a little later, and without end while there is no reason to stop."""
        if self._database_away is None:
            self._database_away = now
        away = now - self._database_away
        if away > DB_PATIENCE and (self._source is None or attempts.stopping.since):
            raise error
        logger.warning("the database is unavailable, retrying: %s", error)
        self._next_write = now + min(LONGEST_PAUSE, max(0.1, away))
        self._clean(now)

    def _pause(self, now: float) -> float:
        """Seconds until something is to be done without an item of the inbox."""
        next_turn = now + attempts.FLUSH
        if self._ends:
            next_turn = min(next_turn, max(self._ends.due(len(self._calls)), self._next_write))
        for one in self._uncalled:
            next_turn = min(next_turn, one.due)
        return max(0.0, next_turn - now)


def run_one(job_id: str, patience: float | None = None) -> str:
    """Run a job if it is still queued. Returns its state afterwards, or "" if another attempt has it."""
    job = leases.with_retries(lambda: claims.claim(job_id, claimant(), conf.node_name()), DB_PATIENCE)
    if job is None:
        return ""
    if patience is None:
        patience = min(attempts.PATIENCE, eager.PATIENCE) if eager.is_running(str(job_id)) else attempts.PATIENCE
    return run_claimed(job, connect(), patience)


def run_claimed(job: Job, client: Client, patience: float | None = None) -> str:
    """Run a job that was claimed. Returns its state afterwards, or "" if a newer attempt has the job."""
    one = BatchRunner(client, patience=patience)
    one.adopt([job])
    one.run()
    return one.states[job.pk]
