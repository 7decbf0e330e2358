"""The source of this Celery worker's jobs: a message is a hint that a pool has work, and one thread claims it.

message of a pool ─▶ hint ─┬─ a thread runs jobs already ─▶ it claims of this pool too; the message is done
                           └─ none does ─▶ this thread becomes the runner, until nothing is left to claim or to end

A claim takes what the pool is free to run, and a little more (`planner`). While a claim is full, other Celery workers
get a hint, once a second at most. A hint that is lost loses nothing: `reconciler` sends another one.
"""

from __future__ import annotations

import functools
import logging
import os
import queue
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from snakepit.pools import conf
from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.client import Client, connect
from snakepit.pools.jobs import attempt, calls, claims, messages, planner
from snakepit.pools.jobs.runner import BatchRunner, claimant
from snakepit.pools.models import Job

logger = logging.getLogger("snakepit.jobs")
# The tasks of this process share one thread. Then it claims the next jobs only when the last ones have ended: other
# workers can take them meanwhile, and a message that waits for the thread gets it soon.
one_thread = threading.Event()

INTERVAL = 1.0  # seconds between two questions about a pool's load, two hints for others, and two claims without a hint
TURN, REST = 2.0, 1.0  # seconds that the only thread of a process claims jobs, and then ends those it has at most


@dataclass(slots=True)
class _Pool:
    """What this process has found out about a pool."""

    more: bool = True  # there may be jobs to claim
    alone: bool = True  # one owner had all queued jobs at the last claim, and the pool had no limits of jobs
    load: planner.Load = planner.UNKNOWN
    rate: planner.Rate = field(default_factory=planner.Rate)
    asked: float = 0.0  # when the broker was asked about the load
    unanswered: int = 0  # questions about it
    passed_on: float = 0.0  # when other Celery workers got a hint
    again: float = 0.0  # when a rate may allow more
    awaited: float = 0.0  # when a hint for that moment comes: each process has one on its way, at most
    drained: bool = False  # the broker of this node takes no calls: the jobs are for other nodes


class Claimer:
    """Claims jobs of the hinted pools for one runner."""

    def __init__(self, client: Client) -> None:
        self.inbox: calls.Inbox = queue.SimpleQueue()
        self._client = client
        self._lock = threading.Lock()
        self._hinted: set[str] = set()
        self._runs = False
        self._began = self._polled = 0.0
        self._pools: dict[str, _Pool] = {}

    def hint(self, pool: str) -> bool:
        """Note that a pool has work. True: the caller must run a runner with this source."""
        with self._lock:
            self._hinted.add(pool)
            if self._runs:
                self.inbox.put((None, None))  # wakes the runner
                return False
            self._runs = True
            return True

    def stopped(self) -> None:
        """Note that the runner has ended, for whatever reason."""
        with self._lock:
            self._runs = False

    def leave(self, now: float) -> bool:
        with self._lock:
            waiting = self._hinted | {name for name, pool in self._pools.items() if pool.more}
            if waiting and not attempt.stopping.since and not self._rests(now):
                return False
            self._runs = False
            self._hinted.clear()
            later = {name: pool for name, pool in self._pools.items() if pool.again > now >= pool.awaited}
            for pool in self._pools.values():
                pool.more = False
            self._began = 0.0
        for name in sorted(waiting):  # for another Celery worker, or for this one after the tasks that wait
            messages.pass_on(name)
        for name, pool in later.items():  # no end of a job shows that a rate allows the next start
            pool.awaited = min(pool.again, now + messages.LONGEST_COUNTDOWN)
            messages.pass_on(name, pool.awaited - now)
        return True

    def claim(self, running: Counter[str], now: float) -> list[Job]:
        self._refresh(running, now)
        jobs: list[Job] = []
        if attempt.stopping.since or self._rests(now) or (one_thread.is_set() and running.total()):
            return jobs
        for name, pool in self._pools.items():
            load = planner.ONE if one_thread.is_set() else pool.load
            if pool.drained and not pool.unanswered:  # else it may have been resumed since the last answer
                self._hand_over(name, pool, now)
            if pool.drained:
                continue
            if pool.more and (most := planner.room(load, running[name], pool.rate.value)):
                found = claims.take_batch(name, most, claimant(), conf.node_name(), alone=pool.alone)
                pool.more, pool.alone = found.more, found.alone
                pool.again = 0.0 if found.pause is None else now + found.pause
                if found.jobs and not running[name]:
                    pool.rate.begin(now)
                jobs += found.jobs
                self._pass_on(name, pool, now)
        return jobs

    def _pass_on(self, name: str, pool: _Pool, now: float) -> None:
        """Send a hint to other Celery workers, once a second at most, if there may be more to claim."""
        if pool.more and now - pool.passed_on >= INTERVAL:
            pool.passed_on = now
            messages.pass_on(name)

    def _hand_over(self, name: str, pool: _Pool, now: float) -> None:
        """Give the hint back, for other nodes or for this one after its drain: at once, or when the second is over."""
        pause = pool.passed_on + INTERVAL - now
        if pause > 0:
            messages.pass_on(name, pause)
        else:
            pool.passed_on = now
            messages.pass_on(name)
        pool.more = False

    def _refresh(self, running: Counter[str], now: float) -> None:
        """Take the hints; once a second claim without one, and ask the broker what the pools can run."""
        with self._lock:
            hinted, self._hinted = self._hinted, set()
        for name in hinted:
            self._pools.setdefault(name, _Pool()).more = True
        self._began = self._began or now
        if now - self._polled >= INTERVAL:
            self._polled = now
            for pool in self._pools.values():
                pool.more = True
        for name, pool in self._pools.items():
            if (pool.more or running[name]) and now - pool.asked >= INTERVAL:
                pool.asked = now
                pool.unanswered += 1
                calls.ask(name, functools.partial(self._client.astatus, name, INTERVAL), self.inbox)

    def answered(self, key: Any, answer: Any, running: Counter[str]) -> None:
        pool = self._pools.get(key)
        if pool is None:
            return
        pool.unanswered = max(0, pool.unanswered - 1)
        found = [one for one in answer.pools if one.name == key] if isinstance(answer, BrokerStatus) else []
        pool.drained = isinstance(answer, BrokerStatus) and answer.node.draining
        if found:
            one = found[0]
            pool.load = planner.load(one.slots, one.free, one.waiting, one.queue_limit, running[key])
        else:
            pool.load = planner.UNKNOWN

    def note_ends(self, pool: str, count: int, now: float) -> None:
        if (known := self._pools.get(pool)) is not None:
            known.rate.add(count, now)

    def note_freed(self, pool: str) -> None:
        """Note that jobs with limits stopped running: others of their keys may start."""
        if (known := self._pools.get(pool)) is not None:
            known.more = True

    def _rests(self, now: float) -> bool:
        """Whether the only thread of this process claims nothing, so that other tasks get their turn if it ends."""
        return one_thread.is_set() and self._began > 0 and (now - self._began) % (TURN + REST) >= TURN


_claimers: dict[Client, Claimer] = {}


def work(pool: str) -> str:
    """Run jobs of a pool until none is left to claim, or have this process's runner do so."""
    client = connect()
    claimer = _claimers.setdefault(client, Claimer(client))  # no lock: a fork could leave it held
    if not claimer.hint(pool):
        return "joined"
    try:
        BatchRunner(client, claimer).run()
    finally:
        claimer.stopped()
    return "ran"


os.register_at_fork(after_in_child=_claimers.clear)  # a fork has no runner
