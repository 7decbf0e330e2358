"""A broker with one pool `p` for a fault, and what must hold when the fault is over."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks.faults.census import census, settled, until
from benchmarks.faults.fault import Findings
from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.status import PoolStatus
from tests.brokers import RunningBroker, assert_nothing_left, broker

POOL = "p"
PATIENCE = 60.0  # a bound for a machine under load, never a wait


class Lab:
    def __init__(self, node: RunningBroker, size: int) -> None:
        self.node = node
        self.client = node.client
        self.size = size
        self.found = Findings()
        self.broker = node.process.pid

    def instance(self) -> str:
        return str(json.loads((self.node.runtime / "instance").read_text())["instance"])

    def adopt(self, node: RunningBroker) -> None:
        """Go on with another broker on the same directory, which this ends, too."""
        self.node, self.broker = node, node.process.pid
        self.warm_up()

    def pool(self) -> PoolStatus:
        return self.node.pool(POOL)

    def idle(self) -> bool:
        """Whether all workers are ready and all slots free."""
        row = self.pool()
        return (row.ready, row.lost, row.waiting) == (self.size, 0, 0) and row.free == row.slots

    def warm_up(self) -> None:
        """Make calls until the broker and this process hold what they keep for good."""
        self.node.ready(POOL, self.size)
        for number in range(50):
            self.client.call(POOL, "double", number=number)
        list(self.client.stream(POOL, "count", to=5))
        for row in self.client.status().pools:
            self.node.ready(row.name, row.size)
        self._broker, self._own = census(self.broker), census(os.getpid())

    def check(self) -> None:
        """Enter what must hold after every fault."""
        expect = self.found.expect
        expect(until(self._quiet, PATIENCE), f"slots or workers are missing: {self.pool()}"[:600])
        expect(self._next_call() == 2, "the next call does not work")
        for name, pid, before in (("broker", self.broker, self._broker), ("client", os.getpid(), self._own)):
            more = settled(pid, before)
            expect(not more, f"the {name} has more: {', '.join(more)}")
        self.found.measured["broker's memory"] = f"{self.grown_mb():+.1f} MiB"

    def grown_mb(self) -> float:
        """How much the broker has grown since it was warm."""
        return census(self.broker).rss_mb - self._broker.rss_mb

    def _quiet(self) -> bool:
        try:
            return self.idle()
        except BrokerError:
            return False

    def _next_call(self) -> Any:
        try:
            return self.client.call(POOL, "double", number=1, timeout=PATIENCE)
        except BrokerError as error:
            return error.code


@contextmanager
def laboratory(size: int = 2, other: Mapping[str, Any] | None = None, **fields: Any) -> Iterator[Lab]:
    """A warm broker with the pool `p`, and perhaps a pool `other`. Afterwards no process of it may be left."""
    pool = {"adapter": "target", "size": size, "queue_timeout": 60.0, "startup_batch": 8, "startup_delay": 0.0}
    with broker({POOL: {**pool, **fields}, **({"other": other} if other else {})}) as node:
        lab = Lab(node, size)
        lab.warm_up()
        try:
            yield lab
            lab.check()
        finally:
            if lab.node is not node:
                instance = lab.instance()
                lab.node.stop()
                assert_nothing_left(instance)


def callers(
    count: int, work: Callable[[int, threading.Event], None], fault: Callable[[threading.Event], object]
) -> bool:
    """Run `work` on so many threads while `fault` runs here; return whether all of them ended afterwards."""
    over = threading.Event()
    threads = [threading.Thread(target=work, args=(number, over), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        fault(over)
    finally:
        over.set()
    for thread in threads:
        thread.join(PATIENCE * 2)
    return not any(thread.is_alive() for thread in threads)
