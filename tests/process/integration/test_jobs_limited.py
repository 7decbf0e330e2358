"""Limits of a pool's jobs by pool, owner and argument: claims of all nodes keep them, and each surface shows them."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from snakepit.pools import jobs
from snakepit.pools.cli.main import run as shell
from snakepit.pools.dashboard.hub import Hub
from snakepit.pools.dashboard.stored_state import read_stored_state
from snakepit.pools.jobs import claimer, claims, fairness, leases, limits, messages, queues, reconciler
from snakepit.pools.jobs.workflows import Workflow
from snakepit.pools.models import Job, JobStart, Pool
from snakepit.pools.models.moments import utc_now
from tests.process.integration.fakes import FakeClient

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def hints(monkeypatch: pytest.MonkeyPatch, broker: FakeClient) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    monkeypatch.setattr("snakepit.pools.dashboard.page.hub", Hub())
    monkeypatch.setattr(messages, "send", lambda *_: True)
    monkeypatch.setattr(messages, "send_many", lambda ids, *_, **__: messages.Sent(tuple(ids)))
    monkeypatch.setattr(messages, "pass_on", lambda pool, pause=0.0: found.append((pool, pause)))
    for name in ("digits", "primes"):
        Pool.objects.create(name=name, adapter=name, size=1)
    return found


def limit(*rules: dict[str, Any], pool: str = "digits") -> None:
    row = Pool.objects.get(name=pool)
    row.job_limits = list(rules)
    row.clean()
    row.save()


def submit(owner: str, count: int, *tenants: Any) -> list[Job]:
    rows: list[dict[str, Any]] = [{"tenant": one} for one in tenants] or [{}] * count
    return jobs.submit_many("digits", "classify", rows, owner=owner)


def claim(most: int = 10) -> list[Job]:
    return claims.claim_batch("digits", most, "test", "node-1")


def test_running_jobs_of_an_owner_stay_within_the_limit_and_others_go_on() -> None:
    limit({"by": "owner", "running": 2})
    mine, other = submit("ada", 40), submit("bob", 1)
    taken = claim()
    assert {job.pk for job in taken} == {mine[0].pk, mine[1].pk, other[0].pk}
    assert all(job.limited for job in taken)
    assert claim() == []
    assert claims.claim(mine[2].pk, "test", "node-1") is None
    waiting = Job.objects.get(pk=mine[2].pk)
    assert (waiting.state, waiting.attempts, waiting.failures) == ("queued", 0, 0)
    assert leases.succeed(next(job for job in taken if job.owner == "ada"), 7, {})
    assert [job.pk for job in claim()] == [mine[2].pk]


def test_a_claim_finds_the_one_owner_with_room_behind_many_full_ones_by_few_statements() -> None:
    limit({"by": "owner", "running": 1})
    for number in range(20):
        submit(f"full-{number:02}", 3)
    assert len(claim(20)) == 20
    late = submit("late", 2)
    with CaptureQueriesContext(connection) as found:
        assert [job.pk for job in claim()] == [late[0].pk]
    assert len(found) <= 16, [one["sql"][:80] for one in found]
    assert claim() == []


def test_a_limit_by_an_argument_counts_the_jobs_that_were_submitted_since() -> None:
    (old,) = submit("", 1, "x")
    limit({"by": "argument:tenant", "running": 1})
    first, second, other = submit("", 3, "x", "x", "y")
    single = jobs.submit("digits", "classify", {"tenant": "x"})
    assert (old.limit_key, single.limit_key) == ("", first.limit_key)
    assert {job.pk for job in claim()} == {old.pk, first.pk, other.pk}
    assert Job.objects.filter(state="queued", pk__in=[second.pk, single.pk]).count() == 2


def test_a_claim_finds_the_one_key_with_room_behind_many_jobs_of_full_ones() -> None:
    limit({"by": "argument:tenant", "running": 1})
    submit("ada", 0, *["x"] * 30, *["y"] * 30, "z")
    assert len(claim(2)) == 2
    assert [job.arguments["tenant"] for job in claim(2)] == ["z"]
    (other,) = submit("bob", 1, "new")
    assert [job.pk for job in claim(2)] == [other.pk]
    assert claim(2) == []


@pytest.mark.parametrize("owners", [1, fairness.OWNERS + 1])
def test_a_claim_finds_jobs_without_a_key_among_those_of_full_keys(owners: int) -> None:
    free = [submit(f"owner{number}", 1)[0].pk for number in range(2)]
    limit({"by": "argument:tenant", "running": 1})
    (first,) = submit("", 1, "x")
    assert claims.claim(first.pk, "test", "node-1") is not None
    for number in range(owners):
        submit(f"owner{number}", 0, "x", "x")
    assert {job.pk for job in claim(5)} == set(free)
    assert claim(5) == []


def test_a_rate_counts_starts_also_of_jobs_that_have_ended() -> None:
    limit({"by": "pool", "per_minute": 3})
    submit("ada", 5)
    taken = claim(2)
    for job in taken:
        assert leases.succeed(job, 7, {})
    assert len(claim()) == 1
    batch = claims.take_batch("digits", 10, "test", "node-1")
    assert batch.jobs == []
    assert batch.pause is not None
    assert 0 < batch.pause <= 60
    JobStart.objects.update(at=utc_now() - timedelta(seconds=61))
    assert len(claim()) == 2
    assert JobStart.objects.count() == 3
    JobStart.objects.update(at=utc_now() - timedelta(seconds=121))
    reconciler.reconcile()
    assert not JobStart.objects.exists()


def test_a_pool_without_limits_costs_no_statement_more() -> None:
    submit("ada", 10)
    with CaptureQueriesContext(connection) as found:
        assert len(claim(5)) == 5
    texts = [one["sql"] for one in found if not one["sql"].startswith(("SAVEPOINT", "RELEASE"))]
    assert len(texts) <= (3 if connection.vendor == "postgresql" else 4)
    assert not any("snakepit_jobstart" in text for text in texts)
    (job,) = submit("ada", 1)
    with CaptureQueriesContext(connection) as found:
        assert claims.claim(job.pk, "test", "node-1") is not None
    texts = [one["sql"] for one in found if not one["sql"].startswith(("SAVEPOINT", "RELEASE"))]
    assert len(texts) <= (1 if connection.vendor == "postgresql" else 2)


def test_a_row_with_an_invalid_limit_starts_no_job_and_has_the_reason() -> None:
    (job,) = submit("ada", 1)
    Pool.objects.filter(name="digits").update(job_limits=[{"by": "owner"}])
    assert claim() == []
    assert claims.claim(job.pk, "test", "node-1") is None
    assert limits.reason(job).startswith("waits: the pool's job_limits: entry 0: has no limit; set")


def test_the_next_job_is_claimed_at_the_end_of_one_and_a_rate_sends_a_later_hint(
    hints: list[tuple[str, float]],
) -> None:
    limit({"by": "owner", "running": 1})
    submit("ada", 2)
    source = claimer.Claimer(FakeClient())  # type: ignore[arg-type]
    source._pools["digits"] = claimer._Pool(asked=1.0)
    source._polled = 1.0
    first = source.claim(Counter(), 1.1)
    assert len(first) == 1
    assert source.claim(Counter(digits=1), 1.2) == []
    assert leases.succeed(first[0], 7, {})
    source.note_freed("digits")
    assert len(source.claim(Counter(), 1.3)) == 1
    limit({"by": "owner", "per_minute": 2})
    submit("ada", 1)
    JobStart.objects.create(pool="digits", owner="ada", count=2, at=utc_now())
    source.note_freed("digits")
    assert source.claim(Counter(), 1.4) == []
    assert source.leave(1.5)
    ((pool, pause),) = hints
    assert pool == "digits"
    assert 0 < pause <= messages.LONGEST_COUNTDOWN
    source.hint("digits")
    assert source.claim(Counter(), 1.6) == []
    assert source.leave(1.7)
    assert len(hints) == 1, "hints that each send another one would become more and more"


def test_a_reconcile_sends_a_hint_for_limited_pools_with_jobs(hints: list[tuple[str, float]]) -> None:
    submit("ada", 1)
    assert queues.wake_limited() == 0
    limit({"by": "owner", "running": 1})
    assert queues.wake_limited() == 1
    assert hints == [("digits", 0.0)]


def test_jobs_that_wait_for_a_limit_are_not_overdue() -> None:
    limit({"by": "owner", "running": 1})
    submit("ada", 2)
    Job.objects.update(queued_at=utc_now() - timedelta(hours=1))
    assert read_stored_state().overdue == 2
    claim()
    assert read_stored_state().overdue == 0


def test_a_result_that_becomes_the_argument_decides_the_key() -> None:
    limit({"by": "argument:tenant", "running": 1})
    flow = Workflow()
    flow.job("digits", "classify", tenant=flow.job("primes", "classify"))
    flow.submit()
    (first,) = claims.claim_batch("primes", 1, "test", "node-1")
    assert leases.succeed(first, "x", {})
    (same,) = submit("", 1, "x")
    assert Job.objects.get(pool="digits", workflow__isnull=False).limit_key == same.limit_key


def test_a_clone_counts_for_the_limit_by_an_argument() -> None:
    limit({"by": "argument:tenant", "running": 1})
    (job,) = submit("", 1, "x")
    assert jobs.clone(job.pk).limit_key == job.limit_key != ""


def test_each_surface_shows_the_limit_that_a_job_waits_for(
    client: Client, admin_client: Client, make_key: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    limit({"by": "owner", "running": 1})
    one, two = submit("ada", 2)
    claim()
    wanted = "waits for the limit of 1 running jobs by owner"
    headers = {"Authorization": make_key()}
    assert client.get(f"/api/jobs/{two.pk}", headers=headers).json()["waits_for"] == wanted
    assert client.get(f"/api/jobs/{one.pk}", headers=headers).json()["waits_for"] == ""
    assert shell(["job", str(two.pk), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["waits_for"] == wanted
    assert wanted in admin_client.get(reverse("snakepit:job", args=[two.pk])).content.decode()
    assert "&#x27;running&#x27;: 1" in admin_client.get(reverse("snakepit:pool", args=["digits"])).content.decode()


def test_rest_and_admin_change_the_limits_and_refuse_wrong_ones(
    client: Client, admin_client: Client, make_key: Callable[..., str]
) -> None:
    def change(value: Any) -> Any:
        headers = {"Authorization": make_key("view", "configure")}
        body = json.dumps({"job_limits": value})
        return client.patch("/api/pools/digits", body, content_type="application/json", headers=headers)

    assert change([{"by": "owner", "running": 2}]).status_code == 200
    assert Pool.objects.get(name="digits").job_limits == [{"by": "owner", "running": 2}]
    refused = change([{"by": "owner", "running": 0}])
    assert refused.status_code in (400, 422)
    assert "job_limits: entry 0: running: 0 is not a whole number" in refused.content.decode()
    page = reverse("admin:snakepit_pools_pool_change", args=[Pool.objects.get(name="digits").pk])
    assert 'name="job_limits"' in admin_client.get(page).content.decode()


@pytest.mark.django_db(transaction=True)
def test_claims_at_the_same_time_exceed_no_limit_and_leave_no_job() -> None:
    limit({"by": "pool", "running": 5}, {"by": "owner", "running": 3}, {"by": "argument:tenant", "running": 2})
    for owner in ("ada", "bob"):
        submit(owner, 0, *[number % 4 for number in range(20)])
    most: Counter[str] = Counter()
    ended: list[Any] = []
    over = threading.Event()

    def watch() -> None:
        try:
            while not over.wait(0.001):
                rows = list(Job.objects.filter(state="running").values_list("owner", "limit_key"))
                most["pool"] = max(most["pool"], len(rows))
                most["owner"] = max(most["owner"], *Counter(row[0] for row in rows).values(), 0, 0)
                most["key"] = max(most["key"], *Counter(row[1] for row in rows).values(), 0, 0)
        finally:
            connections.close_all()

    def work(number: int) -> None:
        try:
            for turn in range(400):
                if len(ended) >= 40:
                    return
                name = f"host:{number}:{turn}"
                for job in leases.with_retries(partial(claims.claim_batch, "digits", 3, name, "node-1"), 60):
                    leases.with_retries(partial(leases.succeed, job, 7, {}), 60)
                    ended.append(job.pk)
        finally:
            connections.close_all()

    several = 4 if connection.vendor == "postgresql" else 2
    threads = [threading.Thread(target=work, args=(number,)) for number in range(several)]
    watcher = threading.Thread(target=watch)
    for thread in (watcher, *threads):
        thread.start()
    for thread in threads:
        thread.join(120)
    over.set()
    watcher.join(60)
    assert len(ended) == len(set(ended)) == 40
    assert most["pool"] <= 5
    assert most["owner"] <= 3
    assert most["key"] <= 2
