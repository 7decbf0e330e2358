"""`snakepit status`: the state of the broker, its pools and workers, with reasons."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from snakepit.pools.broker.status import (
    BrokerStatus,
    NodeStatus,
    PoolStatus,
    RecordedEvent,
    TemplateStatus,
    WorkerStatus,
)
from snakepit.pools.cli.output import PROBLEM, json_line, report_errors, terminal
from snakepit.pools.cli.parameters import PATIENCE, AsJson
from snakepit.pools.cli.project import find_address
from snakepit.pools.client import connect

if TYPE_CHECKING:
    from rich.table import Table

STYLES = {"ready": "green", "starting": "cyan", "degraded": "yellow", "paused": "yellow", "failed": "bold red"}
SHORT = ("failed", "starting", "degraded")
NARROW = 100  # columns for a pipe, where the terminal's width is not known


def register(app: typer.Typer) -> None:
    app.command("status")(status)


def status(
    pool: Annotated[str, typer.Option(help="Only this pool.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show the broker, its pools and their workers. Exits with 1 if a pool has failed or a problem is reported."""
    with report_errors(as_json):
        client = connect(find_address())
        found = client.status(pool, timeout=PATIENCE)
        events = () if as_json else client.watch(timeout=PATIENCE).events
    if as_json:
        typer.echo(json_line(found))
    else:
        _show(found, last_deaths(found, events))
    if found.node.problems or any(pool.state == "failed" for pool in found.pools):
        raise typer.Exit(PROBLEM)


def _show(found: BrokerStatus, deaths: Mapping[str, RecordedEvent]) -> None:
    width = None if sys.stdout.isatty() else NARROW
    console = terminal(width=width, no_color=bool(os.environ.get("NO_COLOR")), highlight=False)
    node = found.node
    clock = "" if node.clock == "beat" else f", clock: {node.clock}"
    console.print(
        f"broker {node.name} (pid {node.pid}, up {_duration(node.uptime)}, Python {node.python}{clock})",
        markup=False,
        soft_wrap=True,
    )
    if node.draining:
        console.print(f"draining: {drain_line(node)}", style="bold yellow", markup=False, soft_wrap=True)
    for problem in node.problems:
        console.print(f"problem: {problem}", style="bold red", markup=False, soft_wrap=True)
    if not found.pools:
        console.print('No pools. Define one in SNAKEPIT["POOLS"] or in the admin.', markup=False)
        return
    console.print(_pools(found.pools))
    for pool in found.pools:
        template = _template(pool.template)
        for text in [pool.interpreter, pool.parallel, template, pool.reason, *pool.warnings]:
            if text:
                style = STYLES.get(pool.state, "")
                console.print(f"{pool.name}: {text}", style=style, markup=False, soft_wrap=True)
        if death := deaths.get(pool.name):
            console.print(f"{pool.name}: {death.worker} {death.message}", style="red", markup=False, soft_wrap=True)
    if found.workers:
        console.print(_workers(found.workers))


def last_deaths(found: BrokerStatus, events: Iterable[RecordedEvent]) -> dict[str, RecordedEvent]:
    """How the newest worker died, for each pool that is short of workers. `events` with the oldest first."""
    short = {pool.name for pool in found.pools if pool.state in SHORT}
    return {one.pool: one for one in events if one.kind == "worker.died" and one.pool in short}


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


def new_table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        numbers = name in {"ready", "busy", "free", "waiting", "done", "memory", "load", "served", "pid", "age"}
        table.add_column(name, justify="right" if numbers else "left", no_wrap=name != "why")
    return table


def _pools(pools: Sequence[PoolStatus]) -> Table:
    from rich.text import Text

    table = new_table("pool", "profile", "state", "ready", "busy", "free", "waiting", "done", "memory")
    for pool in pools:
        table.add_row(
            Text(pool.name),
            pool.profile,
            Text(pool.state, STYLES.get(pool.state, "")),
            f"{pool.ready}/{pool.size}",
            str(pool.busy),
            f"{pool.free}/{pool.slots}",
            str(pool.waiting),
            str(pool.finished),
            megabytes(pool.memory_mb or None),  # 0: no worker is measured yet
        )
    return table


def _workers(workers: Sequence[WorkerStatus]) -> Table:
    from rich.text import Text

    table = new_table("worker", "pid", "state", "load", "served", "memory", "gil", "why")
    for worker in workers:
        culprit = f"GIL on because of {worker.gil_culprit}" if worker.gil_culprit else ""
        table.add_row(
            Text(worker.id),
            str(worker.pid),
            Text(worker.state, STYLES.get(worker.state, "")),
            f"{worker.load}/{worker.capacity}",
            str(worker.served),
            megabytes(worker.memory_mb),
            worker.gil + (f" {worker.parallelism:.1f} x" if worker.parallelism else ""),
            Text(worker.reason or culprit),
        )
    return table


def megabytes(memory: float | None) -> str:
    """`-` if it is not measured.

    >>> megabytes(18.2), megabytes(-1.0), megabytes(None)
    ('18 MiB', '-', '-')
    """
    return "-" if memory is None or memory < 0 else f"{memory:.0f} MiB"


def _duration(seconds: float) -> str:
    """Two units at most.

    >>> _duration(5), _duration(125), _duration(90_000)
    ('5 s', '2 min 5 s', '1 d 1 h')
    """
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, seconds = divmod(int(seconds), size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
