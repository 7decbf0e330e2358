"""Asks the nodes for their status, in a thread, while calls are routed: once a second, with jitter.

find nodes (every 5 s) ─▶ ask each that is due, together, 0.8 s at most ─▶ report to the router ─▶ pause
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.client.client import Client
from snakepit.pools.client.routing.discovery import KnownNode, NodeSource

logger = logging.getLogger("snakepit.client")
FIND = 5.0  # seconds between two searches for nodes
ASK = 1.0  # seconds between two questions to a node
PATIENCE = 0.8  # seconds that a node may take to answer
FIRST_FIND = 0.5  # seconds that the first round waits for the nodes
SLOWEST = 3.0  # seconds between two questions to a node that does not answer
JITTER = 0.3  # share of a pause that is random: many processes must not ask a node that returns at the same moment

Report = Callable[[KnownNode, BrokerStatus | None], None]


@dataclass(slots=True)
class _Turn:
    """When a node is asked next."""

    at: float = 0.0
    pause: float = ASK


class NodeWatch:
    """One thread for as long as `wanted` is true."""

    def __init__(self, source: NodeSource, report: Report, wanted: Callable[[], bool]) -> None:
        self._source, self._report, self._wanted = source, report, wanted
        self._nodes = source.first
        self._turns: dict[KnownNode, _Turn] = {}
        self._found = threading.Event()
        self._finding: threading.Thread | None = None
        self._find_at = 0.0
        self.asked = threading.Event()  # every node was asked once

    def run(self) -> None:
        """Ask until nothing needs it. A failure of one round does not end the thread."""
        try:
            asyncio.run(self._rounds())
        except Exception:  # the interpreter shuts down, or no descriptor is left: the next call starts another one
            logger.debug("the watch over the nodes ended", exc_info=True)
        finally:
            self.asked.set()  # nothing waits for a thread that is gone

    async def _rounds(self) -> None:
        while self._wanted():
            self._find_when_due()
            if not self.asked.is_set():
                self._found.wait(FIRST_FIND)  # this loop has nothing else to do yet
            now = time.monotonic()
            due = [node for node in self._nodes if self._turn(node).at <= now]
            await asyncio.gather(*(self._ask(node) for node in due))
            self.asked.set()
            await asyncio.sleep(_jittered(ASK) / 2)

    def nodes(self) -> tuple[KnownNode, ...]:
        """The nodes that were found last."""
        return self._nodes

    def ask_soon(self, node: KnownNode) -> None:
        """Ask a node at the next round."""
        self._turn(node).at = 0.0

    def _turn(self, node: KnownNode) -> _Turn:
        return self._turns.setdefault(node, _Turn())

    async def _ask(self, node: KnownNode) -> None:
        status = None
        if not node.is_absent:
            try:
                status = await Client(node.target).astatus(timeout=PATIENCE)
            except BrokerError as error:
                logger.debug("node %s does not answer: %s", node.name, error)
        if status is not None and node.named and status.node.name != node.name:
            status = None  # the broker of another node has taken this address
        turn = self._turn(node)
        turn.pause = ASK if status is not None else min(SLOWEST, turn.pause * 1.5)
        turn.at = time.monotonic() + _jittered(turn.pause) - ASK / 4
        self._report(node, status)

    def _find_when_due(self) -> None:
        """Look for nodes in a thread of its own: a database that hangs must not keep the nodes from being asked."""
        now = time.monotonic()
        if now < self._find_at or (self._finding is not None and self._finding.is_alive()):
            return
        self._find_at = now + _jittered(FIND)
        self._finding = threading.Thread(target=self._find, name="snakepit-find-nodes", daemon=True)
        self._finding.start()

    def _find(self) -> None:
        try:
            self._nodes = self._source.find()
        except Exception as error:  # the database or DNS is away: the nodes that are known stay
            logger.debug("the nodes cannot be read: %s", error)
        finally:
            self._found.set()


def _jittered(pause: float) -> float:
    return pause * (1.0 + JITTER * (2 * random.random() - 1.0))
