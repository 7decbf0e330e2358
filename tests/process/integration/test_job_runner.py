"""One runner with many attempts: hints, claims, ends, and attempts that end in different ways beside each other."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import DataError, OperationalError, connection
from django.test.utils import CaptureQueriesContext

from snakepit.pools import jobs
from snakepit.pools.broker.errors import AdapterError, BrokerUnreachable, WorkerLost
from snakepit.pools.client import Progress
from snakepit.pools.jobs import attempt, claimer, claims, ends, messages, runner
from snakepit.pools.models import Job, JobAttempt
from tests.process.integration.test_jobs import ScriptedClient, _Stream, answer, broker, fast, pool, wire
from tests.statuses import status

__all__ = ["broker", "fast", "pool", "wire"]  # fixtures
pytestmark = pytest.mark.django_db


class ByArgument(ScriptedClient):
    """In place of the broker's client: the argument of a call decides about its script."""

    def __init__(self, **scripts: list[Any]) -> None:
        super().__init__()
        self.by_name = scripts

    async def astatus(self, pool: str, timeout: float) -> Any:
        raise BrokerUnreachable("it is not asked here")

    def aevents(self, pool: str, command: str, arguments: Any, /, **options: Any) -> Any:
        name = arguments["name"]
        self.calls.append((pool, name))
        return _Stream(self.by_name.get(name, [answer(name)]), self.closed)


@dataclass
class Hinted:
    pools: list[str]


@pytest.fixture
def hinted(monkeypatch: pytest.MonkeyPatch) -> Hinted:
    """The pools for which other Celery workers got a hint."""
    seen = Hinted([])
    monkeypatch.setattr(messages, "pass_on", lambda pool, pause=0.0: seen.pools.append(pool))
    return seen


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, hinted: Hinted) -> Iterator[ByArgument]:
    made = ByArgument()
    monkeypatch.setattr(claimer, "connect", lambda: made)
    yield made
    claimer._claimers.pop(made, None)  # type: ignore[call-overload]


def named(*names: str, **options: Any) -> list[Job]:
    return jobs.submit_many("digits", "classify", [{"name": name} for name in names], **options)


def states() -> Counter[str]:
    return Counter(Job.objects.values_list("state", flat=True))


def test_one_hint_runs_all_jobs_of_its_pool_by_few_statements(client: ByArgument) -> None:
    named(*(f"n{number}" for number in range(300)))
    with CaptureQueriesContext(connection) as seen:
        assert claimer.work("digits") == "ran"
    assert {job.arguments["name"]: job.value for job in Job.objects.all()} == {f"n{n}": f"n{n}" for n in range(300)}
    assert states() == {"succeeded": 300}
    assert Counter(one.outcome for one in JobAttempt.objects.all()) == {"succeeded": 300}
    assert len(seen) < 300, "more than one statement a job"


def test_a_runner_keeps_nothing_of_the_jobs_that_have_ended(
    client: ByArgument, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a pool that always has work, one runner lives as long as its process."""
    made: list[runner.BatchRunner] = []

    class Kept(runner.BatchRunner):
        def run(self) -> None:
            made.append(self)
            super().run()

    monkeypatch.setattr(claimer, "BatchRunner", Kept)
    named(*(f"n{number}" for number in range(50)))
    claimer.work("digits")
    assert states() == {"succeeded": 50}
    sizes = {name: len(value) for name, value in vars(made[0]).items() if isinstance(value, Sized)}
    assert {name: size for name, size in sizes.items() if size > 1} == {}  # one pool


def test_a_batch_ends_each_job_in_its_own_way(client: ByArgument) -> None:
    client.by_name = {
        "raises": [AdapterError("KeyError: 'x'")],
        "dies": [WorkerLost("gone")],
        "away": [BrokerUnreachable("silent", outcome="unknown")],
        "says": [Progress(0.5, "half"), answer("said")],
    }
    named("fine", "raises", "dies", "away", "says")
    claimer.work("digits")
    found = {job.arguments["name"]: job for job in Job.objects.all()}
    assert {name: job.state for name, job in found.items()} == {
        "fine": "succeeded", "raises": "failed", "dies": "queued", "away": "queued", "says": "succeeded",
    }  # fmt: skip
    assert (found["dies"].failures, found["away"].failures) == (1, 0)
    assert [entry.data for entry in found["says"].entries.all()] == [{"fraction": 0.5, "message": "half"}]


def test_jobs_that_are_submitted_meanwhile_run_while_a_long_one_holds_up_none(client: ByArgument) -> None:
    def next_one() -> Any:
        Later.begin.set()
        return Progress(0.1, "")

    class Later:
        begin = threading.Event()

    client.by_name = {"long": [next_one, "hang"]}
    (long,) = named("long")
    ended: list[str] = []
    wrote = ends.write

    def write(some: Any) -> Any:
        some = list(some)
        ended.extend(end.job.arguments["name"] for end in some)
        if len(ended) == 1:  # in the runner's thread: more work comes while the long job runs
            named("third")
            assert claimer.work("digits") == "joined"
        elif ended[-1] == "third":
            jobs.cancel(long.pk)
        return wrote(some)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ends, "write", write)
        patch.setattr(attempt, "TICK", 0.01)
        named("second")
        claimer.work("digits")
    assert ended == ["second", "third", "long"]
    assert states() == {"succeeded": 2, "cancelled": 1}


def test_a_pool_with_more_jobs_than_a_claim_takes_is_passed_on(client: ByArgument, hinted: Hinted) -> None:
    named("a", "b")
    claimer.work("digits")
    assert hinted.pools == []
    named(*(f"n{number}" for number in range(60)))
    claimer.work("digits")
    assert "digits" in hinted.pools


def test_a_worker_that_stops_claims_nothing_and_passes_the_hint_on(
    client: ByArgument, hinted: Hinted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "stopping", attempt.Stopping())
    attempt.stopping.begin(60.0)
    named("a")
    claimer.work("digits")
    assert states() == {"queued": 1}
    assert hinted.pools == ["digits"]


def test_an_outage_of_the_database_loses_no_end(client: ByArgument, monkeypatch: pytest.MonkeyPatch) -> None:
    wrote, failures = ends.write, iter([OperationalError("away"), OperationalError("away")])

    def write(some: Any) -> Any:
        for error in failures:
            raise error
        return wrote(some)

    monkeypatch.setattr(ends, "write", write)
    named("a", "b", "c")
    claimer.work("digits")
    assert states() == {"succeeded": 3}


def test_an_end_that_the_database_refuses_does_not_keep_the_others_from_being_written(
    client: ByArgument, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrote = ends.write

    def write(some: Any) -> Any:
        some = list(some)
        if any(end.job.arguments["name"] == "odd" for end in some):
            raise DataError("invalid text")
        return wrote(some)

    monkeypatch.setattr(ends, "write", write)
    named("a", "odd", "b")
    claimer.work("digits")
    assert states() == {"succeeded": 2, "running": 1}  # its lease expires


def test_a_process_with_one_thread_claims_when_the_last_jobs_have_ended(
    client: ByArgument, hinted: Hinted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claimer, "one_thread", one := threading.Event())
    one.set()
    seen: list[int] = []
    take_batch = claims.take_batch

    def take(*given: Any, **more: Any) -> claims.Claimed:
        seen.append(Job.objects.filter(state="running").count())
        return take_batch(*given, **more)

    monkeypatch.setattr(claims, "take_batch", take)
    named(*(f"n{number}" for number in range(20)))
    claimer.work("digits")
    assert states() == {"succeeded": 20}
    assert set(seen) == {0}


def test_a_runner_beside_a_drained_broker_claims_nothing_and_passes_the_hint_on(
    client: ByArgument, hinted: Hinted
) -> None:
    named("one")
    source = claimer.Claimer(client)  # type: ignore[arg-type]
    source.hint("digits")
    source._refresh(Counter(), 1.0)
    source.answered("digits", status([], draining=True), Counter())
    assert source.claim(Counter(), 1.5) == []
    assert hinted.pools == ["digits"]
    assert states() == {"queued": 1}
    assert source.leave(1.6)
    source.hint("digits")  # the node drains still: no hint may be lost, as no other node may have the pool
    source._refresh(Counter(), 1.7)
    assert source.claim(Counter(), 1.7) == []
    assert hinted.pools == ["digits", "digits"]
    assert source.leave(1.7)
    source.hint("digits")
    source._refresh(Counter(), 3.0)
    assert source.claim(Counter(), 3.0) == []
    assert not source.leave(3.0), "the answer is on its way"
    source.answered("digits", status([]), Counter())
    assert [job.arguments["name"] for job in source.claim(Counter(), 3.0)] == ["one"]
    assert hinted.pools == ["digits", "digits"]


def test_a_hint_after_a_drain_runs_the_jobs_that_waited(client: ByArgument, monkeypatch: pytest.MonkeyPatch) -> None:
    async def resumed(pool: str, timeout: float) -> Any:
        return status([])

    monkeypatch.setattr(client, "astatus", resumed)
    source = claimer._claimers.setdefault(client, claimer.Claimer(client))  # type: ignore[arg-type]
    source.hint("digits")
    source._refresh(Counter(), 1.0)
    source.answered("digits", status([], draining=True), Counter())
    source.claim(Counter(), 1.5)
    assert source.leave(1.6)
    named("one", "two")
    assert claimer.work("digits") == "ran"
    assert states() == {"succeeded": 2}
