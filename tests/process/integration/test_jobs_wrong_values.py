"""Values that no job can have: one typed error that names the field, bounded and printable, on every way in."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from snakepit.pools import jobs
from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.jobs import messages, reconciler
from snakepit.pools.models import Job, Pool
from snakepit.pools.models.states import QUEUED
from tests.process.integration.fakes import FakeClient

pytestmark = pytest.mark.django_db

HUGE = 10**5000  # Python refuses to print it
NOBODY = uuid.UUID("01a22d33-0000-7000-8000-000000000000")


@pytest.fixture(autouse=True)
def ready(monkeypatch: pytest.MonkeyPatch, broker: FakeClient) -> None:
    monkeypatch.setattr(messages, "send", lambda *_: True)
    monkeypatch.setattr(broker, "commands", lambda _: (), raising=False)
    Pool.objects.create(name="digits", adapter="digits", size=1)


def refusal(work: Callable[[], Any]) -> str:
    """The message of the typed error, which a log can print and an answer can hold."""
    with pytest.raises(BrokerError) as caught:
        work()
    error = caught.value
    whole = f"{error.message} {json.dumps(error.details)}"
    assert len(whole) < 1000, whole[:200]
    whole.encode("utf-8")
    return error.message


@pytest.mark.parametrize("action", [jobs.cancel, jobs.retry, jobs.clone])
def test_what_is_no_id_of_a_job_is_named(action: Callable[[Any], Any]) -> None:
    for wrong in ("x", "", None, 7, True, 1.5, b"x", [], "\0", "\ud800", "x" * 10**6, HUGE, object()):
        assert refusal(lambda wrong=wrong: action(wrong)).startswith("job: "), wrong
    assert refusal(lambda: action(NOBODY)) == f"job: no job has the id {NOBODY}"
    assert refusal(lambda: action(str(NOBODY))) == f"job: no job has the id {NOBODY}"


def test_an_action_takes_a_job_its_id_or_the_text_of_its_id() -> None:
    job = jobs.submit("digits", "classify", n=1)
    assert jobs.cancel(str(job.pk)).state == "cancelled"
    assert jobs.retry(job).state == QUEUED
    assert jobs.cancel(job).state == "cancelled"
    assert jobs.clone(job.pk).arguments == {"n": 1}


def test_what_is_no_pool_is_named() -> None:
    for wrong in ("x", None, 7, "\0", "\ud800", "x" * 10**6, [], HUGE):
        for action in (jobs.pause_queue, jobs.resume_queue):
            assert refusal(lambda wrong=wrong, action=action: action(wrong)).startswith("No pool is named "), wrong
    refusal(lambda: jobs.submit("x" * 10**6, "classify"))


@pytest.mark.parametrize(
    "option",
    ["priority", "run_after", "deadline", "expires", "timeout", "max_attempts", "backoff", "retry", "tags", "owner",
     "retention", "unique", "depends_on", "on_failure"],
)  # fmt: skip
def test_no_value_of_an_option_hides_its_name(option: str) -> None:
    for wrong in (HUGE, -HUGE, [HUGE], float("nan"), float("inf"), "\0", "\ud800", "x" * 10**6, {"a": 1}, ["\ud800"]):
        for submit in (jobs.submit, lambda *where, **of: jobs.submit_many(*where, [{}], **of)):
            message = refusal(lambda wrong=wrong, submit=submit: submit("digits", "classify", **{option: wrong}))
            assert message.startswith(f"{option}: "), (wrong if wrong is not HUGE else "huge", message)


def test_no_argument_that_a_database_refuses_is_stored() -> None:
    for wrong in (
        HUGE,
        -HUGE,
        [HUGE],
        {"a": HUGE},
        "\0",
        "\ud800",
        float("nan"),
        float("inf"),
        {"\0": 1},
        {"\ud800": 1},
    ):
        assert refusal(lambda wrong=wrong: jobs.submit("digits", "classify", n=wrong)).startswith("n: ")
        assert refusal(lambda wrong=wrong: jobs.submit_many("digits", "classify", [{"n": wrong}])).startswith(
            "row 0: n: "
        )
    for name in ("\0", "\ud800", 5, HUGE):
        assert refusal(lambda name=name: jobs.submit("digits", "classify", {name: 1})).startswith(
            "arguments: the name "
        )
    flow = jobs.Workflow("night")
    flow.job("digits", "classify", n=HUGE)
    assert refusal(flow.submit) == "job 0: n: contains a whole number of more than 4300 digits"
    assert not Job.objects.exists()


def test_the_largest_whole_number_is_stored() -> None:
    job = jobs.submit("digits", "classify", n=10**4300 - 1, m=-(2**64))
    assert job.refresh().arguments == {"n": 10**4300 - 1, "m": -(2**64)}


def test_a_time_that_has_passed_ends_the_job_at_the_next_reconcile(client: Client, make_key: Any) -> None:
    """A repeated request must find its job, so a time that passed meanwhile is no error."""
    past = datetime.now(UTC) - timedelta(hours=1)
    made = {
        "expires": [jobs.submit("digits", "classify", expires=past, idempotency_key="k")],
        "deadline": jobs.submit_many("digits", "classify", [{}], deadline=past),
    }
    again = jobs.submit("digits", "classify", expires=past, idempotency_key="k")
    assert (again.pk, again.existed) == (made["expires"][0].pk, True)
    headers = {"Authorization": make_key()}
    for name, found in made.items():
        body = {"pool": "digits", "command": "classify", name: past.isoformat()}
        single = client.post("/api/jobs", json.dumps(body), content_type="application/json", headers=headers)
        many = client.post(
            f"/api/jobs/batch?pool=digits&command=classify&{name}={past:%Y-%m-%dT%H:%M:%SZ}",
            "{}\n",
            content_type="application/x-ndjson",
            headers=headers,
        )
        assert (single.status_code, many.status_code) == (201, 201), (single.content, many.content)
        found += [Job.objects.get(pk=one) for one in (single.json()["id"], *many.json()["ids"])]
    reconciler.reconcile()
    for name, ended, code in (("expires", "cancelled", "expired"), ("deadline", "failed", "deadline_exceeded")):
        for job in made[name]:
            job.refresh()
            assert (job.state, job.attempts, (job.error or {})["code"]) == (ended, 0, code)
