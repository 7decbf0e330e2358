"""The calls of many attempts. Their replies go into a queue of the runner's thread, which decodes them.

client.listen() ─▶ the thread of the client's connections ─▶ queue ─▶ the runner's thread, which uses the database

Calls and database run in different threads, so neither blocks the other. Closing a call ends it at the broker.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.client import Client
from snakepit.pools.client.listening import ListenedCall
from snakepit.pools.client.streams import Event
from snakepit.pools.jobs.arguments import restore
from snakepit.pools.models import Job

logger = logging.getLogger("snakepit.jobs")

Inbox = queue.SimpleQueue[tuple[Any, Any]]  # (the call, or what else was asked; its reply, or the answer)

_loops: dict[int, asyncio.AbstractEventLoop] = {}
_lock = threading.Lock()


def _event_loop() -> asyncio.AbstractEventLoop:
    """The event loop of this process for questions. Keyed by process id, because a fork has no running loop."""
    with _lock:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="snakepit-jobs", daemon=True).start()
        return loop


class JobCall:
    """One call of a job's command. Only the runner's thread uses it."""

    def __init__(self, client: Client, job: Job, timeout: float | None, inbox: Inbox) -> None:
        self._client, self._job, self._timeout, self._inbox = client, job, timeout, inbox
        self._call: ListenedCall | None = None

    def begin(self) -> None:
        """Make the call. An error is an item of the queue, like one that comes later."""
        job = self._job
        try:
            self._call = self._client.listen(
                job.pool, job.command, restore(job.arguments), self._put, timeout=self._timeout, priority=job.priority
            )
        except BrokerError as error:
            self._put(error)
        except Exception as error:
            self._put(self._broken(error))

    def read(self, item: Any) -> Event | None:
        """What an item of the queue says; None: nothing yet. Raises the call's error."""
        if self._call is None:  # it was not made
            raise item
        try:
            return self._call.read(item)
        except BrokerError:
            raise
        except Exception as error:
            raise self._broken(error) from error

    def close(self) -> None:
        """Cancel a call that still runs: the broker asks the command to stop, then kills its worker."""
        if self._call is not None:
            self._call.close()

    def _put(self, item: Any) -> None:
        self._inbox.put((self, item))

    def _broken(self, error: Exception) -> BrokerError:
        logger.error("the call of job %s failed in the client", self._job.pk, exc_info=error)
        return BrokerError(f"{type(error).__name__}: {error}")


def ask(key: Any, question: Callable[[], Coroutine[Any, Any, Any]], inbox: Inbox) -> None:
    """Ask something on the event loop; the answer, or None instead of an error, goes into the queue with the key."""

    async def answer() -> None:
        try:
            found = await question()
        except Exception:  # the broker is away, refuses, or has no such pool
            found = None
        inbox.put((key, found))

    asyncio.run_coroutine_threadsafe(answer(), _event_loop())
