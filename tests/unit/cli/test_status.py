"""`snakepit status`: what it shows beside the tables."""

from __future__ import annotations

from snakepit.pools.cli.status import last_deaths
from tests.statuses import event, pool, status


def test_a_pool_that_is_short_of_workers_shows_its_newest_death() -> None:
    found = status([pool("p", state="starting"), pool("q", state="ready")])
    events = [
        event(1, "worker.died", message="died before it was ready, ImportError: one"),
        event(2, "worker.died", message="died before it was ready, ImportError: two"),
        event(3, "worker.started"),
        event(4, "worker.died", pool="q"),
    ]
    deaths = last_deaths(found, events)
    assert {name: one.message for name, one in deaths.items()} == {"p": "died before it was ready, ImportError: two"}
