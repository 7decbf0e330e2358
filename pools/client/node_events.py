"""The newest events of several brokers in order of time. Pure: no I/O and no clock.

statuses with events ─▶ NodeEvents.add() ─▶ newest(): of all nodes; of(): of one
                                         └▶ numbers(): after which each broker is asked for more
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from snakepit.pools.broker.status import BrokerStatus, RecordedEvent

KEPT = 200  # events of each node

Boot = tuple[int, float]  # pid and start of a broker: another one numbers its events anew


def boot_of(status: BrokerStatus) -> Boot:
    return status.node.pid, status.node.started_at


@dataclass(slots=True)
class _OfNode:
    boot: Boot
    events: tuple[RecordedEvent, ...] = ()  # the newest first
    settled: bool = False  # the same broker has answered twice


class NodeEvents:
    """The newest events of each node."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._nodes: dict[str, _OfNode] = {}
        self._newest: tuple[RecordedEvent, ...] | None = ()  # None: to be sorted again

    def add(self, status: BrokerStatus) -> list[RecordedEvent]:
        """Keep the events of a status, each once; returns those that are new, the oldest first."""
        name, boot = status.node.name, boot_of(status)
        of = self._nodes.get(name)
        if of is None or of.boot != boot:
            of = self._nodes[name] = _OfNode(boot)
            self._newest = None
        else:
            of.settled = True
        have = {event.seq for event in of.events}
        new = [event if event.node else replace(event, node=name) for event in status.events if event.seq not in have]
        if new:
            # A broker that restarted may have been asked for late events alone: the earlier ones come second.
            found = sorted((*new, *of.events), key=lambda event: event.seq, reverse=True)
            of.events = tuple(found[: self._kept])
            self._newest = None
        return new

    def keep(self, names: Collection[str]) -> None:
        """Drop the nodes with other names."""
        for gone in self._nodes.keys() - set(names):
            del self._nodes[gone]
            self._newest = None

    def numbers(self) -> dict[str, int]:
        """The number after which each node is asked for events; none, all, until one broker has answered twice."""
        return {name: of.events[0].seq for name, of in self._nodes.items() if of.settled and of.events}

    def of(self, node: str) -> tuple[RecordedEvent, ...]:
        """The events of one node, the newest first."""
        found = self._nodes.get(node)
        return found.events if found else ()

    def newest(self) -> tuple[RecordedEvent, ...]:
        """The events of all nodes, the newest first."""
        if self._newest is None:
            found = in_order(event for of in self._nodes.values() for event in of.events)
            self._newest = tuple(reversed(found))
        return self._newest


def in_order(events: Iterable[RecordedEvent]) -> Sequence[RecordedEvent]:
    """By time. The events of one node keep their order, also where its clock went back."""
    by_node: dict[str, list[RecordedEvent]] = {}
    for event in sorted(events, key=lambda one: one.seq):
        by_node.setdefault(event.node, []).append(event)
    timed = []
    for node, found in by_node.items():
        latest = 0.0
        for event in found:
            latest = max(latest, event.at)
            timed.append((latest, node, event.seq, event))
    return [event for *_, event in sorted(timed, key=lambda one: one[:3])]
