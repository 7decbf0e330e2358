"""Unique jobs: which count as the same, on each surface, and in a race."""

from __future__ import annotations

import doctest
import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.test import Client

from snakepit.pools import jobs
from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.cli.main import run as shell
from snakepit.pools.jobs import Unique, leases, messages, unique
from snakepit.pools.models import Job, Pool
from snakepit.pools.models.moments import utc_now
from tests.process.integration.fakes import FakeClient

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def ready(monkeypatch: pytest.MonkeyPatch, broker: FakeClient) -> None:
    monkeypatch.setattr(messages, "send", lambda *_: True)
    monkeypatch.setattr(messages, "send_many", lambda ids, *_, **__: messages.Sent(tuple(ids)))
    Pool.objects.create(name="digits", adapter="digits", size=1)


def submit(pixels: list[int], only: Any = True, **more: Any) -> Job:
    return jobs.submit("digits", "classify", {"pixels": pixels, **more.pop("arguments", {})}, unique=only, **more)


def test_the_examples_in_the_docstrings_are_true() -> None:
    found = doctest.testmod(unique)
    assert found.attempted
    assert not found.failed


def test_equal_arguments_make_one_job_while_it_waits_or_runs() -> None:
    first, again = submit([1]), submit([1])
    assert (again.pk, first.existed, again.existed) == (first.pk, False, True)
    assert submit([2]).pk != first.pk
    assert submit([1], owner="ada").pk != first.pk
    assert submit([1], only=None).pk != first.pk
    held = leases.claim(first.pk, "test", "node-1")
    assert held is not None
    assert submit([1]).pk == first.pk
    assert leases.succeed(held, 7, {})
    assert submit([1]).pk != first.pk


def test_a_scheduled_job_counts_and_may_be_left_out() -> None:
    later = submit([1], run_after=utc_now() + timedelta(hours=1))
    assert submit([1]).pk == later.pk
    assert submit([1], Unique(states=["queued", "running"])).pk != later.pk


def test_chosen_arguments_decide() -> None:
    mode = {"arguments": {"mode": "a"}}
    first = submit([1], Unique(by=["pixels"]), **mode)
    assert submit([1], Unique(by=["pixels"]), arguments={"mode": "b"}).pk == first.pk
    assert submit([1], Unique(by="pixels"), arguments={"mode": "b"}).pk == first.pk
    assert submit([2], Unique(by=["pixels"]), **mode).pk != first.pk
    only = submit([3], Unique(by=[]))
    assert submit([4], Unique(by=())).pk == only.pk


def test_a_period_and_states_of_ended_jobs() -> None:
    once = Unique(period=3600, states=["queued", "running", "succeeded"])
    first = submit([1], once)
    held = leases.claim(first.pk, "test", "node-1")
    assert held is not None
    assert leases.succeed(held, 7, {})
    assert submit([1], once).pk == first.pk
    Job.objects.filter(pk=first.pk).update(created_at=utc_now() - timedelta(hours=2))
    assert submit([1], once).pk != first.pk


@pytest.mark.parametrize(
    "wrong",
    [{"by": 5}, {"by": [1]}, {"period": 0}, {"period": "1"}, {"period": float("nan")}, {"period": True},
     {"period": 10**400}, {"states": []}, {"states": ["waiting"]}, {"states": "queued"}, {"states": 5},
     {"states": [["queued"]]}],
)  # fmt: skip
def test_a_wrong_option_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=f"unique: {next(iter(wrong))}"):
        Unique(**wrong)
    with pytest.raises(BadRequest, match="unique"):
        submit([1], "yes")


def test_a_bulk_submission_finds_and_makes_unique_jobs() -> None:
    first = submit([0])
    rows = [{"pixels": [number % 3]} for number in range(1000)]
    found = jobs.submit_many("digits", "classify", rows, unique=True)
    assert len(found) == 1000
    assert {job.pk for job in found} == set(Job.objects.values_list("pk", flat=True))
    assert Job.objects.count() == 3
    assert [found[0].existed, found[1].existed, found[0].pk] == [True, False, first.pk]
    assert submit([2]).existed


def test_equal_rows_with_idempotency_keys_make_one_job() -> None:
    """A row that counts as the same as another one makes no job, and so none that has its key."""
    rows = [{"pixels": [1]}, {"pixels": [1]}]
    first, same = jobs.submit_many("digits", "classify", rows, unique=True, idempotency_keys=["a", "b"])
    assert first.pk == same.pk
    (again,) = jobs.submit_many("digits", "classify", rows[:1], unique=True, idempotency_keys=["c"])
    assert (again.pk, again.existed, Job.objects.count()) == (first.pk, True, 1)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("bulk", [False, True])
def test_submissions_at_the_same_time_make_one_job(bulk: bool) -> None:
    start, errors = threading.Barrier(4), []

    def race() -> None:
        try:
            start.wait(60)
            for number in range(5):
                if bulk:
                    jobs.submit_many("digits", "classify", [{"pixels": [number]}] * 3, unique=True)
                else:
                    submit([number])
        except Exception as error:
            errors.append(error)
        finally:
            connections.close_all()

    # SQLite's database of a test is in memory, which one thread at a time may write.
    threads = [threading.Thread(target=race) for _ in range(4)]
    if connection.vendor != "postgresql":
        start = threading.Barrier(1)
        for thread in threads:
            thread.start()
            thread.join(60)
    else:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert errors == []
    assert Job.objects.count() == 5


def test_rest_answers_with_the_job_that_exists(client: Client, make_key: Callable[..., str]) -> None:
    headers = {"Authorization": make_key()}

    def post(**more: Any) -> Any:
        body = {"pool": "digits", "command": "classify", "arguments": {"pixels": [1]}, **more}
        return client.post("/api/jobs", body, content_type="application/json", headers=headers)

    first, again = post(unique=True), post(unique=True)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    by = post(arguments={"pixels": [1], "mode": "b"}, unique_by=["pixels"], unique_period=60, unique_states=["queued"])
    assert by.status_code == 200  # one argument is all arguments of the first
    assert post(unique_states=["waiting"]).status_code == 400
    assert post(unique_states=[]).status_code == 400
    assert post().status_code == 201
    alone = [post(arguments={"pixels": [number]}, unique_by=[]).json()["id"] for number in (7, 8)]
    assert alone[0] == alone[1]  # no argument counts: the command is the same
    url = "/api/jobs/batch?pool=digits&command=classify&unique_by=pixels&unique_states=queued&unique_states=running"
    lines = b'{"pixels": [1]}\n{"pixels": [2]}\n{"pixels": [2], "mode": "c"}\n'
    batch = client.post(url, lines, content_type="application/x-ndjson", headers=headers).json()
    assert (batch["count"], batch["created"], batch["ids"][0]) == (3, 1, first.json()["id"])
    assert client.post(f"{url}&unique_period=x", lines, "application/x-ndjson", headers=headers).status_code == 400


def test_the_shell_prints_the_job_that_exists(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    command = ["submit", "digits", "classify", '{"pixels": [1]}', "--json", "--unique"]
    found = []
    for _ in range(2):
        assert shell(command) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert [one["created"] for one in found] == [True, False]
    assert found[0]["id"] == found[1]["id"]
    file = tmp_path / "rows.ndjson"
    file.write_text('{"pixels": [1]}\n{"pixels": [5]}\n{"pixels": [5]}\n')
    many = ["submit", "digits", "classify", "--file", str(file), "--unique-by", "pixels", "--json"]
    assert shell(many) == 0
    assert json.loads(capsys.readouterr().out)["created"] == 1
