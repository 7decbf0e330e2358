"""Pages and readiness while the broker is frozen: its socket accepts connections, and nothing answers."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.test import Client

from snakepit.pools.broker.errors import UNKNOWN, BrokerError, BrokerUnreachable, DeadlineExceeded
from snakepit.pools.client import connect, shared
from snakepit.pools.dashboard.hub import Hub
from snakepit.pools.models import Pool
from snakepit.pools.web.last_status import PATIENCE, PAUSE, SILENT, LastStatus
from tests.process.integration.fakes import FakeClient, unreachable

BOUND = 1.0  # seconds that a page or a probe may wait for the broker
PAGES = ("/", "/pools/digits/", "/workers/digits-1/", "/playground/?pool=digits", "/pools/digits/recycle/")


@pytest.fixture(autouse=True)
def fresh_hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub()
    for module in ("page", "stream", "series"):
        monkeypatch.setattr(f"snakepit.pools.dashboard.{module}.hub", hub)
    monkeypatch.setattr("snakepit.pools.dashboard.hub.FRESH", 0.0)
    monkeypatch.setattr("snakepit.pools.web.last_status.PATIENT_EVERY", 3600.0)  # this machine may stand still, too
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


@pytest.mark.django_db
@pytest.mark.parametrize("error", [DeadlineExceeded("Status was not answered."), unreachable()])
def test_one_request_in_a_second_waits_for_a_broker_that_is_away(
    error: BrokerError, client: Client, broker: FakeClient, make_key: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert PAUSE == 1.0
    monkeypatch.setattr("snakepit.pools.web.last_status.PAUSE", 3600.0)
    headers = {"Authorization": make_key()}
    assert client.get("/api/status", headers=headers).json()["snapshot"]["stale"] is False
    broker.error = error
    broker.patience.clear()
    for _ in range(3):
        assert client.get("/api/status", headers=headers).json()["snapshot"]["stale"] is True
    assert broker.patience == [PATIENCE]


@pytest.mark.django_db
def test_readiness_says_what_is_the_matter_with_the_broker(client: Client, broker: FakeClient) -> None:
    for error, problem in (
        (DeadlineExceeded("Status was not answered."), "the broker does not respond"),
        (unreachable(), "no broker runs here"),
    ):
        broker.error = error
        assert client.get("/api/ready").json()["problems"] == [problem]


@pytest.mark.django_db
def test_only_the_first_page_waits_for_a_broker_that_stays_frozen(admin_client: Client, broker: FakeClient) -> None:
    admin_client.get("/")
    broker.error = DeadlineExceeded("Status was not answered.")
    broker.patience.clear()
    for _ in range(4):
        assert "The broker does not respond" in admin_client.get("/").content.decode()
    first, *later = broker.patience
    assert len(later) == 3
    assert max(later) < first / 2


@pytest.mark.django_db
def test_an_overloaded_broker_has_its_full_time_again_after_a_while(
    admin_client: Client, broker: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakepit.pools.web.last_status.PATIENT_EVERY", 0.0)
    broker.error = DeadlineExceeded("Status was not answered.")
    for _ in range(2):
        admin_client.get("/")
    assert broker.patience == [PATIENCE, PATIENCE]


@pytest.mark.django_db
def test_the_api_has_the_last_status_that_a_page_read(
    admin_client: Client, broker: FakeClient, make_key: Callable[..., str]
) -> None:
    admin_client.get("/")
    broker.error = DeadlineExceeded("Status was not answered.")
    answer = admin_client.get("/api/status", headers={"Authorization": make_key()})
    assert answer.status_code == 200, answer.content
    assert answer.json()["snapshot"]["stale"] is True


def test_another_kind_of_trouble_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    known, clock = LastStatus(), [1000.0]
    monkeypatch.setattr("snakepit.pools.web.last_status.time.time", lambda: clock[0])
    silent = DeadlineExceeded("Status was not answered.")
    assert known.missed(silent).since == 1000.0
    clock[0] = 1010.0
    assert known.missed(silent).since == 1000.0
    # A client closes the connection of a silent broker after a while, and then asks over a new one.
    lost = known.missed(BrokerUnreachable("The connection to the broker was lost.", outcome=UNKNOWN))
    assert (lost.since, lost.kind) == (1000.0, SILENT)
    assert known.missed(silent).since == 1000.0
    assert known.missed(unreachable()).since == 1010.0
    clock[0] = 1020.0
    monkeypatch.setattr("snakepit.pools.web.last_status.UNSEEN", 0.0)  # nothing asked for a long time
    assert known.missed(unreachable()).since == 1020.0


@pytest.mark.django_db
def test_the_banner_has_the_command_for_a_stopped_broker(admin_client: Client, broker: FakeClient) -> None:
    admin_client.get("/")
    pid = broker.status().node.pid
    broker.error = DeadlineExceeded("Status was not answered.")
    page = admin_client.get("/").content.decode()
    assert f"<code>kill -CONT {pid}</code>" in page
    assert "Jobs are stored and wait" in page
    assert "All healthy" not in page
