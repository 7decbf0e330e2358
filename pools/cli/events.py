"""`snakepit events`: what the broker did and why, the oldest first."""

from __future__ import annotations

import contextlib
import fnmatch
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from snakepit.pools.broker.errors import BrokerUnreachable
from snakepit.pools.broker.text import one_line
from snakepit.pools.cli import cluster, cluster_events
from snakepit.pools.cli.cluster_events import Round
from snakepit.pools.cli.completion import complete_pool
from snakepit.pools.cli.output import PROBLEM, RED, YELLOW, UsageError, colour, json_line, report_errors
from snakepit.pools.cli.parameters import PATIENCE, AsJson
from snakepit.pools.cli.project import find_address
from snakepit.pools.client import connect
from snakepit.pools.client.node_events import boot_of

if TYPE_CHECKING:
    from snakepit.pools.broker.status import BrokerStatus, RecordedEvent
    from snakepit.pools.client import Client

EVERY = 0.5  # seconds between two questions of --follow
COLOURS = {"warning": YELLOW, "error": RED}


def register(app: typer.Typer) -> None:
    app.command("events")(events)


def events(
    *,
    pool: Annotated[str, typer.Option(help="Only of this pool.", autocompletion=complete_pool)] = "",
    node: Annotated[str, typer.Option(metavar="NAME", help="Of the node with this name, not that of this host.")] = "",
    all_nodes: Annotated[bool, typer.Option("--all-nodes", help="Of all nodes, in order of time.")] = False,
    kind: Annotated[str, typer.Option(help="Only of this kind, such as worker.died; worker.* matches many.")] = "*",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new events until Ctrl-C.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show what the broker did, and why: the events that it has in memory. With --json one line for each.

    With --all-nodes, each line names its node. A node that does not answer within a second is named on standard error,
    and the exit code is 1.
    """

    def wanted(found: Iterable[RecordedEvent]) -> list[RecordedEvent]:
        return [one for one in found if fnmatch.fnmatchcase(one.kind, kind) and pool in ("", one.pool)]

    whole, newest = True, slice(-limit, None)
    with report_errors(as_json), contextlib.suppress(KeyboardInterrupt):
        if node and all_nodes:
            raise UsageError("give --node or --all-nodes")
        client = None if all_nodes else cluster.client_at(node) if node else connect(find_address())
        for one in cluster_events.rounds(follow=follow) if client is None else _rounds(client, follow=follow):
            found = wanted(one.events)[newest]
            if not (found or follow):
                _explain_none(client, pool, as_json)
            _print(found, as_json, of_node=all_nodes)
            whole, newest = one.whole, slice(None)
    if not whole:
        raise typer.Exit(PROBLEM)


def _explain_none(client: Client | None, pool: str, as_json: bool) -> None:
    """Print that there is no such event; raises if there is no such pool."""
    if client is not None and pool:
        client.status(pool, timeout=PATIENCE)
    if not as_json:
        typer.echo("No such event is among those that the broker has in memory.", err=True)


def _rounds(client: Client, *, follow: bool) -> Iterator[Round]:
    """What one broker has; with `follow`, again and again what is new."""
    first = client.watch(timeout=PATIENCE)
    yield Round(first.events, whole=True)
    if follow:
        for found in _later(client, first):
            yield Round(found, whole=True)


def _later(client: Client, first: BrokerStatus) -> Iterator[tuple[RecordedEvent, ...]]:
    """The new events, again and again. A broker that restarts counts from one again."""
    boot, last = boot_of(first), first.events[-1].seq if first.events else 0
    while True:
        time.sleep(EVERY)
        try:
            status = client.watch(after=last, timeout=PATIENCE)
            if boot_of(status) != boot:
                status = client.watch(timeout=PATIENCE)
        except BrokerUnreachable:  # it restarts, perhaps
            continue
        if boot_of(status) != boot:
            boot, last = boot_of(status), 0
        if status.events:
            last = status.events[-1].seq
        yield status.events


def _print(found: Iterable[RecordedEvent], as_json: bool, *, of_node: bool = False) -> None:
    for event in found:
        typer.echo(json_line(event) if as_json else line(event, of_node=of_node))
    sys.stdout.flush()


def line(event: RecordedEvent, *, of_node: bool = False) -> str:
    """An event as one line: local time, with `of_node` its node, kind, what it is about, and the message."""
    at = datetime.fromtimestamp(event.at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    about = event.worker or event.pool
    text = one_line(f"{about}: {event.message}" if about and not event.message.startswith(about) else event.message)
    shown = f"{at} {one_line(event.node) + ' ' if of_node else ''}{event.kind:<20} {text}"
    return colour(shown, COLOURS[event.level]) if event.level in COLOURS else shown
