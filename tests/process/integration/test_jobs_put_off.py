"""Jobs that expire before they begin, and commands that put their own job off."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import Q
from django.test import Client

from snakepit import Adapter, Context, Snooze, command, connect
from snakepit.pools import jobs
from snakepit.pools.broker.errors import BadRequest, Snoozed
from snakepit.pools.cli.main import run as shell
from snakepit.pools.jobs import claims, leases, reconciler
from snakepit.pools.jobs.policy import Transition
from snakepit.pools.jobs.signals import job_finished
from snakepit.pools.models import Job
from snakepit.pools.models.moments import utc_now
from snakepit.testing import Pools, override_pools

HOUR = timedelta(hours=1)


class Desk(Adapter):
    ready_after = 0
    calls = 0

    @command
    def add(self, a: int) -> int:
        Desk.calls += 1
        return a + 1

    @command
    def when_ready(self, ctx: Context) -> int:
        Desk.calls += 1
        if Desk.calls <= Desk.ready_after:
            ctx.snooze(600)
        return Desk.calls

    @command
    async def never_ready(self) -> None:
        raise Snooze(0.5)

    @command
    def each(self) -> Iterator[int]:
        yield 1
        raise Snooze(5)

    @command
    def first_fails(self) -> int:
        Desk.calls += 1
        if Desk.calls == 1:
            raise ValueError("not yet")
        return Desk.calls


@pytest.fixture
def pools(db: None) -> Iterator[Pools]:
    Desk.calls = Desk.ready_after = 0
    with override_pools({"desk": Desk}, jobs="manual") as pools:
        yield pools


def late(job: Job) -> Job:
    """Let the job's `expires` pass."""
    Job.objects.filter(pk=job.pk).update(expires=utc_now() - timedelta(seconds=1))
    return job.refresh()


# Expiry.


def test_a_job_that_has_not_begun_in_time_is_cancelled_and_never_runs(pools: Pools) -> None:
    ended: list[Any] = []

    def note(job: Job, **_: Any) -> None:
        ended.append(job.pk)

    job, other = jobs.submit("desk", "add", a=1, expires=utc_now() + HOUR), jobs.submit("desk", "add", a=1)
    late(job)
    assert leases.claim(job.pk, "test", "node-1") is None
    job_finished.connect(note)
    try:
        assert reconciler.reconcile()["expired"] == 1
    finally:
        job_finished.disconnect(note)
    assert ended == [job.pk]
    assert [one.pk for one in pools.run_jobs()] == [other.pk]
    assert Desk.calls == 1
    assert job.refresh().state == "cancelled"
    assert (job.error["code"], job.error["outcome"], job.attempts) == ("expired", "not_started", 0)


def test_a_job_that_runs_in_time_is_not_touched_by_its_expiry(pools: Pools) -> None:
    job = jobs.submit("desk", "first_fails", retry="always", expires=utc_now() + HOUR)
    held = leases.claim(job.pk, "test", "node-1")
    assert held is not None
    late(job)
    assert reconciler.reconcile()["expired"] == 0
    error = {"code": "adapter_error", "message": "", "outcome": "failed", "details": {}}
    assert leases.fail(held, Transition("queued"), error, {"outcome": "adapter_error"})
    assert reconciler.reconcile()["expired"] == 0  # it has begun, so its next attempt runs
    (ran,) = pools.run_jobs(scheduled=True)
    assert (ran.state, ran.attempts >= 2) == ("succeeded", True)


def test_an_attempt_that_no_broker_accepts_begins_nothing(pools: Pools) -> None:
    job = jobs.submit("desk", "add", a=1, expires=utc_now() + HOUR)
    with pools.unreachable():
        pools.run_jobs()
    assert (job.refresh().attempts, job.begun) == (1, False)
    late(job)
    assert reconciler.reconcile()["expired"] == 1
    assert (job.refresh().state, job.error["code"], Desk.calls) == ("cancelled", "expired", 0)


def test_a_job_that_expires_between_claim_and_call_does_not_run(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    job = late(jobs.submit("desk", "add", a=1, expires=utc_now() + HOUR))
    monkeypatch.setattr(claims, "UNEXPIRED", Q())  # the claim came a moment before
    pools.run_jobs()
    assert (job.refresh().state, job.error["code"], Desk.calls) == ("cancelled", "expired", 0)


def test_a_retry_by_hand_has_no_expiry(pools: Pools) -> None:
    job = late(jobs.submit("desk", "add", a=1, expires=utc_now() + HOUR))
    reconciler.reconcile()
    assert jobs.retry(job.pk).expires is None
    assert [one.state for one in pools.run_jobs()] == ["succeeded"]


def test_an_expiry_is_a_time_with_a_zone(pools: Pools) -> None:
    with pytest.raises(BadRequest, match="expires"):
        jobs.submit("desk", "add", a=1, expires=3600)


def test_rest_and_shell_take_and_show_an_expiry(
    pools: Pools, client: Client, make_key: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    body = {"pool": "desk", "command": "add", "arguments": {"a": 1}, "expires": "2030-01-31T12:00:00Z"}
    made = client.post("/api/jobs", body, content_type="application/json", headers={"Authorization": make_key()})
    assert (made.status_code, made.json()["expires"]) == (201, "2030-01-31T12:00:00Z")
    assert shell(["submit", "desk", "add", '{"a": 1}', "--expires", "2030-01-31T12:00:00Z", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["expires"].startswith("2030-01-31T12:00:00")


# Snooze.


def test_a_command_puts_its_own_job_off_at_no_cost(pools: Pools) -> None:
    Desk.ready_after = 2
    job = jobs.submit("desk", "when_ready", {}, max_attempts=1)
    pools.run_jobs()
    assert (job.refresh().shown_state, job.failures, job.snoozes, job.error) == ("scheduled", 0, 1, None)
    assert job.run_after is not None
    assert job.run_after - utc_now() > timedelta(seconds=500)
    assert pools.run_jobs() == []
    pools.run_jobs(scheduled=True)
    (ran,) = pools.run_jobs(scheduled=True)
    assert (ran.state, ran.value, ran.attempts, ran.snoozes, ran.failures) == ("succeeded", 3, 3, 2, 0)
    assert [one.outcome for one in ran.tries.order_by("number")] == ["snoozed", "snoozed", "succeeded"]


def test_a_job_is_put_off_a_bounded_number_of_times(pools: Pools, settings: Any) -> None:
    settings.SNAKEPIT = {**settings.SNAKEPIT, "JOBS_SNOOZES": 2}
    job = jobs.submit("desk", "never_ready", {}, retry="always", max_attempts=1)
    for _ in range(3):
        pools.run_jobs(scheduled=True)
    assert (job.refresh().state, job.error["code"], job.snoozes) == ("failed", "snoozed", 2)
    assert jobs.retry(job.pk).snoozes == 0


def test_a_generator_may_put_its_job_off(pools: Pools) -> None:
    job = jobs.submit("desk", "each", {})
    pools.run_jobs()
    assert (job.refresh().shown_state, job.snoozes) == ("scheduled", 1)


def test_a_caller_without_a_job_gets_the_seconds(pools: Pools) -> None:
    with pytest.raises(Snoozed, match=r"put its work off for 0\.5 s") as caught:
        connect().call("desk", "never_ready")
    assert (caught.value.retry_after, caught.value.outcome) == (0.5, "failed")
