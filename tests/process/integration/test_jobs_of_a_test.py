"""Jobs in the form of calls, waiting for them, and jobs that run in the process of a test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections, transaction

from snakepit import Adapter, Context, command
from snakepit.pools import jobs
from snakepit.pools.broker.errors import BadArguments, CommandUnknown, PoolUnknown
from snakepit.pools.jobs import in_process
from snakepit.pools.jobs.signals import job_finished, job_submitted
from snakepit.pools.models import Job, Pool
from snakepit.pools.models.moments import utc_now
from snakepit.testing import Pools, override_pools


class Desk(Adapter):
    tries = 0

    @command
    def add(self, a: int, b: int = 1) -> int:
        return a + b

    @command
    def options(self, timeout: int, pool: str = "", retry: str = "") -> list[Any]:
        return [timeout, pool, retry]

    @command
    def each(self, to: int, call: Context) -> Iterator[int]:
        for number in range(to):
            call.progress(number / to, f"{number} of {to}")
            yield number

    @command
    def third_time(self) -> int:
        Desk.tries += 1
        if Desk.tries < 3:
            raise ValueError("not yet")
        return Desk.tries


@pytest.fixture
def pools(db: None) -> Iterator[Pools]:
    Desk.tries = 0
    with override_pools({"desk": Desk}) as pools:
        yield pools


@pytest.fixture
def manual(db: None) -> Iterator[Pools]:
    with override_pools({"desk": Desk}, jobs="manual") as pools:
        yield pools


def test_a_job_takes_its_arguments_like_a_call(pools: Pools) -> None:
    assert jobs.submit("desk", "add", a=1).value == 2
    assert jobs.submit("desk", "add", {"a": 1}, b=4).value == 5
    assert jobs.submit(pool="desk", command="add", arguments={"a": 1}).value == 2
    pools.calls.assert_called_with("desk", "add", a=1, b=4)


def test_arguments_named_like_options_travel_in_the_dict(pools: Pools) -> None:
    job = jobs.submit("desk", "options", {"timeout": 5, "pool": "p", "retry": "r"}, timeout=30, retry="never")
    assert job.value == [5, "p", "r"]
    assert (job.timeout, job.retry) == (30.0, "never")


def test_what_does_not_fit_the_schema_is_refused_before_it_is_stored(pools: Pools) -> None:
    with pytest.raises(CommandUnknown, match="Did you mean add"):
        jobs.submit("desk", "ad", a=1)
    with pytest.raises(BadArguments, match="b must be integer"):
        jobs.submit("desk", "add", a=1, b="2")
    with pytest.raises(BadArguments, match="prioirty is unknown"):  # a misspelt option is an argument of the command
        jobs.submit("desk", "add", a=1, prioirty=5)
    with pytest.raises(PoolUnknown):
        jobs.submit("dsk", "add", a=1)
    with pytest.raises(BadArguments, match="must be a dict"):
        jobs.submit("desk", "add", [1], b=2)  # type: ignore[arg-type]
    assert not Job.objects.exists()


def test_a_job_keeps_its_chunks_progress_and_signals(pools: Pools) -> None:
    seen: list[str] = []

    def note(signal: Any, job: Job, **_: Any) -> None:
        seen.append("submitted" if signal is job_submitted else "finished")

    for signal in (job_submitted, job_finished):
        signal.connect(note)
    try:
        job = jobs.submit("desk", "each", to=3)
    finally:
        for signal in (job_submitted, job_finished):
            signal.disconnect(note)
    assert [entry.data for entry in job.entries.filter(kind="chunk")] == [0, 1, 2]
    assert job.progress == 1.0
    assert seen == ["submitted", "finished"]


def test_further_attempts_have_no_pause(pools: Pools) -> None:
    job = jobs.submit("desk", "third_time", retry="always", backoff=3600)
    assert (job.state, job.value, job.attempts) == ("succeeded", 3, 3)


def test_a_job_that_no_broker_accepts_stays_queued_until_one_does(pools: Pools) -> None:
    with pools.unreachable():
        job = jobs.submit("desk", "add", a=1)
        assert (job.state, job.failures) == ("queued", 0)
    assert [one.value for one in pools.run_jobs()] == [2]
    with pytest.raises(BadArguments):  # the broker's silence is forgotten, and jobs are checked again
        jobs.submit("desk", "add", b=1)


def test_a_job_in_a_transaction_of_the_project_runs_when_that_commits(
    pools: Pools, django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        with transaction.atomic():
            job = jobs.submit("desk", "add", a=1)
            assert job.state == "queued"
            pools.calls.assert_not_called("desk")
        assert job.state == "queued"
    assert job.refresh().value == 2


@pytest.mark.django_db(transaction=True)
def test_a_real_commit_runs_it() -> None:
    with override_pools({"desk": Desk}):
        with transaction.atomic():
            job = jobs.submit("desk", "add", a=1)
            assert job.state == "queued"
        assert job.value == 2


def test_jobs_are_run_by_hand_in_the_order_of_their_priority(manual: Pools) -> None:
    low, high = jobs.submit("desk", "add", a=1), jobs.submit("desk", "add", a=2, priority=9)
    later = jobs.submit("desk", "add", a=3, run_after=utc_now() + timedelta(hours=1))
    manual.calls.assert_not_called("desk")
    assert [job.pk for job in manual.run_jobs()] == [high.pk, low.pk]
    assert later.refresh().state == "queued"
    assert [job.value for job in manual.run_jobs(scheduled=True)] == [4]


def test_a_job_that_is_submitted_by_a_job_runs_too(manual: Pools) -> None:
    def follow(job: Job, **_: Any) -> None:
        if job.value == 2:
            jobs.submit("desk", "add", a=2)

    job_finished.connect(follow)
    try:
        jobs.submit("desk", "add", a=1)
        assert [job.value for job in manual.run_jobs()] == [2, 3]
    finally:
        job_finished.disconnect(follow)


def test_waiting_runs_a_queued_job_of_a_test(manual: Pools) -> None:
    assert jobs.submit("desk", "add", a=1).wait(60).value == 2


def test_waiting_for_a_job_that_cannot_begin_ends_with_the_reason(manual: Pools) -> None:
    job = jobs.submit("desk", "add", a=1)
    with (
        manual.unreachable(),
        pytest.raises(TimeoutError, match="stays queued in this test: The broker is unreachable"),
    ):
        job.wait()


@pytest.mark.django_db(transaction=True)
async def test_an_event_loop_submits_and_waits() -> None:
    with override_pools({"desk": Desk}, jobs="manual"):
        job = await jobs.asubmit("desk", "add", a=1, priority=3)
        assert (job.state, job.priority) == ("queued", 3)
        assert (await job.afinished(60)).value == 2
        assert (await job.arefresh()).ended


# Waiting without the kit


@pytest.fixture
def queued(db: None) -> Job:
    Pool.objects.create(name="digits", adapter="digits", size=1)
    return Job.objects.create(pool="digits", command="classify")


@pytest.mark.django_db(transaction=True)
def test_wait_ends_with_the_job_and_has_its_fields(queued: Job) -> None:
    def end() -> None:
        try:
            jobs.cancel(queued.pk)
        finally:
            connections.close_all()

    thread = threading.Timer(0.05, end)
    thread.start()
    assert queued.wait(60).state == "cancelled"
    thread.join()


@pytest.mark.django_db(transaction=True)
async def test_a_wait_has_an_end(queued: Job) -> None:
    with pytest.raises(TimeoutError, match=r"is queued after 0\.05 s"):
        await queued.afinished(0.05)


def test_a_wait_that_could_never_end_is_refused(queued: Job) -> None:
    with pytest.raises(RuntimeError, match="call wait\\(\\) after the transaction"):
        queued.wait()


def test_rows_of_the_table_are_pools_of_a_test(db: None) -> None:
    Pool.objects.create(name="numbers", adapter="primes", size=1)
    with override_pools():
        assert jobs.submit("numbers", "count", below=10).value == 4


def test_an_async_view_finds_a_pool_of_the_table(db: None, client: Any, make_key: Callable[..., str]) -> None:
    with override_pools():
        Pool.objects.create(name="numbers", adapter="primes", size=1)
        path = "/api/pools/numbers/commands/count"
        answer = client.post(path, {"below": 10}, "application/json", HTTP_AUTHORIZATION=make_key())
    assert answer.status_code == 200, answer.content


def test_jobs_go_to_celery_again_after_the_test(pools: Pools) -> None:
    assert in_process.runner is not None
    with override_pools({"other": Desk}), pytest.raises(PoolUnknown):
        jobs.submit("desk", "add", a=1)
    assert jobs.submit("desk", "add", a=1).value == 2


def test_the_last_pools_leave_nothing() -> None:
    with override_pools({"desk": Desk}):
        pass
    assert in_process.runner is None


def test_rest_finds_the_pools(pools: Pools, client: Any, make_key: Callable[..., str]) -> None:
    answer = client.post("/api/pools/desk/commands/add", {"a": 1}, "application/json", HTTP_AUTHORIZATION=make_key())
    assert answer.status_code == 200, answer.content
    assert answer.json()["result"] == 2


def test_the_jobs_of_a_bulk_submission_run_at_once(pools: Pools) -> None:
    made = jobs.submit_many("desk", "add", ({"a": number} for number in range(4)))
    assert [(job.state, job.value) for job in made] == [("succeeded", number + 1) for number in range(4)]
    with pytest.raises(BadArguments, match="row 1: b must be integer"):
        jobs.submit_many("desk", "add", [{"a": 1}, {"a": 1, "b": "x"}])
    assert Job.objects.count() == 4


def test_the_jobs_of_a_bulk_submission_run_when_the_test_asks(manual: Pools) -> None:
    made = jobs.submit_many("desk", "add", [{"a": 1}, {"a": 2}])
    assert [job.state for job in made] == ["queued", "queued"]
    assert [job.value for job in manual.run_jobs()] == [2, 3]
