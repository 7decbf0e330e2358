"""Many jobs in one call: rows, limits, messages, and the surfaces that submit them."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from snakepit.pools import jobs
from snakepit.pools.broker.errors import (
    BadArguments,
    BadRequest,
    BrokerError,
    CommandUnknown,
    PayloadTooLarge,
    PoolUnknown,
    QueueFull,
)
from snakepit.pools.cli.main import run
from snakepit.pools.jobs import bulk, commands, messages, reconciler, room
from snakepit.pools.jobs.signals import job_submitted
from snakepit.pools.models import Job, Pool
from tests.process.integration.fakes import COMMAND, FakeClient

pytestmark = pytest.mark.django_db
Capture = Callable[..., Any]
TYPED = replace(
    COMMAND, schema='{"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": false}'
)


class Wire:
    """In place of Celery: what was sent, and how much it takes."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self.takes = 10**6

    def send_many(self, job_ids: Sequence[Any], queue: str) -> messages.Sent:
        some = tuple(job_ids[: self.takes])
        self.sent += [(str(one), queue) for one in some]
        return messages.Sent(some, away=self.takes == 0)


@pytest.fixture(autouse=True)
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    fake = Wire()
    monkeypatch.setattr(messages, "send", lambda *_: True)
    monkeypatch.setattr(messages, "send_many", fake.send_many)
    return fake


@pytest.fixture(autouse=True)
def pool(db: None, broker: FakeClient, monkeypatch: pytest.MonkeyPatch) -> Pool:
    monkeypatch.setattr(broker, "commands", lambda _: (TYPED,), raising=False)
    monkeypatch.setattr(commands, "cache", commands.CommandCache(patience=60.0))
    return Pool.objects.create(name="digits", adapter="digits", size=1, max_payload=2000)


def rows(count: int) -> list[dict[str, Any]]:
    return [{"n": number} for number in range(count)]


def submit(count: int, **options: Any) -> list[Job]:
    return jobs.submit_many("digits", "classify", rows(count), **options)


def test_the_jobs_come_in_the_order_of_the_rows_with_ascending_ids_and_shared_options() -> None:
    later = timezone.now() + timedelta(hours=1)
    made = submit(1203, priority=3, tags=["night"], owner="ada", run_after=later, retry="safe", timeout=5.0)
    assert [job.arguments["n"] for job in made] == list(range(1203))
    ids = [job.pk for job in made]
    assert ids == sorted(set(ids))
    stored = list(Job.objects.order_by("id"))
    assert [job.pk for job in stored] == ids
    assert [job.arguments for job in stored] == rows(1203)
    facts = {(job.priority, job.tags, job.owner, job.run_after, job.retry, job.timeout, job.size) for job in stored[:9]}
    assert facts == {(3, ",night,", "ada", later, "safe", 5.0, 8)}
    single = jobs.submit("digits", "classify", n=7)
    given = {"priority", "tags", "owner", "run_after", "retry", "timeout"}
    for field in Job._meta.concrete_fields:  # all other columns are those of a single submission
        if field.name not in given | {"id", "created_at", "queued_at", "sent_at"}:
            assert getattr(stored[7], field.name) == getattr(single, field.name), field.name


def test_the_jobs_that_come_back_have_the_columns_of_their_rows(pool: Pool) -> None:
    Pool.objects.filter(pk=pool.pk).update(job_limits=[{"by": "argument:n", "running": 1}])
    keys = [None, "a", None, "b"]
    made = jobs.submit_many(
        "digits", "classify", rows(4), idempotency_keys=keys, unique=True, tags=["night"], owner="x"
    )
    for job in made:
        stored = Job.objects.get(pk=job.pk)
        for field in Job._meta.concrete_fields:
            if field.name not in {"created_at", "queued_at", "sent_at"}:  # the row has the database's time
                assert getattr(job, field.attname) == getattr(stored, field.attname), field.name
    assert len({job.limit_key for job in made}) == len({job.unique_key for job in made}) == 4
    assert [job.idempotency_key for job in made] == ["", "a", "", "b"]


def test_the_limit_of_arguments_counts_bytes_and_not_the_escapes_of_their_row(
    broker: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = replace(COMMAND, schema='{"properties": {"text": {"type": "string"}}}')
    monkeypatch.setattr(broker, "commands", lambda _: (texts,), raising=False)
    fits = {"text": "ä" * 990}  # 1,991 bytes as UTF-8, and 5,952 characters as escapes
    (made,) = jobs.submit_many("digits", "classify", [fits])
    assert Job.objects.get(pk=made.pk).arguments == fits
    with pytest.raises(PayloadTooLarge):
        jobs.submit_many("digits", "classify", [{"text": "ä" * 1000}])


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"n": "x"}, BadArguments, "row 600: n must be integer, not a string"),
        ({"m": 1}, BadArguments, "row 600: m is unknown"),
        ({"n": float("nan")}, BrokerError, "row 600: n"),
        ({"n": "y" * 3000}, PayloadTooLarge, "row 600: "),
        ([1], BadArguments, "row 600: arguments: must be a dict of keyword arguments, not list"),
        (None, BadArguments, "row 600: arguments: must be a dict"),
    ],
)
def test_a_bad_row_refuses_all_and_is_named(bad: Any, error: type[BrokerError], message: str) -> None:
    some: list[Any] = rows(700)
    some[600] = bad
    with pytest.raises(error) as refused:
        jobs.submit_many("digits", "classify", iter(some))
    assert message in refused.value.message
    assert refused.value.details["row"] == 600
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"pool": "none"}, PoolUnknown, "No pool is named 'none'."),
        ({"command": "guess"}, CommandUnknown, "guess"),
        ({"rows": None}, BadRequest, "rows: must be"),
        ({"rows": {"n": 1}}, BadRequest, "rows: must be"),
        ({"rows": "n"}, BadRequest, "rows: must be"),
        ({"priority": 1000}, BadRequest, "priority: "),
        ({"idempotency_keys": ["a"]}, BadRequest, "idempotency_keys: has fewer values"),
        ({"idempotency_keys": ["a", "b", "c"]}, BadRequest, "idempotency_keys: has more values"),
        ({"idempotency_keys": ["a", "b" * 201]}, BadRequest, "row 1: idempotency_key: "),
        ({"idempotency_keys": ["a", 5]}, BadRequest, "row 1: idempotency_key: "),
    ],
)
def test_a_bad_call_stores_nothing(given: dict[str, Any], error: type[BrokerError], message: str) -> None:
    with pytest.raises(error) as refused:
        jobs.submit_many(**{"pool": "digits", "command": "classify", "rows": rows(2), **given})
    assert message in refused.value.message
    assert not Job.objects.exists()


def test_an_iterator_is_read_in_batches_and_a_failure_in_it_stores_nothing() -> None:
    taken = itertools.count()

    def lines() -> Iterator[dict[str, Any]]:
        for number in taken:
            if number == 1100:
                raise OSError("the file is gone")
            yield {"n": number}

    with pytest.raises(OSError, match="the file is gone"), transaction.atomic():
        jobs.submit_many("digits", "classify", lines())
    assert not Job.objects.exists()


def test_an_idempotency_key_that_was_used_returns_its_job() -> None:
    old = jobs.submit("digits", "classify", n=1, idempotency_key="b", owner="ada")
    keys = ["a", "b", None, "a"]
    given = [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 0}]
    made = jobs.submit_many("digits", "classify", given, idempotency_keys=keys, owner="ada")
    assert made[1].pk == old.pk
    assert made[3].pk == made[0].pk
    assert [job.existed for job in made] == [False, True, False, False]
    again = jobs.submit_many("digits", "classify", given[:2], idempotency_keys=iter(keys[:2]), owner="ada")
    assert [job.existed for job in again] == [True, True]
    assert Job.objects.count() == 3
    for other in ([{"n": 0}, {"n": 9}], [{"n": 9}, {"n": 1}]):
        with pytest.raises(BadRequest, match=r"row [01]: idempotency_key: already used"):
            jobs.submit_many("digits", "classify", other, idempotency_keys=keys[:2], owner="ada")


@pytest.mark.django_db(transaction=True)
def test_a_key_that_another_process_adds_meanwhile_returns_that_job(monkeypatch: pytest.MonkeyPatch) -> None:
    existing, asked = bulk._Submission._existing, []

    def late(self: Any, keys: set[str]) -> dict[str, Job]:
        found = existing(self, keys)
        if not asked:
            asked.append(jobs.submit("digits", "classify", n=1, idempotency_key="k1").pk)
        return found

    monkeypatch.setattr(bulk._Submission, "_existing", late)
    made = submit(3, idempotency_keys=["k0", "k1", "k2"])
    assert made[1].pk == asked[0]
    assert Job.objects.count() == 3
    assert [job.pk for job in made if not job.existed] == [made[0].pk, made[2].pk]


def test_on_sqlite_a_call_writes_before_it_reads_its_keys() -> None:
    if connection.vendor != "sqlite":
        pytest.skip("only SQLite refuses a writer that has read an older state")
    with CaptureQueriesContext(connection) as seen:
        submit(2, idempotency_keys=["a", "b"])
    words = [one["sql"].split()[0] for one in seen if "snakepit_job" in one["sql"]]
    assert words[:3] == ["UPDATE", "SELECT", "insert"]


@pytest.mark.parametrize("limit", [{"JOBS_QUEUED_LIMIT": 10}, {"JOBS_QUEUED_BYTES": 1024}])
def test_a_limit_of_waiting_jobs_holds_for_the_whole(snakepit: Any, limit: dict[str, int]) -> None:
    snakepit.SNAKEPIT = {**snakepit.SNAKEPIT, **limit}
    submit(10)
    read = itertools.count()
    with pytest.raises(QueueFull):
        jobs.submit_many("digits", "classify", ({"n": next(read)} for _ in range(5000)))
    assert next(read) <= 2 * bulk.BATCH  # it does not read what cannot fit
    assert Job.objects.count() == 10


@pytest.mark.django_db(transaction=True)
def test_concurrent_submissions_do_not_pass_the_limit_together(snakepit: Any) -> None:
    snakepit.SNAKEPIT = {**snakepit.SNAKEPIT, "JOBS_QUEUED_LIMIT": 1000}
    barrier, refused = threading.Barrier(4), []

    def one(name: str) -> None:
        try:
            barrier.wait(60)
            submit(400, idempotency_keys=[f"{name}-{number}" for number in range(400)])
        except QueueFull:
            refused.append(1)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=one, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (Job.objects.count(), len(refused)) == (800, 2)


# Statements.


def test_a_thousand_jobs_cost_a_dozen_statements(django_capture_on_commit_callbacks: Capture) -> None:
    submit(1)  # the commands are read
    with CaptureQueriesContext(connection) as seen, django_capture_on_commit_callbacks(execute=True):
        submit(1000)
    assert len(seen) <= 12, [one["sql"][:80] for one in seen]


def test_one_job_costs_a_read_of_the_pool_and_an_insert_and_far_from_a_limit_no_count(
    snakepit: Any, django_capture_on_commit_callbacks: Capture
) -> None:
    def words(count: int = 1) -> list[str]:
        with CaptureQueriesContext(connection) as seen, django_capture_on_commit_callbacks(execute=True):
            for _ in range(count):
                assert jobs.submit("digits", "classify", n=1).sent_at is not None
        return [one["sql"].split()[0].strip('"').upper() for one in seen]

    snakepit.SNAKEPIT = {**snakepit.SNAKEPIT, "JOBS_QUEUED_LIMIT": 10**6, "JOBS_QUEUED_BYTES": 2**40}
    jobs.submit("digits", "classify", n=1)  # the commands are read
    room.forget()
    counted = ["SELECT", "SAVEPOINT", "INSERT", "SELECT", "RELEASE"]
    assert words() == counted
    assert words(64) == ["SELECT", "INSERT"] * 64
    assert words() == counted


# Messages.


def test_the_hint_for_all_is_sent_when_the_transaction_commits(
    wire: Wire, django_capture_on_commit_callbacks: Capture
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        made = submit(2300)
        assert wire.sent == []
    ids = [str(job.pk) for job in made]
    assert wire.sent == [(one, "snakepit.digits") for one in ids]
    assert reconciler.reconcile()["sent"] == 0
    assert set(Job.objects.values_list("sends", flat=True)) == {1}


@pytest.mark.parametrize("takes", [0, 7])
def test_what_a_transport_did_not_take_is_sent_by_the_next_reconcile(
    wire: Wire, takes: int, django_capture_on_commit_callbacks: Capture
) -> None:
    wire.takes = takes
    with django_capture_on_commit_callbacks(execute=True):
        made = submit(20)
    assert Job.objects.filter(sent_at=None).count() == 20 - takes
    wire.takes = 5
    assert reconciler.reconcile()["sent"] == 20 - takes
    assert sorted(one for one, _ in wire.sent) == sorted(str(job.pk) for job in made)


def test_jobs_for_later_are_not_sent_now(wire: Wire, django_capture_on_commit_callbacks: Capture) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        submit(1200, run_after=timezone.now() + timedelta(hours=1))
    assert reconciler.reconcile()["sent"] == 0
    assert wire.sent == []
    Job.objects.update(run_after=Now())
    assert reconciler.reconcile()["sent"] == 1200
    assert set(wire.sent) == {(str(one), "snakepit.digits") for one in Job.objects.values_list("pk", flat=True)}


def test_a_rollback_sends_nothing(wire: Wire, django_capture_on_commit_callbacks: Capture) -> None:
    with django_capture_on_commit_callbacks(execute=True), transaction.atomic():
        submit(3)
        transaction.set_rollback(True)
    assert wire.sent == []


def test_each_job_has_its_signal_after_the_commit(django_capture_on_commit_callbacks: Capture) -> None:
    seen: list[Any] = []

    def receive(job: Job, **_: Any) -> None:
        seen.append(job.pk)

    job_submitted.connect(receive)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            made = submit(3)
            assert seen == []
    finally:
        job_submitted.disconnect(receive)
    assert seen == [job.pk for job in made]


# Surfaces.


def post(client: Client, key: str, body: str, query: str = "pool=digits&command=classify", **headers: str) -> Any:
    given = {"Authorization": key, **headers}
    return client.post(f"/api/jobs/batch?{query}", body, content_type="application/x-ndjson", headers=given)


def test_lines_are_submitted_over_rest(client: Client, make_key: Callable[..., str]) -> None:
    key = make_key("run")
    query = "pool=digits&command=classify&priority=4&tags=a&tags=b&timeout=2.5"
    response = post(client, key, '{"n": 1}\n{"n": 2}\r\n{}\n', query)
    assert response.status_code == 201, response.content
    found = response.json()
    assert (found["count"], found["created"]) == (3, 3)
    stored = [Job.objects.get(pk=one) for one in found["ids"]]
    assert [job.arguments for job in stored] == [{"n": 1}, {"n": 2}, {}]
    assert {(job.owner, job.priority, job.tags, job.timeout) for job in stored} == {("ada", 4, ",a,b,", 2.5)}
    first, second = (post(client, key, '{"n": 1}\n{"n": 2}', **{"Idempotency-Key": "night"}) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json() == {**first.json(), "created": 0}
    more = post(client, key, '{"n": 1}\r\n{"n": 2}\r\n{"n": 3}\r\n\r\n\n', **{"Idempotency-Key": "night"})
    assert (more.status_code, more.json()["created"]) == (201, 1)


@pytest.mark.parametrize(
    ("body", "query", "status", "message"),
    [
        ('{"n": 1}\n{"n": "x"}', "", 422, "line 2: n must be integer"),
        ('{"n": 1}\n{"n": ', "", 400, "line 2: "),
        ('{"n": 1}\n\n{"n": 1}', "", 400, "line 2: "),
        ("[1]", "", 400, "line 1: must be a JSON object of arguments, not an array"),
        ("", "", 400, "empty"),
        (" \r\n\n", "", 400, "empty"),
        ('{"n": 1}\n' * 6, "", 413, "JOBS_BATCH_ROWS"),
        ('{"n": "' + "y" * 2**20 + '"}', "", 413, "MAX_BODY"),
        ('{"n": 1}', "&prioritie=1", 400, "prioritie"),
        ('{"n": 1}', "&priority=1000", 400, "priority"),
        ('{"n": 1}', "&run_after=3600", 400, "run_after"),
    ],
)
def test_bad_lines_are_refused_by_number(
    client: Client, make_key: Callable[..., str], snakepit: Any, body: str, query: str, status: int, message: str
) -> None:
    snakepit.SNAKEPIT = {**snakepit.SNAKEPIT, "JOBS_BATCH_ROWS": 5}
    response = post(client, make_key("run"), body, f"pool=digits&command=classify{query}")
    assert response.status_code == status, response.content
    error = response.json()["error"]
    assert message in error["message"]
    assert "row" not in error.get("details", {})
    assert not Job.objects.exists()


def test_the_limits_of_a_key_hold_for_lines(client: Client, make_key: Callable[..., str]) -> None:
    key = make_key("run", limits={"jobs_waiting": 2})
    assert post(client, key, '{"n": 1}\n{"n": 2}\n{"n": 3}').status_code == 429
    assert post(client, key, '{"n": 1}\n{"n": 2}').status_code == 201
    assert Job.objects.count() == 2


def test_lines_are_submitted_from_a_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.ndjson"
    file.write_text('{"n": 1}\n{"n": 2}\n')
    assert run(["submit", "digits", "classify", "--file", str(file), "--key", "night", "--tag", "a"]) == 0
    ids = capsys.readouterr().out.split()
    assert [Job.objects.get(pk=one).arguments for one in ids] == [{"n": 1}, {"n": 2}]
    assert run(["submit", "digits", "classify", "--file", str(file), "--key", "night", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ids": ids, "count": 2, "created": 0}
    file.write_text('{"n": 1}\n{"n": "x"}\n')
    assert run(["submit", "digits", "classify", "--file", str(file)]) != 0
    assert "line 2: n must be integer" in capsys.readouterr().err
    file.write_text('{"n": 1}\nn\n')
    assert run(["submit", "digits", "classify", "--file", str(file)]) != 0
    assert "line 2: not JSON" in capsys.readouterr().err
    file.write_text('{"n": 1}\n{"n": 1, "n": 2}\n')
    assert run(["submit", "digits", "classify", "--file", str(file)]) == 2
    assert "line 2: contains the key 'n' twice in one object; remove one" in capsys.readouterr().err
    assert run(["submit", "digits", "classify", '{"n": 1}', "--file", str(file)]) != 0
    assert "--file takes neither" in capsys.readouterr().err
    assert Job.objects.count() == 2
