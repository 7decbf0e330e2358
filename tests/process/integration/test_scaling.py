"""What the machine can carry, over REST: who may see it, and what is said without evidence or a pool."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client

from snakepit.pools.diagnostics import scaling
from snakepit.pools.diagnostics.advice import Capacity
from tests.process.integration.fakes import FakeClient
from tests.statuses import run_times, usage

pytestmark = pytest.mark.django_db
URL = "/api/diagnostics/scaling"
USAGE = usage(seconds=600.0, answered=6000, cpu_per_call=0.1, cpu_calls=5000, busy=0.5, wait_p95=0.0)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, broker: FakeClient) -> None:
    monkeypatch.setattr("snakepit.pools.api.diagnostics.room_here", lambda *_: Capacity(cores=2.0, free_mb=100_000.0))


def test_the_answer_has_its_limits_and_the_figures_used(
    client: Client, make_key: Callable[..., str], broker: FakeClient
) -> None:
    broker.change_pool(usage=USAGE, run_times=(run_times("classify", 100, 10.0),))
    found = client.get(URL, {"pool": "digits"}, headers={"Authorization": make_key("view")}).json()
    limits = {one["resource"]: one for one in found["limits"]}
    assert limits["CPU"]["calls_per_second"] == 20.0
    assert set(limits) == {scaling.SIZE, scaling.CPU, scaling.MEMORY, scaling.LARGEST}
    assert (found["facts"]["cpu_per_call"], found["facts"]["served"]) == (0.1, 6000)


def test_without_evidence_it_names_nothing(client: Client, make_key: Callable[..., str]) -> None:
    found = client.get(URL, {"pool": "digits"}, headers={"Authorization": make_key("view")}).json()
    assert (found["verdict"], found["binds"], found["carries"]) == ("not enough evidence", None, None)


def test_an_unknown_pool_another_scope_and_another_pool_are_refused(
    client: Client, make_key: Callable[..., str]
) -> None:
    def status(pool: str, key: str) -> int:
        return client.get(URL, {"pool": pool}, headers={"Authorization": key}).status_code

    assert status("nobody", make_key("view")) == 404
    assert status("digits", make_key("run")) == 403
    assert status("digits", make_key("view", pools=["primes"])) == 403
