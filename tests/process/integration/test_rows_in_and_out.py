"""All rows of the app through dumpdata and loaddata, and the tables down to nothing and up again."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction

from snakepit.pools import jobs
from snakepit.pools.jobs import leases, messages
from snakepit.pools.jobs.policy import Transition
from snakepit.pools.models import (
    ApiKey,
    Audit,
    Event,
    Job,
    JobEntry,
    JobStart,
    JobWorkflow,
    Node,
    PeriodicJob,
    PeriodicRun,
    Pool,
    PoolPeriod,
    Worker,
)
from snakepit.pools.models.moments import utc_now
from tests.process.integration.fakes import FakeClient

ERROR = {"code": "adapter_error", "message": "KeyError: x", "outcome": "failed", "details": {}}


@pytest.fixture(autouse=True)
def ready(monkeypatch: pytest.MonkeyPatch, broker: FakeClient) -> None:
    monkeypatch.setattr(messages, "send", lambda *_: True)


def fill(users: Any) -> None:
    """At least one row of each model."""
    Pool.objects.create(name="digits", adapter="digits", size=1)
    ApiKey.create(name="test", owner=users.objects.create_user("ada", is_superuser=True), scopes=("view",))
    now = utc_now()
    node = Node.objects.create(name="node-1", address="/run/x", pid=1, seen_at=now)
    Worker.objects.create(node=node, worker_id="digits-1", pool="digits", state="ready", pid=7, seen_at=now)
    Event.objects.create(at=now, kind="ready", pool="digits")
    JobStart.objects.create(pool="digits", owner="ada", count=2, at=now)
    PoolPeriod.objects.create(pool="digits", node="node-1", at=now, seconds=60)
    Audit.objects.create(actor="ada", action="pause")
    periodic = PeriodicJob.objects.create(name="night", pool="digits", command="classify", cron="30 2 * * *")
    PeriodicRun.objects.create(periodic=periodic, nominal=now)
    flow = jobs.Workflow("night")
    flow.job("digits", "classify", pixels=[], after=[flow.job("digits", "classify", pixels=[])])
    flow.submit()
    for state in ("queued", "running", "succeeded", "failed"):
        job = jobs.submit("digits", "classify", {"pixels": [b"\0\xff"]}, tags=["night"])
        if state != "queued":
            held = leases.claim(job.pk, "test", "node-1")
            assert held is not None
            leases.append_entries(held, [("log", {"message": "ö"}), ("chunk", None)], (0.5, "half"))
            if state == "succeeded":
                leases.succeed(held, b"\0raw", {"worker": "digits-1"})
            elif state == "failed":
                leases.fail(held, Transition("failed"), ERROR, {"error": ERROR})


def dumped() -> list[dict[str, Any]]:
    text = io.StringIO()
    call_command("dumpdata", "auth.user", "snakepit_pools", stdout=text)
    found: list[dict[str, Any]] = json.loads(text.getvalue())
    return found


@pytest.mark.django_db
def test_all_rows_come_back_as_they_were(django_user_model: Any, tmp_path: Any) -> None:
    fill(django_user_model)
    before = dumped()
    models = {model._meta.label_lower for model in apps.get_app_config("snakepit_pools").get_models()}
    assert {one["model"] for one in before} == models | {"auth.user"}
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(before))
    for model in (
        Job,
        JobStart,
        JobWorkflow,
        Worker,
        Node,
        Event,
        PoolPeriod,
        Audit,
        ApiKey,
        PeriodicJob,
        Pool,
        django_user_model,
    ):
        model._default_manager.all().delete()
    assert dumped() == []
    call_command("loaddata", str(file), verbosity=0)
    assert dumped() == before
    assert Job.objects.get(state="succeeded").value == b"\0raw"


@pytest.mark.django_db
def test_output_is_refused_again_after_a_load(django_user_model: Any, tmp_path: Any) -> None:
    fill(django_user_model)
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([one for one in dumped() if one["model"].startswith("snakepit_pools.jobentry")]))
    ended = Job.objects.get(state="failed")
    JobEntry.objects.all().delete()
    call_command("loaddata", str(file), verbosity=0)
    assert ended.entries.count() == 2
    with pytest.raises(IntegrityError, match="may add output"), transaction.atomic():
        JobEntry.objects.create(job=ended, seq=3, attempt=1, kind="log", data=None)


@pytest.mark.django_db(transaction=True)
def test_the_tables_go_down_to_nothing_and_up_again() -> None:
    label = apps.get_app_config("snakepit_pools").label
    try:
        call_command("migrate", label, "zero", verbosity=0)
        assert not [one for one in connection.introspection.table_names() if one.startswith("snakepit_")]
    finally:
        call_command("migrate", label, verbosity=0)
    Pool.objects.create(name="digits", adapter="digits", size=1)
    job = jobs.submit("digits", "classify", {"pixels": []})
    with pytest.raises(IntegrityError, match="rise by one"), transaction.atomic():
        Job.objects.filter(pk=job.pk).update(attempts=3)
