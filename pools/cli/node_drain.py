"""`snakepit drain --node` and `resume --node`: preview, order and wait for the drain of a whole node."""

from __future__ import annotations

import time

import typer

from snakepit.pools.cli.output import PROBLEM, UsageError, json_line
from snakepit.pools.cli.parameters import PATIENCE
from snakepit.pools.cli.project import find_address, start_django
from snakepit.pools.client import connect
from snakepit.pools.client.drain_status import DrainStatus, drain_status

POLL = 0.25  # seconds between two statuses of a draining node


def preview_drain(*, as_json: bool) -> None:
    """Show the calls of the node; change nothing."""
    now = drain_status(connect(find_address()).status(timeout=PATIENCE))
    if as_json:
        typer.echo(json_line(now))
        return
    for pool in now.pools:
        left = f", the longest may take {pool.longest:.0f} s more" if pool.running else ""
        typer.echo(f"{pool.pool}: {pool.running} running and {pool.waiting} waiting calls would be finished{left}")
    typer.echo(f"{now.node}: new calls would be refused, whatever their pool; jobs would wait. Nothing was done.")


def drain_node(actor: str, reason: str, timeout: float, *, as_json: bool) -> None:
    """Order the drain and wait until no call runs or waits on the node."""
    now = _order("drain", actor, reason)
    now = _wait(now.node, timeout)
    if as_json:
        typer.echo(json_line(now))
    elif now.empty:
        typer.echo(f"{now.node}: empty, its workers stay warm. Take calls again: snakepit resume --node")
    if not now.empty:
        left = f"{now.running} calls run and {now.waiting} wait"
        typer.echo(f"{now.node}: after {timeout:g} s {left}; it takes no new ones", err=True)
        raise typer.Exit(PROBLEM)


def resume_node(actor: str, reason: str, *, as_json: bool) -> None:
    now = _order("resume", actor, reason)
    typer.echo(json_line(now) if as_json else f"{now.node}: takes calls")


def _order(action: str, actor: str, reason: str) -> DrainStatus:
    client = connect(find_address())
    try:
        start_django()
    except UsageError:  # without a project the broker's event is the only record
        (client.drain if action == "drain" else client.resume)(actor=actor, reason=reason)
        return drain_status(client.status(timeout=PATIENCE))
    from snakepit.pools.operations import node_drain
    from snakepit.pools.operations.orders import Order

    here = client.status(timeout=PATIENCE).node.name
    given = Order(actor, reason, surface="shell")
    return (node_drain.drain if action == "drain" else node_drain.resume)(client, here, given)


def _wait(node: str, timeout: float) -> DrainStatus:
    """Wait until no call runs or waits, or until the timeout. Progress goes to standard error."""
    client, end, shown = connect(find_address()), time.monotonic() + timeout, ""
    while True:
        now = drain_status(client.status(timeout=PATIENCE))
        left = end - time.monotonic()
        if now.empty or left <= 0:
            return now
        if (text := f"{node}: {now.running} running, {now.waiting} waiting") != shown:
            typer.echo(text, err=True)
            shown = text
        time.sleep(min(POLL, left))
