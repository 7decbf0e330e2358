"""The calls of many attempts, on one event loop of this process. Their events go into a queue of the caller.

an event loop: client.aevents() ─▶ JobCall ─▶ queue ─▶ the runner's thread, which uses the database

Calls and database run in different threads, so neither blocks the other. Cancelling a call ends it at the broker.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.client import Client
from snakepit.pools.jobs.arguments import restore
from snakepit.pools.models import Job

logger = logging.getLogger("snakepit.jobs")
BUFFERED_EVENTS = 64  # events of a call that may wait for the database before the command has to wait
PAUSE = 0.025  # seconds between two checks of the events that wait

Inbox = queue.SimpleQueue[tuple[Any, Any]]  # (the call, or what else was asked; an event, a BrokerError or an answer)

_loops: dict[int, asyncio.AbstractEventLoop] = {}
_lock = threading.Lock()


def _event_loop() -> asyncio.AbstractEventLoop:
    """The event loop of this process for all calls. Keyed by process id, because a fork has no running loop."""
    with _lock:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="snakepit-jobs", daemon=True).start()
        return loop


class JobCall:
    """One call of a job's command."""

    def __init__(self, client: Client, job: Job, timeout: float | None, inbox: Inbox) -> None:
        self._client, self._job, self._timeout, self._inbox = client, job, timeout, inbox
        self._put_count = self._read_count = 0  # each is changed by one thread alone
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def read(self) -> None:
        """Note that the runner has taken an event."""
        self._read_count += 1

    @property
    def _unread(self) -> int:
        return self._put_count - self._read_count

    def close(self) -> None:
        """Cancel a call that still runs: the broker asks the command to stop, then kills its worker."""
        self._closed = True
        _event_loop().call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def begin(self) -> None:
        """On the event loop: make the call."""
        if not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        job = self._job
        try:
            events = self._client.aevents(
                job.pool, job.command, restore(job.arguments), timeout=self._timeout, priority=job.priority
            )
            async with events:
                async for event in events:
                    self._put(event)
                    if self._unread > BUFFERED_EVENTS:
                        await self._room()
        except BrokerError as error:
            self._put(error)
        except Exception as error:  # passed to the attempt, which would wait forever otherwise
            logger.exception("the call of job %s failed in the client", job.pk)
            self._put(BrokerError(f"{type(error).__name__}: {error}"))

    def _put(self, item: Any) -> None:
        self._put_count += 1
        self._inbox.put((self, item))

    async def _room(self) -> None:
        """Wait until the database has caught up. Meanwhile the stream has no credit, and the command waits."""
        while self._unread > BUFFERED_EVENTS // 2:  # noqa: ASYNC110  (the queue's other side is a thread)
            await asyncio.sleep(PAUSE)


def begin(calls: Iterable[JobCall]) -> None:
    """Make these calls, by one wake-up of the event loop."""
    some = list(calls)
    if some:
        _event_loop().call_soon_threadsafe(_begin, some)


def _begin(calls: list[JobCall]) -> None:
    for call in calls:
        call.begin()


def ask(key: Any, question: Callable[[], Coroutine[Any, Any, Any]], inbox: Inbox) -> None:
    """Ask something on the event loop; the answer, or None instead of an error, goes into the queue with the key."""

    async def answer() -> None:
        try:
            found = await question()
        except Exception:  # the broker is away, refuses, or has no such pool
            found = None
        inbox.put((key, found))

    asyncio.run_coroutine_threadsafe(answer(), _event_loop())
