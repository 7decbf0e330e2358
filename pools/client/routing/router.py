"""The newest reports of the nodes, and the choice of one node for a call.

At rest, when the broker of this host takes every call, this costs two look-ups and no thread. The first refusal starts
the reports.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.client import stand_in
from snakepit.pools.client.address import Target
from snakepit.pools.client.client import Client
from snakepit.pools.client.routing.discovery import KnownNode, NodeSource
from snakepit.pools.client.routing.policy import AWAY, UNFIT, NodeReport, PoolLoad, order, order_by_key
from snakepit.pools.client.routing.watch import NodeWatch

IDLE = 30.0  # seconds without a routed call after which the nodes are not asked any more
PATIENCE = 1.5  # seconds that the first routed call waits for the nodes' first answers
KEPT = 10.0  # seconds that it is kept whether a command is idempotent
COMMANDS = 0.8  # seconds that a node may take for this answer
DEAD = ("failed", "stopping")  # states of a pool that takes no calls


class Router:
    """Which node takes a call of this process. Safe to use from any thread, and after a fork."""

    def __init__(self, source: NodeSource) -> None:
        self.source = source
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """Begin anew, also in the child of a fork, which has no thread."""
        own = self.source.own
        self._own_takes = own is not None and (not own.path or os.path.exists(own.path))
        self._moved: set[str] = set()  # pools that the own node does not take
        self._facts: dict[KnownNode, NodeReport] = {}
        self._sent: Counter[tuple[str, str]] = Counter()  # calls by node and pool, since the last report
        self._idempotent: dict[tuple[str, str], tuple[float, bool]] = {}
        self._used_at = 0.0
        self._watch: NodeWatch | None = None
        self._lock = threading.RLock()  # a signal handler may call while its thread holds it

    def rests(self, pool: str, key: str = "") -> bool:
        """Whether a call of a pool goes to the broker of this host, without a choice. `key`: its affinity."""
        return (self._own_takes and pool not in self._moved and not key) or stand_in.is_used()

    @property
    def is_ready(self) -> bool:
        """Whether `choose` returns immediately."""
        watch = self._watch
        return watch is not None and watch.asked.is_set()

    def wake(self, patience: float = PATIENCE) -> None:
        """Ask the nodes from now on, and wait for their first answers."""
        with self._lock:
            self._used_at = time.monotonic()
            watch = self._watch
            if watch is None:
                watch = self._watch = NodeWatch(self.source, self._report, self._is_used)
                threading.Thread(target=watch.run, name="snakepit-nodes", daemon=True).start()
        if not watch.asked.is_set():
            watch.asked.wait(patience)

    def choose(
        self, pool: str, tried: Collection[Target], patience: float = PATIENCE, key: str = ""
    ) -> KnownNode | None:
        """The node that takes a call, and None if none does. Counts the call as sent there. `key`: its affinity."""
        self.wake(min(patience, PATIENCE))
        chosen = next(self.candidates(pool, tried, key), None)
        if chosen is not None:
            self._sent[chosen.name, pool] += 1
        return chosen

    def candidates(self, pool: str, tried: Collection[Target] = (), key: str = "") -> Iterator[KnownNode]:
        """The nodes that may take a call, the best first."""
        facts = {node: one for node, one in self._facts.copy().items() if node.target not in tried}
        known = {node.name: node for node in facts}
        if key:
            names = order_by_key(facts.values(), pool, key)
        else:
            names = order((self._with_sent(one, pool) for one in facts.values()), pool, (), random.random)
        return (known[name] for name in names)

    def refusing(self, pool: str) -> Iterator[KnownNode]:
        """The nodes that have a pool and answer, but take no calls; their refusals have the reason."""
        return (
            node for node, one in self._facts.copy().items() if one.answers and not one.serving and pool in one.pools
        )

    def silent(self, pool: str) -> tuple[str, ...]:
        """The names of nodes that had a pool when they last answered, and do not answer now."""
        return tuple(one.name for one in self._facts.copy().values() if not one.answers and pool in one.pools)

    def _with_sent(self, facts: NodeReport, pool: str) -> NodeReport:
        load, sent = facts.pools.get(pool), self._sent[facts.name, pool]
        return replace(facts, pools={pool: replace(load, sent=sent)}) if load is not None and sent else facts

    @property
    def own(self) -> KnownNode | None:
        """The node of this host."""
        watch = self._watch
        found = next((node for node in watch.nodes() if node.own), None) if watch else None
        return found or next(iter(self.source.first), None)

    def node_at(self, target: Target) -> KnownNode | None:
        """The node with this address, if it is known."""
        found = next((node for node in self._facts.copy() if node.target == target), None)
        return found or (self.own if target == self.source.own else None)

    def failed(self, node: KnownNode, pool: str, error: BrokerError) -> None:
        """Note why a node did not take a call. Its next report decides again."""
        away, unfit = isinstance(error, AWAY), isinstance(error, UNFIT)
        if node.own and away:
            self._own_takes = False
        if node.own and unfit:
            self._moved.add(pool)
        for known, facts in self._facts.copy().items():
            if known.target != node.target:
                continue
            if away:
                self._facts[known] = replace(facts, serving=False)
            elif unfit and (load := facts.pools.get(pool)) is not None:
                self._facts[known] = replace(facts, pools={**facts.pools, pool: replace(load, fit=False)})
            if away and self._watch is not None:
                self._watch.ask_soon(known)

    def is_idempotent(self, pool: str, command: str) -> bool:
        """Whether a command may run twice, as a running node reports it. Asks one node, or two."""
        at, known = self._idempotent.get((pool, command), (float("-inf"), False))
        if time.monotonic() - at < KEPT:
            return known
        self.wake()
        for node, _ in zip(self.candidates(pool), range(2), strict=False):
            try:
                commands = Client(node.target).commands(pool, COMMANDS)
            except BrokerError:
                continue
            for one in commands:
                self._idempotent[pool, one.name] = (time.monotonic(), one.idempotent)
            if commands:
                return any(one.name == command and one.idempotent for one in commands)
        return False

    # In the thread of the watch.

    def _is_used(self) -> bool:
        with self._lock:
            if time.monotonic() - self._used_at < IDLE:
                return True
            self._watch, self._facts = None, {}
            return False

    def _report(self, node: KnownNode, status: BrokerStatus | None) -> None:
        facts = _facts_of(node, status)
        if status is None and (last := self._facts.get(node)) is not None:
            facts = replace(facts, pools=last.pools)
        for gone in set(self._facts.copy()) - set(self._watch.nodes() if self._watch else ()) - {node}:
            self._facts.pop(gone, None)
        self._facts[node] = facts
        for key in [key for key in self._sent.copy() if key[0] == node.name]:
            del self._sent[key]
        if node.own:
            self._own_takes = facts.serving
            self._moved -= {name for name, load in facts.pools.items() if load.fit}


def _facts_of(node: KnownNode, status: BrokerStatus | None) -> NodeReport:
    if status is None:
        return NodeReport(node.name, own=node.own, serving=False, answers=False)
    pools = {one.name: PoolLoad(one.slots, one.free, one.waiting, fit=one.state not in DEAD) for one in status.pools}
    return NodeReport(node.name, own=node.own, serving=not status.node.draining, pools=pools)
