"""Owners of jobs take turns when jobs are claimed."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from django.db import connection, connections
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext

from snakepit.pools import jobs
from snakepit.pools.jobs import claims, messages
from snakepit.pools.models import Job, Pool
from tests.process.integration.fakes import FakeClient

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def ready(monkeypatch: pytest.MonkeyPatch, broker: FakeClient) -> None:
    monkeypatch.setattr(messages, "send", lambda *_: True)
    monkeypatch.setattr(messages, "send_many", lambda ids, *_, **__: messages.Sent(tuple(ids)))
    for name in ("digits", "primes"):
        Pool.objects.create(name=name, adapter=name, size=1)


def submit(owner: str, count: int, **options: Any) -> list[Job]:
    return jobs.submit_many("digits", "classify", [{}] * count, owner=owner, **options)


def claim(most: int) -> Counter[str]:
    return Counter(job.owner for job in claims.claim_batch("digits", most, "test", "node-1"))


def test_one_owner_with_many_jobs_does_not_hold_up_another() -> None:
    submit("ada", 1000)
    submit("bob", 1)
    submit("", 2)
    assert claim(4)["bob"] == 1
    assert claim(4) == {"ada": 3, "": 1} or claim(4)["ada"] >= 3
    assert Job.objects.filter(state="running").exclude(owner="ada").count() == 3


def test_single_claims_favour_no_owner() -> None:
    submit("ada", 200)
    submit("bob", 1)
    claimed = 0
    while not claim(1)["bob"]:
        claimed += 1
    assert claimed <= 1, "after one job of ada runs, it is bob's turn"


def test_urgent_jobs_come_first_whoever_owns_them() -> None:
    submit("ada", 5)
    submit("ada", 2, priority=9)
    submit("bob", 1)
    found = claims.claim_batch("digits", 3, "test", "node-1")
    assert [(job.owner, job.priority) for job in found] == [("ada", 9), ("ada", 9), ("bob", 0)]


def test_within_an_owner_the_older_job_is_first() -> None:
    mine = submit("ada", 3)
    submit("bob", 3)
    found = [job for job in claims.claim_batch("digits", 4, "test", "node-1") if job.owner == "ada"]
    assert [job.pk for job in found] == [job.pk for job in mine[:2]]


def test_one_owner_alone_costs_no_query_and_two_cost_a_few() -> None:
    submit("ada", 10)
    with CaptureQueriesContext(connection) as alone:
        assert claim(5) == {"ada": 5}
    submit("bob", 1)
    with CaptureQueriesContext(connection) as two:
        found = claims.take_batch("digits", 5, "test", "node-1", alone=False)  # as after the first claim of both
    assert "bob" in {job.owner for job in found.jobs}
    assert len(two) - len(alone) <= 7


@pytest.mark.django_db(transaction=True)
def test_claims_at_the_same_time_share_the_jobs_and_leave_none() -> None:
    submit("ada", 40)
    submit("bob", 40)
    taken: list[Any] = []

    def take() -> None:
        try:
            for number in range(20):
                name = f"{threading.get_ident()}-{number}"
                taken.extend(job.pk for job in claims.claim_batch("digits", 5, name, "node-1"))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=take) for _ in range(4 if connection.vendor == "postgresql" else 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(taken) == len(set(taken)) == 80
    rows: QuerySet[Job] = Job.objects.filter(state="queued")
    assert not rows.exists()
