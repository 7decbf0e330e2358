"""What `snakepit events --all-nodes` passes on."""

from __future__ import annotations

from snakepit.pools.broker.status import BrokerStatus, RecordedEvent
from snakepit.pools.cli.cluster_events import EventFeed
from snakepit.pools.cli.events import line
from snakepit.pools.client.cluster_status import NodeAnswer
from tests.statuses import event, status


def of(node: str, *events: RecordedEvent) -> BrokerStatus:
    return status(events=events, name=node)


def test_each_round_has_what_is_new_on_all_nodes_in_order_of_time() -> None:
    said: list[str] = []
    reader = EventFeed(said.append)
    first = [NodeAnswer("a", of("a", event(1, at=30.0))), NodeAnswer("b", of("b", event(1, at=10.0)))]
    found = reader.take(first, 100.0)
    assert [(one.node, one.at) for one in found.events] == [("b", 10.0), ("a", 30.0)]
    assert found.whole
    again = [NodeAnswer("a", of("a", event(1, at=30.0), event(2, at=40.0))), NodeAnswer("b", of("b"))]
    assert [(one.node, one.seq) for one in reader.take(again, 101.0).events] == [("a", 2)]
    assert said == []


def test_a_node_that_does_not_answer_is_named_once_and_again_when_it_is_back() -> None:
    said: list[str] = []
    reader = EventFeed(said.append)
    away = [NodeAnswer("a", of("a")), NodeAnswer("b", None, "no answer within 0.8 s", seen_at=40.0)]
    assert [reader.take(away, 100.0).whole, reader.take(away, 101.0).whole] == [False, False]
    assert said == ["node b: not answering: no answer within 0.8 s; last seen 1 min ago"]
    assert reader.take([NodeAnswer("a", of("a")), NodeAnswer("b", of("b"))], 102.0).whole
    assert said[1:] == ["node b answers"]


def test_a_line_has_the_node_where_all_nodes_are_shown() -> None:
    one = event(1, message="ready", node="gpu-1")
    assert " gpu-1 worker.started" in line(one, of_node=True)
    assert "gpu-1" not in line(one)
