"""The alerts of all nodes: those of each broker with its node, and one for each node that does not answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from snakepit.pools.broker.status import RecordedEvent
from snakepit.pools.client.cluster_status import NodeAnswer
from snakepit.pools.dashboard.alerts import ERROR, Alert, StoredState, of_broker, of_stored

Events = Callable[[str], Sequence[RecordedEvent]]


def alerts_of_nodes(
    answers: Iterable[NodeAnswer], events: Events, stored: StoredState, objective: float, now: float
) -> list[Alert]:
    """Each alert of a broker with its node alone: `together` joins those that several nodes share.

    `events` returns those of a node, the newest first.
    """
    answers = list(answers)
    found = of_stored(stored, {one.name for one in answers if one.status is not None})
    silent = {name for name, _ in stored.silent_nodes}
    for answer in answers:
        if answer.status is not None:
            own = of_broker(answer.status, events(answer.name), stored, objective, now)
            found += [replace(alert, nodes=(answer.name,)) for alert in own]
        elif answer.name not in silent:  # the alert of a silent node says more: its broker reports nothing at all
            title = f"Node {answer.name} does not answer"
            found.append(Alert(f"away:{answer.name}", ERROR, title, answer.reason, "nodes", nodes=(answer.name,)))
    return found


def together(found: Iterable[Alert]) -> list[Alert]:
    """Join the alerts that differ only in their node and time, such as a paused pool: since the first of them."""
    groups: dict[Alert, list[Alert]] = {}
    for alert in found:
        groups.setdefault(replace(alert, nodes=(), since=0.0, first_seen=False), []).append(alert)
    return [_joined(alerts) for alerts in groups.values()]


def _joined(alerts: Sequence[Alert]) -> Alert:
    first = min(alerts, key=lambda alert: alert.since)
    return replace(first, nodes=tuple(node for alert in alerts for node in alert.nodes))
