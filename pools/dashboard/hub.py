"""One hub for each web process: it polls the broker once for all open pages and wakes their streams.

    stream ─┐                      ┌─ 0.5 s while a page is open   ─▶ broker.astatus()
    stream ─┼─ watch(): a version ─┤
    stream ─┘                      └─ stops 30 s after the last page closed

A page without streams (WSGI, scripts) asks through `fresh()`, which polls at most once a second for all pages.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError

from snakepit.pools import conf
from snakepit.pools.broker.errors import BrokerError, DeadlineExceeded
from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.client import shared
from snakepit.pools.dashboard.asked_nodes import AskedNodes
from snakepit.pools.dashboard.state import DashboardState, StateStore
from snakepit.pools.dashboard.stored_state import read_stored_state
from snakepit.pools.diagnostics.transport_watch import TransportWatch
from snakepit.pools.web.last_status import last_status

TICK = 0.5  # seconds: at most two updates a second
SLOW = 20.0  # seconds that a reader may take for a frame
PATIENCE = 5.0  # seconds that the broker may take for an answer to the streams' poll
LINGER = 30.0  # seconds that the hub goes on without a page, so that a reload leaves no gap in the charts
ROWS_EVERY = 10.0  # seconds between two reads of the database
FRESH = 1.0  # seconds for which a status is fresh enough for a page

logger = logging.getLogger("snakepit.dashboard")


class Hub:
    """The state, and the task that updates it on the event loop of the streams."""

    def __init__(self) -> None:
        self.store = StateStore()
        self.nodes = AskedNodes(self.store.fold_nodes, self.store.event_numbers)
        self.transport = TransportWatch()
        self.closing = False
        self._asking = threading.Lock()
        self._asked = self._looked = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._news: asyncio.Event = asyncio.Event()
        self._watchers = 0
        self._left_at = 0.0
        self._sending: dict[asyncio.Task[Any], float] = {}

    # For pages, on any thread.

    def fresh(self) -> DashboardState:
        """The newest state; asks the broker if it is older than a second."""
        with self._asking:
            if time.monotonic() - self._asked < FRESH:
                return self.store.state
            self._read_rows()
            wait_for_nodes = self.nodes.begin()
            try:
                self.store.objective = conf.current().queue_objective
                status = shared.client().watch(self.store.last_event(), last_status.patience())
                wait_for_nodes()
                return self._fold(status)
            except BrokerError as error:
                wait_for_nodes()
                return self._miss(error)
            finally:
                # Also after a failure: a broker that hangs must delay one page, not every page in turn.
                self._asked = time.monotonic()

    def forget(self) -> None:
        """Make the next page ask the broker, because an order has just changed something."""
        self._asked = float("-inf")
        self.nodes.forget()

    # For streams, on their loop.

    async def watch(self) -> AsyncGenerator[DashboardState, None]:
        """Yield the state now and after each tick until the process ends; only the newest state, never a queue."""
        self._watchers += 1
        self._run()
        try:
            state = self.store.state
            if not state.known and not state.trouble:
                await self._news.wait()
            while not self.closing:
                yield self.store.state
                if not self.closing:  # `close` may have run while the reader was sending; no wake-up follows
                    await self._news.wait()
        finally:
            self._watchers -= 1
            self._left_at = time.monotonic()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Guard the sending of a frame: a reader that takes longer than SLOW seconds is dropped."""
        task = asyncio.current_task()
        if task is None:
            yield
            return
        self._sending[task] = time.monotonic()
        try:
            yield
        finally:
            self._sending.pop(task, None)

    def close(self) -> None:
        """End all streams. Call it from a signal handler through `call_soon_threadsafe`."""
        self.closing = True
        self._wake_watchers()
        if self._task is not None:
            self._task.cancel()

    def _run(self) -> None:
        """Keep one task alive on the running loop; tests and `runserver` sometimes use a new loop."""
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._news = asyncio.Event()
            self._task = loop.create_task(self._poll(), name="snakepit-dashboard-hub")

    async def _poll(self) -> None:
        while self._watchers or time.monotonic() - self._left_at < LINGER:
            began = time.monotonic()
            if self._due():
                await sync_to_async(self._read_rows, thread_sensitive=False)()
            self.nodes.tick()
            await self._ask()
            self._asked = time.monotonic()
            self._wake_watchers()
            self._drop_slow(began)
            await asyncio.sleep(max(0.05, TICK - (time.monotonic() - began)))

    async def _ask(self) -> None:
        try:
            self.store.objective = conf.current().queue_objective
            status = await asyncio.wait_for(shared.client().awatch(self.store.last_event(), PATIENCE), PATIENCE + 1)
            self._fold(status)
        except TimeoutError:
            self._miss(DeadlineExceeded(f"The broker did not answer within {PATIENCE:g} s."))
        except BrokerError as error:
            self._miss(error)
        except Exception:
            # A bug here must not end the stream of every page; the log has its traceback.
            logger.exception("the dashboard cannot read the broker's status")
            self.store.miss("The web server cannot read the broker's status; see its log.", time.time(), at=time.time())

    def _fold(self, status: BrokerStatus) -> DashboardState:
        last_status.record(status)
        return self.store.fold(status, time.time())

    def _miss(self, error: BrokerError) -> DashboardState:
        trouble = last_status.missed(error)
        return self.store.miss(trouble.message, trouble.since, trouble.kind, time.time())

    def _due(self) -> bool:
        return time.monotonic() - self._looked >= ROWS_EVERY

    def _read_rows(self) -> None:
        """Read what only the database has, when it is due. The dashboard works on without a database."""
        if not self._due():
            return
        self._looked = time.monotonic()
        try:
            stored = read_stored_state()
            trouble = self.transport.sample() if stored.uses_jobs else None
            if trouble is not None:
                stored = replace(stored, transport=trouble.why, transport_since=trouble.since)
            self.store.note(stored)
            self.nodes.find()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("the dashboard cannot read the database: %s", error)

    def _drop_slow(self, now: float) -> None:
        for task, since in self._sending.items():
            if now - since > SLOW:
                task.cancel()

    def _wake_watchers(self) -> None:
        """Wake all watchers. They wait on the old event, and on the new one next."""
        news, self._news = self._news, asyncio.Event()
        with suppress(RuntimeError):  # the loop of an earlier task is closed and has no watchers
            news.set()


hub = Hub()
