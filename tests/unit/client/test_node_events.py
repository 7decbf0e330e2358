"""The events of several brokers as one list."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from snakepit.pools.broker.status import BrokerStatus, RecordedEvent
from snakepit.pools.client.node_events import NodeEvents, in_order
from tests.statuses import event, status


def of(node: str, *events: RecordedEvent, pid: int = 1) -> BrokerStatus:
    return status(events=events, name=node, pid=pid)


def shown(events: Iterable[RecordedEvent]) -> list[str]:
    return [f"{one.node}{one.seq}" for one in events]


def test_events_of_all_nodes_are_in_order_of_time_with_their_node() -> None:
    known = NodeEvents()
    known.add(of("a", event(1, at=10.0), event(2, at=40.0)))
    known.add(of("b", event(1, at=20.0), event(2, at=30.0)))
    assert shown(known.newest()) == ["a2", "b2", "b1", "a1"]
    assert shown(known.of("b")) == ["b2", "b1"]
    assert known.of("c") == ()
    known.keep(["b"])
    assert shown(known.newest()) == ["b2", "b1"]


def test_an_event_that_comes_twice_counts_once() -> None:
    known = NodeEvents()
    assert shown(known.add(of("a", event(1), event(2)))) == ["a1", "a2"]
    assert known.numbers() == {}  # only a broker that answered twice is asked for the rest alone
    assert shown(known.add(of("a", event(2), event(3)))) == ["a3"]
    assert shown(known.newest()) == ["a3", "a2", "a1"]
    assert known.numbers() == {"a": 3}


def test_a_broker_that_restarts_begins_anew_and_no_event_of_it_is_lost() -> None:
    known = NodeEvents()
    for _ in range(2):
        known.add(of("a", event(1), event(2)))
    known.add(of("b", event(1)))
    # The new broker was asked for what came after event 2, and already has four.
    assert shown(known.add(of("a", event(3), event(4), pid=2))) == ["a3", "a4"]
    assert known.numbers() == {}
    assert shown(known.add(of("a", event(1), event(2), event(3), event(4), pid=2))) == ["a1", "a2"]
    assert shown(known.of("a")) == ["a4", "a3", "a2", "a1"]
    assert known.numbers() == {"a": 4}


def test_each_node_keeps_its_newest_events() -> None:
    known = NodeEvents(kept=2)
    known.add(of("loud", *(event(number) for number in range(1, 9))))
    known.add(of("quiet", event(1, at=0.5)))
    assert shown(known.newest()) == ["loud8", "loud7", "quiet1"]


def test_a_clock_that_goes_back_does_not_change_the_order_of_one_node() -> None:
    events = [replace(event(number, at=at), node="a") for number, at in ((1, 100.0), (2, 50.0), (3, 60.0))]
    other = replace(event(1, at=70.0), node="b")
    assert shown(in_order([*events, other])) == ["b1", "a1", "a2", "a3"]
