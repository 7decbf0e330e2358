"""`snakepit recycle`, `scale`, `pause`, `resume`, `drain` and `kill`: orders of operators from a shell."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snakepit.pools.broker.status import BrokerStatus, RecyclePlan
from snakepit.pools.cli import node_drain, scale_warning
from snakepit.pools.cli.cluster import client_at, project_client
from snakepit.pools.cli.output import PROBLEM, Problem, UsageError, json_line, report_errors, terminal
from snakepit.pools.cli.parameters import PATIENCE, AsJson, NodeTimeout, Pool, Reason, Worker, Yes
from snakepit.pools.cli.project import find_address, start_django
from snakepit.pools.cli.tables import NARROW, fitted
from snakepit.pools.cli.units import duration
from snakepit.pools.client import Client, connect
from snakepit.pools.client.recycle_result import PoolRecycle

if TYPE_CHECKING:
    from snakepit.pools.operations.orders import Change, Order

WORKER_ID = re.compile(r"(?P<pool>[a-z][a-z0-9_-]*)-[0-9a-f]{4}-[0-9]+")
MAX_REASON = 200  # characters
POLL = 0.25  # seconds between two statuses of a draining pool

Jobs = Annotated[bool, typer.Option("--jobs", help="The pool's jobs alone; calls go on.")]
Node = Annotated[bool, typer.Option("--node", help="The whole node instead of a pool.")]
Target = Annotated[str, typer.Argument(metavar="POOL|WORKER", help="Name of a pool, or id of a worker.")]


def register(app: typer.Typer) -> None:
    for command in (recycle, scale, pause, resume, drain, kill):
        app.command()(command)


def recycle(
    target: Target,
    *,
    worker: Annotated[str, typer.Option(metavar="ID", help="Only this worker of the pool.")] = "",
    node: Annotated[str, typer.Option(metavar="NAME", help="Only on this node, not on each that hosts the pool.")] = "",
    reason: Reason = "",
    preview: Annotated[
        bool, typer.Option("--preview", help="Show what would be replaced and when; change nothing.")
    ] = False,
    timeout: NodeTimeout = PATIENCE,
    as_json: AsJson = False,
) -> None:
    """Replace the workers of a pool, or one worker: the successor is ready first, running calls finish."""
    with report_errors(as_json):
        check_reason(reason)
        client = client_at(node) if node else connect(find_address())
        pool, one = _aim(client, target, worker, timeout)
        if preview:
            _show_plan(client.plan(pool, one, timeout), one, as_json)
        else:
            _recycle(client, pool, one, reason, as_json, node=node, timeout=timeout)


def scale(
    pool: Pool,
    size: Annotated[int, typer.Argument(metavar="SIZE", help="New number of workers.")],
    *,
    yes: Yes = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Change the number of a pool's workers. A pool of the settings gets its old size back when the broker restarts.

    It asks first if the free memory of the broker's machine does not hold the workers.
    """
    with report_errors(as_json):
        check_reason(reason)
        address = find_address()
        warning = scale_warning.check(connect(address), address, pool, size)
        if warning:
            scale_warning.confirm(warning, size, yes)
        done = _change("scale", pool, reason, size)
        _print_change(replace(done, note=f"{done.note} {warning}".strip()), as_json)


def pause(pool: Pool, *, jobs: Jobs = False, reason: Reason = "", as_json: AsJson = False) -> None:
    """Refuse new calls. Running and waiting calls finish, and the workers stay warm. With --jobs, only jobs wait."""
    with report_errors(as_json):
        if jobs:
            _queue(pool, True, reason, as_json)
            return
        _print_change(_change("pause", pool, reason), as_json)


def _queue(pool: str, pause: bool, reason: str, as_json: bool) -> None:
    check_reason(reason)
    if not pool:
        raise UsageError("--jobs needs the name of a pool")
    start_django()
    from snakepit.pools.operations import queue_orders
    from snakepit.pools.operations.orders import Order

    work = queue_orders.pause_queue if pause else queue_orders.resume_queue
    changed = work(pool, Order(name_actor(), reason, surface="shell"))
    text = f"{pool}: {'its jobs wait; calls go on' if pause else 'its jobs run'}"
    typer.echo(json_line({"pool": pool, "queue_paused": pause, "changed": changed}) if as_json else text)


def resume(
    pool: Annotated[str, typer.Argument(metavar="POOL", help="Name of the pool.", show_default=False)] = "",
    *,
    node: Node = False,
    jobs: Jobs = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Take calls again: a pool that was paused, or with --node the node that was drained. With --jobs, run its jobs."""
    with report_errors(as_json):
        check_reason(reason)
        _one_of(pool, node, "POOL")
        if jobs:
            _queue(pool, False, reason, as_json)
            return
        if node:
            node_drain.resume_node(name_actor(), reason, as_json=as_json)
            return
        _print_change(_change("resume", pool, reason), as_json)


def drain(
    target: Annotated[
        str, typer.Argument(metavar="POOL|WORKER", help="Name of a pool, or id of a worker.", show_default=False)
    ] = "",
    *,
    node: Node = False,
    preview: Annotated[bool, typer.Option("--preview", help="Show the calls of the node; change nothing.")] = False,
    reason: Reason = "",
    timeout: Annotated[float, typer.Option(min=0.0, help="Seconds to wait until it is empty.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """A pool: pause it and wait until no call runs or waits. A worker: replace it, its successor first.

    With --node: take no new calls on the whole node, and wait until it is empty. Exits with 1 if it is not empty before
    --timeout. It takes calls again after `snakepit resume`; a node also when its broker restarts.
    """
    with report_errors(as_json):
        check_reason(reason)
        _one_of(target, node, "POOL or WORKER")
        if preview and not node:
            raise UsageError("--preview: only with --node; for a pool or a worker use recycle --preview")
        if preview:
            node_drain.preview_drain(as_json=as_json)
            return
        if node:
            node_drain.drain_node(name_actor(), reason, timeout, as_json=as_json)
            return
        client = connect(find_address())
        pool, worker = _aim(client, target, "")
        if worker:
            _recycle(client, pool, worker, reason, as_json)
            return
        change = _change("pause", pool, reason)
        if not change.in_force:
            raise Problem(f"{pool} is paused in its row, but not in the broker. {change.note}")
        running, waiting = _wait(client, pool, timeout)
        empty = running + waiting == 0
        if as_json:
            typer.echo(json_line({**asdict(change), "running": running, "waiting": waiting, "drained": empty}))
        elif empty:
            typer.echo(f"{pool}: empty and paused; its workers stay warm. Take calls again: snakepit resume {pool}")
        if not empty:
            typer.echo(f"{pool}: after {timeout:g} s {running} calls run and {waiting} wait; it stays paused", err=True)
            raise typer.Exit(PROBLEM)


def kill(
    worker: Worker,
    *,
    reason: Reason = "",
    timeout: NodeTimeout = PATIENCE,
    as_json: AsJson = False,
) -> None:
    """End the process of a worker now. Its calls fail, or run again if idempotent; a new worker takes its place."""
    with report_errors(as_json):
        check_reason(reason)
        client = connect(find_address())
        pool = _aim(client, worker, "", timeout)[0]
        try:
            start_django()
        except UsageError:  # without a project the broker's event is the only record
            client.kill(worker, actor=name_actor(), reason=reason)
        else:
            from snakepit.pools.operations import orders, pool_nodes

            order = orders.Order(name_actor(), reason, surface="shell")
            pool_nodes.kill(project_client(), pool, worker, order, timeout)
        typer.echo(json_line({"pool": pool, "worker": worker}) if as_json else f"{worker}: killed")


def _one_of(target: str, node: bool, what: str) -> None:
    if bool(target) == node:
        raise UsageError(f"give {what}, or --node" if not target else f"{target}: not together with --node")


def _aim(client: Client, target: str, worker: str, timeout: float = PATIENCE) -> tuple[str, str]:
    """The pool and the worker (empty: all of them) that a command line means."""
    found = client.status(timeout=timeout)
    if target in {pool.name for pool in found.pools}:
        return target, worker
    owner = pool_of(found, target)
    if not owner:
        return target, worker  # the broker answers that there is no such pool
    if worker not in ("", target):
        raise UsageError(f"--worker {worker} is not {target}: name the pool, or one worker")
    return owner, target


def pool_of(status: BrokerStatus, worker: str) -> str:
    """The pool of a worker, by the broker's status or, for a worker that is gone, by its id; empty: no such id."""
    if found := status.worker(worker):
        return found.pool
    match = WORKER_ID.fullmatch(worker)
    return match["pool"] if match else ""  # the broker answers that there is no such worker


def _recycle(
    client: Client, pool: str, worker: str, reason: str, as_json: bool, *, node: str = "", timeout: float = PATIENCE
) -> None:
    done = _order_recycle(client, pool, worker, reason, node, timeout)
    planned = done.planned
    if as_json:
        typer.echo(json_line({"pool": pool, "worker": worker, **asdict(done)}))
    else:
        what = "1 worker is" if planned == 1 else f"{planned} workers are"
        typer.echo(f"{pool}: {what} to be replaced, each by a successor; watch it with: snakepit status --pool {pool}")
        for one in done.nodes if len(done.nodes) > 1 else ():
            typer.echo(f"{pool} on {one.node}: {one.error or f'{one.planned} to be replaced'}", err=bool(one.error))
    if done.failures:
        raise typer.Exit(PROBLEM)


def _order_recycle(client: Client, pool: str, worker: str, reason: str, node: str, timeout: float) -> PoolRecycle:
    try:
        start_django()
    except UsageError:  # without a project the broker's event is the only record
        planned = client.recycle(pool, worker=worker, actor=name_actor(), reason=reason)
        return PoolRecycle(planned, ())
    from snakepit.pools.operations import orders, pool_nodes

    order = orders.Order(name_actor(), reason, surface="shell")
    return pool_nodes.recycle(project_client(), pool, worker, order, node, timeout)


def _change(verb: str, pool: str, reason: str, *more: Any) -> Change:
    check_reason(reason)
    with _database():
        start_django()
        from snakepit.pools.operations import orders

        act: Callable[..., Change] = getattr(orders, verb)
        order: Order = orders.Order(name_actor(), reason, surface="shell")
        return act(connect(find_address()), pool, *more, order)


@contextlib.contextmanager
def _database() -> Iterator[None]:
    from django.db import DatabaseError

    try:
        yield
    except DatabaseError as error:
        raise Problem(f"the database does not answer as it should: {error}; is it migrated?") from error


def _wait(client: Client, pool: str, timeout: float) -> tuple[int, int]:
    """Wait until no call runs or waits, or until the timeout; returns both counts. Progress goes to standard error."""
    end, shown = time.monotonic() + timeout, ""
    while True:
        found = client.status(pool, timeout=PATIENCE)
        running = sum(worker.load for worker in found.workers)
        waiting = found.pools[0].waiting
        left = end - time.monotonic()
        if running + waiting == 0 or left <= 0:
            return running, waiting
        if (text := f"{pool}: {running} running, {waiting} waiting") != shown:
            typer.echo(text, err=True)
            shown = text
        time.sleep(min(POLL, left))


def check_reason(reason: str) -> None:
    if len(reason) > MAX_REASON:
        raise UsageError(f"--reason: {len(reason)} characters, at most {MAX_REASON} are kept")


def name_actor() -> str:
    try:
        return f"shell user {getpass.getuser()}"
    except (KeyError, OSError):  # a container's user may have no name
        return f"shell user {os.getuid()}"


def _print_change(change: Change, as_json: bool) -> None:
    if as_json:
        typer.echo(json_line(change))
        return
    state = "paused" if change.paused else "taking calls"
    before = "" if change.changed else " (it was so before)"
    workers = "1 worker" if change.size == 1 else f"{change.size} workers"
    typer.echo(f"{change.pool}: {workers}, {state}{before}{', in force' if change.in_force else ''}")
    if change.note:
        typer.echo(change.note, err=True)


def _show_plan(plan: RecyclePlan, chosen: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json_line(plan))
        return
    from rich.text import Text

    columns: dict[str, list[str | Text]] = {
        "turn": [str(one.in_turn or "-") for one in plan.workers],
        "worker": [Text(one.id) for one in plan.workers],
        "state": [one.state for one in plan.workers],
        "load": [str(one.load) for one in plan.workers],
        "served": [str(one.served) for one in plan.workers],
        "age": [duration(one.age) for one in plan.workers],
        "ttl in": [_until(one.seconds_until_ttl) for one in plan.workers],
        "starts in": [_until(one.seconds_until_successor) for one in plan.workers],
        "calls left": ["-" if one.calls_until_max is None else str(one.calls_until_max) for one in plan.workers],
        "why": [
            Text(f"{one.reason}: {one.detail}; {one.effect}" if one.reason else one.effect) for one in plan.workers
        ],
    }
    console = terminal(width=None if sys.stdout.isatty() else NARROW + 40, highlight=False)
    console.print(fitted(console, columns, less=("served", "starts in", "calls left", "ttl in", "load", "age")))
    leaving = sum(one.in_turn > 0 for one in plan.workers)
    busy = sum(one.in_turn > 0 and one.load > 0 for one in plan.workers)
    known = f", a start takes {plan.load_seconds:.1f} s" if plan.load_seconds else ""
    console.print(
        f"{chosen or plan.pool}: {leaving} would be replaced, {busy} of them busy; {plan.at_once} at a time "
        f"(max_surge {plan.max_surge}, max_unavailable {plan.max_unavailable}{known}). Nothing was done.",
        markup=False,
        soft_wrap=True,
    )


def _until(seconds: float | None) -> str:
    return "-" if seconds is None else duration(round(max(0.0, seconds)))
