"""Asks all nodes for the open pages, once a second at most. A project with one node asks no other one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.client import shared
from snakepit.pools.client.cluster_status import NodeAnswer
from snakepit.pools.operations import all_nodes
from snakepit.pools.operations.all_nodes import AskedNode
from snakepit.pools.web.errors import seen_from_outside

EVERY = 1.0  # seconds between two rounds

logger = logging.getLogger("snakepit.dashboard")


class AskedNodes:
    """The nodes. `find` reads the database; the rest does not.

    `take` receives each round of answers and its time. `events` has the last known event of each node.
    """

    def __init__(
        self, take: Callable[[Sequence[NodeAnswer], float], None], events: Callable[[], Mapping[str, int]]
    ) -> None:
        self._take = take  # no answers: there is one node
        self._events = events  # the number of the last known event of each node
        self._nodes: tuple[AskedNode, ...] = ()
        self._began = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def find(self) -> None:
        """Read which nodes there are."""
        try:
            self._nodes = all_nodes.known(shared.client())
        except BrokerError:  # an address that cannot be used; the question for the status reports it
            self._nodes = ()
        if len(self._nodes) < 2:
            self._take((), time.time())

    def begin(self) -> Callable[[], None]:
        """For a page: ask in a thread; the returned function waits for the answers, which is bounded."""
        if len(self._nodes) < 2 or time.monotonic() - self._began < EVERY:
            return lambda: None
        self._began = time.monotonic()
        wait = all_nodes.begin(self._nodes, _reason, self._events())
        return lambda: self._note(wait())

    def forget(self) -> None:
        """Make the next page ask all nodes, because an order has just changed something."""
        self._began = float("-inf")

    def tick(self) -> None:
        """For streams, on their loop: start a round if one is due. Its answers are there at a later tick."""
        if len(self._nodes) < 2 or time.monotonic() - self._began < EVERY:
            return
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._began = time.monotonic()
            self._task = loop.create_task(self._ask(), name="snakepit-ask-nodes")

    async def _ask(self) -> None:
        try:
            self._note(await all_nodes.aask(self._nodes, _reason, self._events()))
        except Exception:
            # A bug here must not end the stream of every page; the log has its traceback.
            logger.exception("the dashboard cannot read the status of all nodes")

    def _note(self, answers: list[NodeAnswer]) -> None:
        if len(self._nodes) > 1:
            self._take(answers, time.time())


def _reason(error: BrokerError) -> str:
    return seen_from_outside(error).message
