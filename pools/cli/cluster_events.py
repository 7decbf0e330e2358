"""`snakepit events --all-nodes`: the events of all nodes in order of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from snakepit.pools.broker.text import one_line
from snakepit.pools.cli.cluster import last_seen, project_client
from snakepit.pools.cli.project import start_django
from snakepit.pools.client.cluster_status import NodeAnswer, NodeSummary, merge
from snakepit.pools.client.node_events import NodeEvents, in_order

if TYPE_CHECKING:
    from snakepit.pools.broker.status import RecordedEvent

EVERY = 0.5  # seconds between two questions of --follow
FIND_EVERY = 5.0  # seconds between two reads of which nodes there are
KEPT = 10_000  # events of each node: more than a broker keeps


@dataclass(frozen=True, slots=True)
class Round:
    """The new events of all nodes that answered, the oldest first."""

    events: Sequence[RecordedEvent]
    whole: bool  # all nodes answered


class EventFeed:
    """Finds what is new in each round of answers, and reports the nodes that stopped or began to answer."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._events = NodeEvents(KEPT)
        self._away: set[str] = set()

    def numbers(self) -> dict[str, int]:
        """The number after which each node is asked for events."""
        return self._events.numbers()

    def take(self, answers: Iterable[NodeAnswer], now: float) -> Round:
        """Take a round."""
        given = list(answers)
        found = [event for one in given if one.status is not None for event in self._events.add(one.status)]
        away = {one.name: one for one in merge(given, now).away}
        for name in sorted(away.keys() - self._away):
            self._say(away_line(away[name]))
        for name in sorted(self._away - away.keys()):
            self._say(f"node {name} answers")
        self._away = set(away)
        return Round(in_order(found), not away)


def away_line(node: NodeSummary) -> str:
    return one_line(f"node {node.name}: {node.state}: {node.reason}{last_seen(node)}")


def rounds(*, follow: bool) -> Iterator[Round]:
    """What all nodes have; with `follow`, again and again what is new."""
    start_django()
    from snakepit.pools.operations import all_nodes

    reader, broker = EventFeed(lambda text: typer.echo(text, err=True)), project_client()
    nodes, looked = all_nodes.known(broker), time.monotonic()
    yield reader.take(all_nodes.ask(nodes, events=reader.numbers()), time.time())
    while follow:
        time.sleep(EVERY)
        if time.monotonic() - looked >= FIND_EVERY:
            nodes, looked = all_nodes.known(broker), time.monotonic()
        yield reader.take(all_nodes.ask(nodes, events=reader.numbers()), time.time())
