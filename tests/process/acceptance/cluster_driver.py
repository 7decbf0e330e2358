"""Calls the pools of a cluster from a project; prints what happened as a JSON object.

`python cluster_driver.py`: of a process beside the node n1, also while that is drained. With `stranger`: of a process
that has no broker at its address. With `wait`: only until both nodes are ready.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import django

PATIENCE = 120.0  # seconds; a bound, never a wait


def start_of(worker: str) -> str:
    return worker.rsplit("-", 2)[1]


def until_ready() -> dict[str, str]:
    """Wait until both nodes have written themselves and their workers; returns the node of each broker's start,
    which is a part of the ids of its workers."""
    from snakepit.pools.models import Worker

    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        rows = Worker.objects.filter(state="ready").values_list("worker_id", "node__name", "pool")
        if {(node, pool) for _, node, pool in rows} == {("n1", "pool"), ("n2", "pool"), ("n2", "gpu")}:
            return {start_of(worker): node for worker, node, _ in rows}
        time.sleep(0.1)
    raise SystemExit(f"the nodes are not ready: {list(rows)}")


def main() -> dict[str, Any]:
    from snakepit import connect

    nodes, client = until_ready(), connect()

    def taker(pool: str) -> str:
        return nodes[start_of(client.execute(pool, "echo", value=1, timeout=PATIENCE).worker)]

    def takers(rounds: int) -> dict[str, list[str]]:
        return {pool: sorted({taker(pool) for _ in range(rounds)}) for pool in ("pool", "gpu")}

    if "wait" in sys.argv:
        return {}
    if "stranger" in sys.argv:
        return {"calls": takers(40)}
    found: dict[str, Any] = {"calls": takers(4)}
    until_sent(lambda: client.drain("a test", "maintenance"))
    found["drained"] = takers(4)
    until_sent(lambda: client.resume("a test", ""))
    return {**found, **orders()}


def until_sent(order: Callable[[], Any]) -> Any:
    """Give an order again that was not sent, because its node stopped for a moment."""
    from snakepit.pools.broker.errors import BrokerUnreachable

    end = time.monotonic() + PATIENCE
    while True:
        try:
            return order()
        except BrokerUnreachable as error:
            if error.outcome != "not_started" or time.monotonic() > end:
                raise


def orders() -> dict[str, Any]:
    """Order another node by its name, and send the tick of beat to every node."""
    from snakepit import connect
    from snakepit.pools import tasks
    from snakepit.pools.broker.errors import BrokerError
    from snakepit.pools.models import Audit, Node
    from snakepit.pools.operations import node_drain
    from snakepit.pools.operations.orders import Order

    order = Order("a test", "maintenance", surface="shell")
    drained = until_sent(lambda: node_drain.drain(connect(), "n2", order))
    try:
        refused = connect().call("gpu", "echo", value=1, timeout=PATIENCE)
    except BrokerError as error:
        refused = error.code
    shown = until_sent(lambda: node_drain.preview(connect(), "n2"))
    resumed = until_sent(lambda: node_drain.resume(connect(), "n2", order))
    end = time.monotonic() + PATIENCE
    while set(Node.objects.values_list("clock", flat=True)) != {"beat"} and time.monotonic() < end:
        tasks.sweep()  # again, for a node that did not take the tick in time
        time.sleep(0.1)
    done = Audit.objects.filter(target="n2", outcome="done").order_by("pk")
    return {
        "orders": [drained.node, drained.draining, refused, shown.draining, resumed.draining],
        "audit": list(done.values_list("action", "target", "outcome")),
        "clocks": list(Node.objects.order_by("name").values_list("name", "clock")),
    }


if __name__ == "__main__":
    django.setup()
    print(json.dumps(main()))
