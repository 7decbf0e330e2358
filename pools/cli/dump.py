"""`snakepit dump`: the stacks of all threads of a live worker."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import typer

from snakepit.pools.broker.status import ThreadStack, WorkerDump
from snakepit.pools.cli.cluster import project_client
from snakepit.pools.cli.operate import check_reason, name_actor, pool_of
from snakepit.pools.cli.output import UsageError, json_line, report_errors
from snakepit.pools.cli.parameters import PATIENCE, AsJson, NodeTimeout, Reason, Worker
from snakepit.pools.cli.project import find_address, start_django
from snakepit.pools.client import Client, connect

STATES = {"R": "runs", "S": "sleeps", "D": "waits for a device", "T": "stopped", "t": "traced", "Z": "ended"}


def register(app: typer.Typer) -> None:
    app.command("dump")(dump)


def dump(
    worker: Worker,
    *,
    reason: Reason = "",
    timeout: NodeTimeout = PATIENCE,
    as_json: AsJson = False,
) -> None:
    """Show the Python stacks of all threads of a live worker, also while C code holds the GIL. Linux."""
    with report_errors(as_json):
        check_reason(reason)
        found = _order(connect(find_address()), worker, reason, timeout)
    typer.echo(json_line(found) if as_json else "\n".join(lines(found)))


def _order(client: Client, worker: str, reason: str, timeout: float) -> WorkerDump:
    try:
        start_django()
    except UsageError:  # a broker's socket alone, without its project: then its event is the only record
        return client.dump(worker, actor=name_actor(), reason=reason)
    from snakepit.pools.operations import orders, pool_nodes

    pool = pool_of(client.status(timeout=timeout), worker)
    order = orders.Order(name_actor(), reason, surface="shell")
    return pool_nodes.dump(project_client(), pool, worker, order, timeout)


def lines(found: WorkerDump) -> Iterator[str]:
    """
    >>> from snakepit.pools.broker.status import StackFrame
    >>> thread = ThreadStack(7, "python", "R", 1.5, (StackFrame("a.py", 3, "f"),))
    >>> for line in lines(WorkerDump("p-1", "p", 7, 0.0, (thread,), ())):
    ...     print(line.partition(" at ")[0])
    worker p-1 of pool p, pid 7,
    holds no call
    <BLANKLINE>
    thread 7 (main, python): runs, 1.50 s of CPU
      a.py:3 in f
    """
    at = datetime.fromtimestamp(found.at).astimezone().isoformat(timespec="milliseconds")
    yield f"worker {found.worker} of pool {found.pool}, pid {found.pid}, at {at}"
    for call in found.calls:
        yield f"holds {call.command} ({call.id}) for {call.seconds:.1f} s, {call.remaining:.1f} s are left"
    if not found.calls:
        yield "holds no call"
    for one in found.threads:
        yield from _thread(one, main=one.thread == found.pid)


def _thread(one: ThreadStack, *, main: bool) -> Iterator[str]:
    state = STATES.get(one.state, one.state)
    yield ""
    yield f"thread {one.thread} ({'main, ' if main else ''}{one.name}): {state}, {one.cpu_seconds:.2f} s of CPU"
    if one.note:
        yield f"  {one.note}"
    yield from (f"  {frame.file}:{frame.line or '?'} in {frame.function}" for frame in one.frames)
