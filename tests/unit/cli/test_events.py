"""What `snakepit events --follow` passes on of one broker."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from snakepit.pools.broker.status import BrokerStatus, RecordedEvent
from snakepit.pools.cli import events
from tests.statuses import event, status


class Restarting:
    """A client of a broker that restarts after the first question, under the same process number."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def watch(self, after: int = 0, **_: Any) -> BrokerStatus:
        self.asked.append(after)
        new = len(self.asked) > 1
        found: list[RecordedEvent] = [event(1), event(2)] if new else [event(seq) for seq in range(1, 9)]
        made = status(events=[one for one in found if one.seq > after])
        return replace(made, node=replace(made.node, started_at=2e9 if new else 1e9))


def test_the_events_of_a_broker_that_restarted_are_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVERY", 0)
    client = Restarting()
    rounds = islice(events._rounds(client, follow=True), 3)  # type: ignore[arg-type]
    assert [[one.seq for one in found.events] for found in rounds] == [[*range(1, 9)], [1, 2], []]
    assert client.asked == [0, 8, 0, 2]
