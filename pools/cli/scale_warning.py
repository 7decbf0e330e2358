"""The question of `snakepit scale` before an order that the memory of the broker's machine does not hold."""

from __future__ import annotations

import sys

import typer

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.cli.output import Problem
from snakepit.pools.cli.parameters import PATIENCE
from snakepit.pools.client import Client


def check(client: Client, address: str, pool: str, size: int) -> str:
    """The warning for this size; empty: it fits, it is not known, or no broker answers (the order reports that)."""
    from snakepit.pools.diagnostics.scale_room import facts_here
    from snakepit.pools.diagnostics.scaling import memory_warning

    try:
        status = client.status(timeout=PATIENCE)
    except BrokerError:
        return ""
    facts = facts_here(status, pool, address)
    return memory_warning(facts, size) if facts else ""


def confirm(warning: str, size: int, yes: bool) -> None:
    """Ask on a terminal. Raises Problem in a script without --yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Problem(f"{warning} Nothing was changed: add --yes to scale anyway")
    typer.echo(warning, err=True)
    typer.confirm(f"Scale to {size:,}?", abort=True, err=True)
