"""`snakepit status`: the state of the broker, its pools and workers, with reasons."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from snakepit.pools.broker.caller import QuotaStatus
from snakepit.pools.broker.node_status import ListenerStatus
from snakepit.pools.broker.status import (
    NOT_READ,
    BrokerStatus,
    NodeStatus,
    PoolStatus,
    RecordedEvent,
    TemplateStatus,
    WorkerStatus,
)
from snakepit.pools.cli import cluster
from snakepit.pools.cli.output import PROBLEM, UsageError, json_line, report_errors, terminal
from snakepit.pools.cli.parameters import PATIENCE, AsJson
from snakepit.pools.cli.project import find_address
from snakepit.pools.cli.tables import NARROW as NARROW
from snakepit.pools.cli.tables import STYLES as STYLES
from snakepit.pools.cli.tables import fitted
from snakepit.pools.cli.tables import new_table as new_table
from snakepit.pools.cli.units import duration, megabytes
from snakepit.pools.client import connect

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SHORT = ("failed", "starting", "degraded")


def register(app: typer.Typer) -> None:
    app.command("status")(status)


def status(
    pool: Annotated[str, typer.Option(help="Only this pool.")] = "",
    node: Annotated[str, typer.Option(metavar="NAME", help="The node with this name, not that of this host.")] = "",
    all_nodes: Annotated[bool, typer.Option("--all-nodes", help="All nodes of the project, merged.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the broker, its pools and their workers. Exits with 1 if a pool has failed or a problem is reported.

    With --all-nodes, also if a node does not answer within a second; it is shown with the reason.
    """
    if all_nodes:
        with report_errors(as_json):
            if node:
                raise UsageError("give --node or --all-nodes")
            healthy = cluster.show(pool, as_json=as_json)
        if not healthy:
            raise typer.Exit(PROBLEM)
        return
    with report_errors(as_json):
        client = cluster.client_at(node) if node else connect(find_address())
        found = client.status(pool, timeout=PATIENCE)
        events = () if as_json else client.watch(timeout=PATIENCE).events
    if as_json:
        typer.echo(json_line(found))
    else:
        _show(found, last_deaths(found, events))
    if found.node.problems or any(pool.state == "failed" for pool in found.pools):
        raise typer.Exit(PROBLEM)


def caller_line(quota: QuotaStatus) -> str:
    rate = f"{quota.calls_per_second:g}/s" if quota.calls_per_second else "no rate limit"
    by = ((quota.over_rate, "rate"), (quota.over_in_flight, "in flight"), (quota.over_waiting, "queue share"))
    limited = ", ".join(f"{count} by {name}" for count, name in by if count)
    return (
        f"{quota.of} {quota.name}: {quota.in_flight} of {quota.calls_in_flight or 'any'} calls in flight, {rate}, "
        f"{quota.accepted} accepted, {quota.refused} limited" + (f" ({limited})" if limited else "")
    )


def _show(found: BrokerStatus, deaths: Mapping[str, RecordedEvent]) -> None:
    width = None if sys.stdout.isatty() else NARROW
    console = terminal(width=width, no_color=bool(os.environ.get("NO_COLOR")), highlight=False)
    _show_node(console, found.node)
    for quota in found.quotas:
        console.print(caller_line(quota), style="yellow" if quota.refused else "", markup=False, soft_wrap=True)
    if not found.pools:
        console.print(no_pools(found.node), markup=False)
        return
    console.print(_pools(console, found.pools))
    for pool in found.pools:
        template = _template(pool.template)
        batches = [f"{one.command} runs in batches of at most {one.limit}: {one}" for one in pool.batches]
        for text in [pool.interpreter, pool.parallel, template, *batches, pool.reason, *pool.warnings]:
            if text:
                style = STYLES.get(pool.state, "")
                console.print(f"{pool.name}: {text}", style=style, markup=False, soft_wrap=True)
        if death := deaths.get(pool.name):
            console.print(f"{pool.name}: {death.worker} {death.message}", style="red", markup=False, soft_wrap=True)
    if found.workers:
        console.print(_workers(console, found.workers))


def no_pools(node: NodeStatus) -> str:
    """What `status` says of a broker without pools."""
    if any(text.startswith(NOT_READ) for text in node.problems):
        return "No pools yet: the broker starts them when the database answers."
    return 'No pools. Define one in SNAKEPIT["POOLS"] or in the admin.'


def _show_node(console: Console, node: NodeStatus) -> None:
    clock = "" if node.clock == "beat" else f", clock: {node.clock}"
    labels = f", labels: {', '.join(node.labels)}" if node.labels else ""
    console.print(
        f"broker {node.name} (pid {node.pid}, up {duration(node.uptime)}, Python {node.python}{clock}{labels})",
        markup=False,
        soft_wrap=True,
    )
    if node.draining:
        console.print(f"draining: {drain_line(node)}", style="bold yellow", markup=False, soft_wrap=True)
    for listener in node.listeners:
        style = "bold red" if listener.problem else ""
        console.print(listener_line(listener, node.started_at + node.uptime), style=style, markup=False, soft_wrap=True)
    for problem in node.problems:
        console.print(f"problem: {problem}", style="bold red", markup=False, soft_wrap=True)


def last_deaths(found: BrokerStatus, events: Iterable[RecordedEvent]) -> dict[str, RecordedEvent]:
    """How the newest worker died, for each pool that is short of workers. `events` with the oldest first."""
    short = {pool.name for pool in found.pools if pool.state in SHORT}
    return {one.pool: one for one in events if one.kind == "worker.died" and one.pool in short}


def listener_line(one: ListenerStatus, now: float) -> str:
    """One network address of the broker.

    >>> listener_line(ListenerStatus("[::]:7443", "mutual", 86_400.0 * 9, "", 2, 3, {"timeout": 1}), 0.0)
    'network [::]:7443: TLS mutual, certificate ends in 9.0 days, 2 connections, refused: timeout 1'
    """
    tls = f"TLS {one.tls}, certificate ends in {(one.certificate_expires - now) / 86_400:.1f} days"
    refused = ", ".join(f"{reason} {times}" for reason, times in sorted(one.refused.items()))
    if one.lists_expire:
        tls += f", revocation list expires in {(one.lists_expire - now) / 86_400:.1f} days"
    if one.authorities_expire:
        tls += f", client_ca ends in {(one.authorities_expire - now) / 86_400:.1f} days"
    parts = [tls if one.tls != "none" else "no TLS", f"{one.connections} connections"]
    parts += [f"refused: {refused}"] if refused else []
    parts += [one.problem] if one.problem else []
    return f"network {one.address}: {', '.join(parts)}"


def drain_line(node: NodeStatus) -> str:
    """Why the node takes no new calls."""
    if not node.drain_since:
        return "the broker is stopping and takes no new calls"
    actor, why = node.drain_actor or "an operator", node.drain_reason or "no reason given"
    return f"by {actor}, no new calls are accepted: {why}"


def _template(template: TemplateStatus) -> str:
    """One line for a ready template; a warning covers the case without one."""
    if template.state != "ready":
        return ""
    size = f"{megabytes(template.memory_mb)}, " if template.memory_mb >= 0 else ""
    took = f"loaded in {template.load_seconds:.1f} s"
    return f"workers are forked from {template.id} (pid {template.pid}, {size}{took})"


def _pools(console: Console, pools: Sequence[PoolStatus]) -> Table:
    from rich.text import Text

    return fitted(
        console,
        {
            "pool": [Text(pool.name) for pool in pools],
            "profile": [pool.profile for pool in pools],
            "state": [Text(pool.state, STYLES.get(pool.state, "")) for pool in pools],
            "ready": [f"{pool.ready}/{pool.size}" for pool in pools],
            "busy": [str(pool.busy) for pool in pools],
            "free": [f"{pool.free}/{pool.slots}" for pool in pools],
            "waiting": [str(pool.waiting) for pool in pools],
            "done": [str(pool.finished) for pool in pools],
            "memory": [megabytes(pool.memory_mb or None) for pool in pools],  # 0: no worker is measured yet
        },
    )


def _workers(console: Console, workers: Sequence[WorkerStatus]) -> Table:
    from rich.text import Text

    return fitted(
        console,
        {
            "worker": [Text(one.id) for one in workers],
            "pid": [str(one.pid) for one in workers],
            "state": [Text(one.state, STYLES.get(one.state, "")) for one in workers],
            "load": [f"{one.load}/{one.capacity}" for one in workers],
            "served": [str(one.served) for one in workers],
            "memory": [megabytes(one.memory_mb) for one in workers],
            "gil": [one.gil + (f" {one.parallelism:.1f} x" if one.parallelism else "") for one in workers],
            "why": [
                Text(one.reason or (f"GIL on because of {one.gil_culprit}" if one.gil_culprit else ""))
                for one in workers
            ],
        },
    )
