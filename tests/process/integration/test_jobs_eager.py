"""Jobs of a project whose Celery app runs tasks eagerly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from django.db import connection

from snakepit.pools import jobs, tasks
from snakepit.pools.broker.errors import AdapterError, BrokerUnreachable
from snakepit.pools.client import shared
from snakepit.pools.jobs import eager as eager_jobs
from snakepit.pools.jobs import messages, runner
from snakepit.pools.jobs.signals import job_finished
from snakepit.pools.models import Job, Pool
from tests.process.integration.test_jobs import ScriptedClient, answer

pytestmark = pytest.mark.django_db


@pytest.fixture
def pool(db: None, monkeypatch: pytest.MonkeyPatch) -> Pool:
    submitting = ScriptedClient()
    monkeypatch.setattr(shared, "client", lambda: submitting)
    return Pool.objects.create(name="digits", adapter="digits", size=1)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ScriptedClient]]:
    """Celery runs tasks eagerly; the function sets the broker's answers."""
    app = Celery("test")
    app.conf.task_always_eager = True
    assert tasks.run_job.name == messages.TASK
    monkeypatch.setattr(messages, "celery_app", lambda: app)
    monkeypatch.setattr(eager_jobs, "PATIENCE", 0.05)

    def play(*scripts: list[Any]) -> ScriptedClient:
        client = ScriptedClient(*scripts)
        monkeypatch.setattr(runner, "connect", lambda: client)
        return client

    yield play
    app.conf.task_always_eager = False  # Celery keeps it as the current app, which later tests find


def submit_eagerly(pool: Pool, capture: Callable[..., Any], **options: Any) -> Job:
    assert connection.in_atomic_block
    with capture(execute=True):
        return jobs.submit(pool.name, "classify", {"pixels": [1]}, **options)


def test_an_eager_job_has_ended_when_its_submission_is_committed(
    pool: Pool, eager: Callable[..., ScriptedClient], django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    client = eager([answer(5)])
    job = submit_eagerly(pool, django_capture_on_commit_callbacks)
    assert (job.state, job.value, job.attempts) == ("succeeded", 5, 1)
    assert client.calls[0][:2] == ("digits", "classify")


def test_an_eager_job_makes_its_further_attempts_in_the_same_process(
    pool: Pool, eager: Callable[..., ScriptedClient], django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    eager([AdapterError("no")], [AdapterError("no")], [answer(5)])
    job = submit_eagerly(pool, django_capture_on_commit_callbacks, retry="always", backoff=0.05)
    assert (job.state, job.attempts, job.failures) == ("succeeded", 3, 2)


def test_an_eager_job_without_a_broker_stays_queued_and_the_log_says_why(
    pool: Pool, eager: Callable[..., ScriptedClient], django_capture_on_commit_callbacks: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    eager(*([BrokerUnreachable("No broker answers at here", outcome="not_started")] for _ in range(50)))
    job = submit_eagerly(pool, django_capture_on_commit_callbacks)
    job.refresh_from_db()
    assert (job.state, job.failures) == ("queued", 0)
    assert "No broker answers at here" in caplog.text
    assert "start a broker with `snakepit broker`, or use snakepit.testing.override_pools() in tests" in caplog.text


def test_a_job_that_a_receiver_of_an_eager_job_submits_runs_too(
    pool: Pool, eager: Callable[..., ScriptedClient], django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    def follow_up(job: Job, **_: Any) -> None:
        if job.tags == "":
            jobs.submit(pool.name, "classify", {"pixels": [2]}, tags=["second"])

    eager([answer(1)], [answer(2)])
    job_finished.connect(follow_up)
    try:
        submit_eagerly(pool, django_capture_on_commit_callbacks)
    finally:
        job_finished.disconnect(follow_up)
    assert [job.state for job in Job.objects.all()] == ["succeeded"] * 2


def test_the_jobs_of_an_eager_bulk_submission_have_ended_when_it_is_committed(
    pool: Pool, eager: Callable[..., ScriptedClient], django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    eager([answer(1)], [answer(2)])
    with django_capture_on_commit_callbacks(execute=True):
        made = jobs.submit_many(pool.name, "classify", [{"pixels": [1]}, {"pixels": [2]}])
    assert [(job.state, job.value) for job in made] == [("succeeded", 1), ("succeeded", 2)]
