"""The hook `on_failure` of an adapter, and the signals of a job that fails and waits again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client

from snakepit import Adapter, command
from snakepit.pools import jobs
from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.jobs import after_end, control, leases, reconciler
from snakepit.pools.jobs.signals import job_finished, job_requeued
from snakepit.pools.models import Job
from snakepit.testing import Pools, override_pools


class Till(Adapter):
    reports: list[dict[str, Any]] = []
    broken = False

    @command
    def sell(self, item: str) -> str:
        if item == "glass":
            raise ValueError("it broke")
        return item

    def on_failure(self, job: dict[str, Any]) -> None:
        Till.reports.append(job)
        if Till.broken:
            raise RuntimeError("the hook is broken too")


class Plain(Adapter):
    @command
    def sell(self, item: str) -> str:
        raise ValueError(item)


@pytest.fixture
def pools(db: None) -> Iterator[Pools]:
    Till.reports, Till.broken = [], False
    with override_pools({"till": Till, "plain": Plain}) as pools:
        yield pools


def test_the_hook_receives_a_job_that_has_failed_finally_once(pools: Pools) -> None:
    job = jobs.submit("till", "sell", item="glass", owner="ada", tags=["a"], retry="always", max_attempts=2)
    assert (job.state, job.hooked) == ("failed", True)
    assert len(Till.reports) == 1  # and none for the first attempt
    told = Till.reports[0]
    assert told["id"] == str(job.pk)
    assert (told["pool"], told["command"], told["arguments"]) == ("till", "sell", {"item": "glass"})
    assert (told["state"], told["attempts"], told["owner"], told["tags"]) == ("failed", 2, "ada", ["a"])
    assert told["error"]["details"]["type"] == "ValueError"
    hook = Job.objects.get(command="on_failure")
    assert (hook.state, hook.owner, hook.tag_list) == ("succeeded", "ada", ["on-failure"])


def test_a_job_that_succeeds_or_is_cancelled_and_a_pool_without_the_hook_have_none(pools: Pools) -> None:
    jobs.submit("till", "sell", item="cup")
    later = jobs.submit("till", "sell", item="glass", run_after=Job.objects.get().created_at + timedelta(hours=1))
    jobs.cancel(later.pk)
    assert jobs.submit("plain", "sell", item="glass").state == "failed"
    assert Till.reports == []
    assert not Job.objects.filter(command="on_failure").exists()


def test_a_failure_of_the_hook_changes_nothing_and_has_no_hook(pools: Pools) -> None:
    Till.broken = True
    job = jobs.submit("till", "sell", item="glass")
    hook = Job.objects.get(command="on_failure")
    assert (job.refresh().state, hook.state, hook.attempts) == ("failed", "failed", 3)
    assert Job.objects.count() == 2


def test_jobs_that_end_without_an_attempt_have_the_hook_too(pools: Pools) -> None:
    with override_pools({"till": Till}, jobs="manual"):
        late, lost = (jobs.submit("till", "sell", item="cup", retry="never") for _ in range(2))
        leases.claim(lost.pk, "gone", "node-1")
        Job.objects.filter(pk=lost.pk).update(lease_until=Now() - timedelta(seconds=9))
        Job.objects.filter(pk=late.pk).update(deadline=Now() - timedelta(seconds=9))
        reconciler._free_leases()
        reconciler._end_overdue()
        hooks = Job.objects.filter(command="on_failure")
        assert {one.arguments["job"]["id"]: one.arguments["job"]["state"] for one in hooks} == {
            str(late.pk): "failed",
            str(lost.pk): "lost",
        }


def test_the_end_and_the_hook_are_one_transaction(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("the process dies here")

    with override_pools({"till": Till}, jobs="manual"):
        job = jobs.submit("till", "sell", item="cup")
        monkeypatch.setattr(after_end, "steps", [fails])
        with pytest.raises(RuntimeError):
            jobs.cancel(job.pk)
        assert job.refresh().state == "queued"


def test_large_arguments_are_left_out(pools: Pools) -> None:
    jobs.submit("till", "sell", item="glass", tags=["small"])
    control.clone(Job.objects.get(tags=",small,").pk)
    assert [one["arguments"] for one in Till.reports] == [{"item": "glass"}] * 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("snakepit.pools.jobs.failure_hook.MOST_ARGUMENTS", 3)
        jobs.submit("till", "sell", item="glass")
    assert Till.reports[-1]["arguments"] is None


def test_a_caller_cannot_run_the_hook(pools: Pools, client: Client, make_key: Any) -> None:
    with pytest.raises(BadRequest, match="hook of the adapter"):
        jobs.submit("till", "on_failure", job={})
    key = make_key()
    headers = {"HTTP_AUTHORIZATION": key, "content_type": "application/json"}
    called = client.post("/api/pools/till/commands/on_failure", json.dumps({"job": {}}), **headers)
    stored = client.post("/api/jobs", json.dumps({"pool": "till", "command": "on_failure"}), **headers)
    assert (called.status_code, stored.status_code) == (404, 400)
    shown = client.get("/api/pools/till/openapi.json", HTTP_AUTHORIZATION=key).json()
    assert [path.rpartition("/")[2] for path in shown["paths"]] == ["sell"]
    assert Till.reports == []


def test_a_job_that_waits_again_sends_a_signal(pools: Pools) -> None:
    seen: list[tuple[str, str, int]] = []

    def note(signal: Any, job: Job, **_: Any) -> None:
        seen.append(("again" if signal is job_requeued else "end", job.state, job.attempts))

    for signal in (job_requeued, job_finished):
        signal.connect(note)
    try:
        jobs.submit("plain", "sell", item="glass", retry="always", max_attempts=2)
        with override_pools({"plain": Plain}, jobs="manual"):
            control._send(jobs.retry(Job.objects.get().pk))
    finally:
        for signal in (job_requeued, job_finished):
            signal.disconnect(note)
    assert seen == [("again", "queued", 1), ("end", "failed", 2), ("again", "queued", 2)]
