"""Pages and readiness while the broker is frozen: its socket accepts connections, and nothing answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client

from snakepit.pools.broker.errors import DeadlineExceeded
from snakepit.pools.client import connect, shared
from snakepit.pools.dashboard.hub import Hub
from snakepit.pools.models import Pool
from tests.process.integration.fakes import FakeClient, unreachable

BOUND = 1.0  # seconds that a page or a probe may wait for the broker
PAGES = ("/", "/pools/digits/", "/workers/digits-1/", "/playground/?pool=digits", "/pools/digits/recycle/")


@pytest.fixture(autouse=True)
def fresh_hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub()
    for module in ("page", "stream", "series"):
        monkeypatch.setattr(f"snakepit.pools.dashboard.{module}.hub", hub)
    monkeypatch.setattr("snakepit.pools.dashboard.hub.FRESH", 0.0)
    return hub


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A listening socket that nothing reads, as after SIGSTOP."""
    path = tmp_path / "b.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with connect(str(path), token="secret") as client:
            monkeypatch.setattr(shared, "client", lambda: client)
            yield


@pytest.mark.django_db
def test_a_silent_broker_has_its_own_sentence(admin_client: Client, silent: None) -> None:
    page = admin_client.get("/").content.decode()
    assert "The broker does not respond" in page
    assert "frozen or overloaded" in page
    assert "<code>snakepit broker</code>" not in page  # a second broker would not help
    assert admin_client.get("/live/fragments/?topic=banner").json()["beat"]["state"] == "stale"


@pytest.mark.django_db
def test_an_absent_broker_has_the_command_that_starts_it(admin_client: Client, broker: FakeClient) -> None:
    broker.error = unreachable()
    page = admin_client.get("/").content.decode()
    assert "No broker runs here" in page
    assert "<code>snakepit broker</code>" in page
    assert "frozen" not in page


@pytest.mark.django_db
@pytest.mark.parametrize("url", PAGES)
def test_a_page_waits_for_a_frozen_broker_once_and_briefly(url: str, admin_client: Client, broker: FakeClient) -> None:
    Pool.objects.create(name="digits", adapter="digits", size=2)
    admin_client.get("/")
    broker.patience.clear()
    broker.error = DeadlineExceeded("Status was not answered.")
    page = admin_client.get(url)
    assert page.status_code == 200
    assert sum(broker.patience) <= BOUND, broker.patience
    assert "The data below is from" in page.content.decode()


@pytest.mark.django_db
def test_readiness_waits_for_a_frozen_broker_briefly(client: Client, broker: FakeClient) -> None:
    broker.error = DeadlineExceeded("Status was not answered.")
    assert client.get("/api/ready").status_code == 503
    assert broker.patience
    assert sum(broker.patience) <= BOUND
