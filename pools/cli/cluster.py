"""`snakepit status --all-nodes`, and the broker of a node by its name."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from snakepit.pools.cli.output import json_line, terminal
from snakepit.pools.cli.project import find_address, start_django
from snakepit.pools.cli.tables import NARROW, STYLES, fitted
from snakepit.pools.cli.units import duration, megabytes, span
from snakepit.pools.client import Client, connect

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from snakepit.pools.client.cluster_status import ClusterStatus, MergedPool, NodeSummary, PoolOnNode

NODE_STYLES = {"live": "green", "draining": "yellow", "not answering": "bold red"}


def client_at(node: str) -> Client:
    """The client of a node by its name. Raises NodeUnknown, or BrokerUnreachable."""
    start_django()
    from snakepit.pools.operations import all_nodes

    client = all_nodes.named(project_client(), node).client
    assert client is not None
    return client


def project_client() -> Client:
    """The client that finds the other nodes. SNAKEPIT_ADDRESS, if it is set, is one broker alone."""
    find_address()  # it chooses the settings
    return connect()


def show(pool: str, *, as_json: bool) -> bool:
    """Print the merged status of all nodes. Returns whether all of them answer, without a failed pool or problem."""
    start_django()
    from snakepit.pools.client.cluster_status import merge
    from snakepit.pools.operations import all_nodes

    found = _only(merge(all_nodes.ask(all_nodes.known(project_client())), time.time()), pool)
    if as_json:
        typer.echo(json_line(found))
    else:
        _print(found)
    failed = any(one.state == "failed" for one in found.pools)
    return not found.away and not failed and not any(one.problems for one in found.nodes)


def _only(found: ClusterStatus, pool: str) -> ClusterStatus:
    if not pool:
        return found
    from snakepit.pools.broker.errors import PoolUnknown

    if found.pool(pool) is None and not found.away:
        raise PoolUnknown(f"No pool is named {pool!r} on any node.", details={"pool": pool})
    return replace(
        found,
        pools=tuple(one for one in found.pools if one.name == pool),
        workers=tuple(one for one in found.workers if one.worker.pool == pool),
    )


def _print(found: ClusterStatus) -> None:
    width = None if sys.stdout.isatty() else NARROW
    console = terminal(width=width, no_color=bool(os.environ.get("NO_COLOR")), highlight=False)
    console.print(_nodes(console, found))
    for node in found.nodes:
        if node.reason:
            text = f"{node.name}: {node.state}: {node.reason}{last_seen(node)}"
            console.print(text, style=NODE_STYLES[node.state], markup=False, soft_wrap=True)
        for problem in node.problems:
            console.print(f"{node.name}: problem: {problem}", style="bold red", markup=False, soft_wrap=True)
    if found.pools:
        console.print(_pools(console, found))
    for pool in found.pools:
        for text in lines(pool):
            console.print(text, style=STYLES.get(pool.state, ""), markup=False, soft_wrap=True)


def last_seen(node: NodeSummary) -> str:
    """When a node that does not answer was seen last, as the end of a sentence."""
    if node.answers:
        return ""
    return "; it never reported" if node.age is None else f"; last seen {duration(node.age)} ago"


def lines(pool: MergedPool) -> list[str]:
    """What the table of the pools has no room for."""
    run, wait = pool.latency.run_p95, pool.latency.wait_p95
    times = [f"{what} p95 {span(one)}" for what, one in (("calls", run), ("queue wait", wait)) if one is not None]
    first = [f"{pool.name}: {', '.join(times)}"] if times else []
    return first + [f"{pool.name} on {one.node}: {one.state}: {one.reason}" for one in pool.nodes if one.reason]


def _nodes(console: Console, found: ClusterStatus) -> Table:
    from rich.text import Text

    def figure(node: NodeSummary, text: str) -> str:
        return text if node.answers else "-"

    nodes = found.nodes
    return fitted(
        console,
        {
            "name": [Text(one.name + (" (this host)" if one.own and one.name != "this host" else "")) for one in nodes],
            "state": [Text(one.state, NODE_STYLES[one.state]) for one in nodes],
            "ready": [figure(one, f"{one.ready}/{one.size}") for one in nodes],
            "busy": [figure(one, str(one.busy)) for one in nodes],
            "free": [figure(one, f"{one.free}/{one.slots}") for one in nodes],
            "waiting": [figure(one, str(one.waiting)) for one in nodes],
            "memory": [figure(one, megabytes(one.memory_mb or None)) for one in nodes],
        },
    )


def _pools(console: Console, found: ClusterStatus) -> Table:
    """One row for all nodes, then one row a node where there are several."""
    from rich.text import Text

    rows: list[tuple[str, MergedPool | PoolOnNode]] = []
    for pool in found.pools:
        rows.append((pool.name, pool))
        rows += [(f"  on {part.node}", part) for part in pool.nodes if len(found.nodes) > 1]
    return fitted(
        console,
        {
            "pool": [Text(name) for name, _ in rows],
            "state": [Text(one.state, STYLES.get(one.state, "")) for _, one in rows],
            "ready": [f"{one.ready}/{one.size}" for _, one in rows],
            "busy": [str(one.busy) for _, one in rows],
            "free": [f"{one.free}/{one.slots}" for _, one in rows],
            "waiting": [str(one.waiting) for _, one in rows],
            "done": [str(one.finished) for _, one in rows],
            "memory": [megabytes(one.memory_mb or None) for _, one in rows],
        },
    )
