"""The clocks of hosts differ: the database's clock alone says for how long a node is silent."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from snakepit.pools import conf
from snakepit.pools.adapters.records.recorder import DatabaseRecorder
from snakepit.pools.client.routing import discovery
from snakepit.pools.dashboard import stored_state
from snakepit.pools.diagnostics import services
from snakepit.pools.diagnostics.facts import Unknown
from snakepit.pools.models import Node, Pool, hosting
from snakepit.pools.models.pool import sync_pools
from tests import statuses

pytestmark = pytest.mark.django_db(transaction=True)  # the recorder and the readers close connections

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BOTH = pytest.mark.parametrize("offset", [3 * DAY, -3 * DAY], ids=["ahead", "behind"])
SetClock = Callable[[timedelta], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Sets the clock of this host so far from the database's."""

    def set_to(offset: timedelta) -> None:
        for name, module in list(sys.modules.items()):
            if name.startswith("snakepit.") and "utc_now" in vars(module):
                monkeypatch.setattr(module, "utc_now", lambda: datetime.now(UTC) + offset)

    return set_to


@pytest.fixture(autouse=True)
def patient(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour in place of seconds, for a machine that stops meanwhile."""
    adapters = {"digits": "snakepit.examples.digits.Digits"}
    settings.SNAKEPIT = {"NODE_NAME": "n1", "ADAPTERS": adapters, "POOLS": {"digits": {"adapter": "digits"}}}
    monkeypatch.setattr(stored_state, "SILENT", HOUR)
    monkeypatch.setattr(hosting, "FRESH", HOUR)


def write(name: str = "n1") -> None:
    """What a broker writes about its node."""
    recorder = DatabaseRecorder(name)
    recorder.observe(statuses.status(name=name, draining=True, address="/run/none.sock"))
    recorder._flush()


def assert_alive() -> None:
    """Each reader takes the node for one that has just written."""
    assert hosting.is_draining()
    assert stored_state.read_stored_state().silent_nodes == ()
    database = services.database()
    assert not isinstance(database, Unknown)
    assert [(one.name, one.silent < HOUR.total_seconds()) for one in database.nodes] == [("n1", True)]
    assert [one.name for one in discovery._rows()] == ["n1"]


@BOTH
def test_a_node_that_writes_is_alive_whatever_its_clock_says(offset: timedelta, set_clock: SetClock) -> None:
    set_clock(offset)
    write()
    set_clock(timedelta(0))
    assert_alive()


@BOTH
def test_a_host_with_another_clock_takes_no_living_node_for_silent(offset: timedelta, set_clock: SetClock) -> None:
    write()
    set_clock(offset)
    assert_alive()


def test_a_broker_whose_clock_is_ahead_leaves_other_nodes_their_pools(set_clock: SetClock) -> None:
    write("n2")
    assert sync_pools("n2") == ["digits"]
    set_clock(3 * DAY)
    sync_pools("n1")
    assert Pool.objects.get().owners == ["n1", "n2"]


def test_a_silent_node_is_shown_since_its_last_write_by_the_clock_of_the_reader(set_clock: SetClock) -> None:
    write()
    written = time.time() - 2 * HOUR.total_seconds()
    Node.objects.update(seen_at=datetime.fromtimestamp(written, UTC))
    set_clock(3 * DAY)
    ((name, since),) = stored_state.read_stored_state().silent_nodes
    assert name == conf.node_name()
    assert abs(since - written) < HOUR.total_seconds()
    assert not hosting.is_draining()
