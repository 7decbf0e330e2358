"""Workflows: jobs that wait for others and receive their results, on every surface."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.test import Client

from snakepit.pools import jobs
from snakepit.pools.broker.errors import BadArguments, BadRequest, CommandUnknown
from snakepit.pools.cli.main import run
from snakepit.pools.dashboard.hub import Hub
from snakepit.pools.jobs import bulk_actions, deletion, reconciler, workflows
from snakepit.pools.jobs.listing import JobQuery
from snakepit.pools.models import Job, JobEdge, JobWorkflow
from snakepit.pools.models.moments import utc_now
from snakepit.testing import Pools, override_pools
from tests.process.integration.sums import Sums


@pytest.fixture
def manual(db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pools]:
    monkeypatch.setattr(Sums, "broken", True)
    with override_pools({"sums": Sums}, jobs="manual") as pools:
        yield pools


def states(flow: JobWorkflow) -> list[str]:
    return [job.state for job in flow.jobs.order_by("pk")]


def diamond(**options: Any) -> JobWorkflow:
    flow = jobs.Workflow("night", owner="ada")
    first = flow.job("sums", "add", number=1)
    parts = [flow.job("sums", "add", number=first, more=more) for more in (10, 20)]
    flow.job("sums", "total", numbers=parts, **options)
    return flow.submit()


def test_results_are_passed_on_and_a_callback_gathers_a_group(manual: Pools) -> None:
    flow = diamond()
    assert states(flow) == ["queued", "blocked", "blocked", "blocked"]
    manual.run_jobs()
    found = list(flow.jobs.order_by("pk"))
    assert [job.value for job in found] == [2, 12, 22, 34]
    assert found[3].arguments == {"numbers": [12, 22]}
    assert {job.owner for job in found} == {"ada"}


def test_jobs_that_run_at_once_end_in_a_chain_of_any_length(db: None) -> None:
    with override_pools({"sums": Sums}):
        flow = jobs.Workflow()
        last = flow.chain("sums", ["add"] * 100, "number", 0)
        row = flow.submit()
        assert last.index == 99
        assert row.jobs.order_by("-pk")[0].value == 100


@pytest.mark.parametrize(("policy", "after"), [("cancel", "cancelled"), ("run", "succeeded")])
def test_a_predecessor_without_success_cancels_what_follows_or_not(policy: str, after: str, manual: Pools) -> None:
    flow = jobs.Workflow()
    bad = flow.job("sums", "fail", text="x")
    good = flow.job("sums", "add", number=1)
    then = flow.job("sums", "show", found=bad, after=[good], on_failure=policy)
    flow.job("sums", "show", after=[then])
    row = flow.submit()
    manual.run_jobs()
    assert states(row) == ["failed", "succeeded", after, after]
    third = row.jobs.order_by("pk")[2]
    if policy == "run":
        assert third.value == "None"
    else:
        assert third.error is not None
        assert "(sums.fail) is failed" in third.error["message"]


def test_a_workflow_that_is_cancelled_by_its_filter_ends_as_a_whole(manual: Pools) -> None:
    flow = diamond()
    found = bulk_actions.act("cancel", JobQuery(workflow=str(flow.pk)).rows())
    assert states(flow) == ["cancelled"] * 4
    assert found.done >= 1


def test_a_retry_of_the_whole_blocks_what_waits_and_goes_on(manual: Pools) -> None:
    flow = jobs.Workflow()
    bad = flow.job("sums", "fail", text="now")
    flow.job("sums", "show", found=bad)
    row = flow.submit()
    manual.run_jobs()
    second = row.jobs.order_by("pk")[1]
    with pytest.raises(BadRequest, match="Retry that one first"):
        jobs.retry(second.pk)
    Sums.broken = False
    assert bulk_actions.act("retry", JobQuery(workflow=str(row.pk)).rows()).done == 2
    assert states(row) == ["queued", "blocked"]
    manual.run_jobs()
    assert states(row) == ["succeeded", "succeeded"]
    assert second.refresh().value == "'now'"


def test_a_release_that_was_missed_is_found_by_the_reconciler(manual: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = diamond()
    with monkeypatch.context() as patch:
        patch.setattr("snakepit.pools.jobs.after_end.steps", [])
        manual.run_jobs()
    assert states(flow) == ["succeeded", "blocked", "blocked", "blocked"]
    assert reconciler.reconcile()["released"] == 2
    assert states(flow) == ["succeeded", "queued", "queued", "blocked"]
    assert reconciler.reconcile()["released"] == 0


def test_a_blocked_job_can_be_cancelled_and_has_a_deadline(manual: Pools) -> None:
    flow = diamond()
    found = list(flow.jobs.order_by("pk"))
    assert jobs.cancel(found[1].pk).state == "cancelled"
    assert states(flow) == ["queued", "cancelled", "blocked", "cancelled"]
    Job.objects.filter(pk=found[2].pk).update(deadline=Now() - timedelta(seconds=1))
    assert reconciler.reconcile()["overdue"] == 1
    assert states(flow) == ["queued", "cancelled", "failed", "cancelled"]


def test_a_blocked_job_that_has_not_begun_at_its_expiry_is_cancelled_and_what_follows(manual: Pools) -> None:
    flow = jobs.Workflow()
    first = flow.job("sums", "add", number=1)
    second = flow.job("sums", "add", number=first, expires=utc_now() + timedelta(hours=1))
    flow.job("sums", "add", number=second)
    row = flow.submit()
    assert reconciler.reconcile()["expired"] == 0
    Job.objects.exclude(expires=None).update(expires=Now() - timedelta(seconds=1))
    assert reconciler.reconcile()["expired"] == 1
    assert states(row) == ["queued", "cancelled", "cancelled"]
    error = row.jobs.order_by("pk")[1].error
    assert error is not None
    assert error["code"] == "expired"


def test_a_result_that_is_waited_for_is_not_deleted(manual: Pools) -> None:
    flow = diamond()
    first = flow.jobs.order_by("pk")[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("snakepit.pools.jobs.after_end.steps", [])
        manual.run_jobs()
    Job.objects.filter(pk=first.pk).update(expires_at=Now() - timedelta(seconds=1))
    assert deletion.prune() == 0
    bulk_actions.act("cancel", flow.jobs.all())
    assert deletion.prune() == 1
    assert bulk_actions.act("delete", Job.objects.all()).done == 3
    assert (workflows.prune(), JobWorkflow.objects.count(), JobEdge.objects.count()) == (1, 0, 0)


def test_results_that_are_too_large_fail_the_job(manual: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflows, "MOST_RESULTS", 2)
    flow = diamond()
    manual.run_jobs()
    last = flow.jobs.order_by("-pk")[0]
    assert last.state == "failed"
    assert last.error is not None
    assert last.error["code"] == "payload_too_large"


def test_a_cycle_is_impossible(manual: Pools) -> None:
    flow, other = jobs.Workflow(), jobs.Workflow()
    step = flow.job("sums", "add", number=1)
    with pytest.raises(BadRequest, match="added to this workflow before"):
        other.job("sums", "add", number=step)
    row = diamond()
    found = list(row.jobs.order_by("pk"))
    with pytest.raises(IntegrityError), transaction.atomic():
        JobEdge.objects.create(job=found[0], needs=found[3])


def test_a_wrong_job_refuses_the_whole_and_is_named(manual: Pools) -> None:
    flow = jobs.Workflow()
    first = flow.job("sums", "add", number=1)
    with pytest.raises(BadArguments, match="job 1: numbers is missing"):
        _with(first, flow, "total", after=[first])
    with pytest.raises(BadArguments, match="job 1: wrong is unknown"):
        _with(first, flow, "add", number=1, wrong=first)
    with pytest.raises(CommandUnknown, match="job 1: "):
        _with(first, flow, "ad", number=first)
    with pytest.raises(BadRequest, match="1 to 1000 jobs"):
        jobs.Workflow().submit()
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ({"command": "add"}, r"jobs\[0\]: pool: is missing"),
        ({"pool": "sums"}, r"jobs\[0\]: command: is missing"),
        ({"pool": ["sums"], "command": "add"}, r"jobs\[0\]: pool: must be the name of a pool"),
        ({"pool": "sums", "command": {}}, r"jobs\[0\]: command: must be the name of a command"),
        ({"pool": "sums", "command": "add", "timeout": 10**400}, "job 0: timeout: a number of more than 40 digits"),
    ],
    ids=["no pool", "no command", "pool", "command", "timeout"],
)
def test_rest_names_the_field_of_a_wrong_job(
    job: dict[str, Any], words: str, manual: Pools, client: Client, make_key: Any
) -> None:
    body = {"jobs": [{"arguments": {"number": 1}, **job}]}
    headers = {"Authorization": make_key()}
    answer = client.post("/api/workflows", json.dumps(body), content_type="application/json", headers=headers)
    assert answer.status_code == 400, answer.content
    assert re.match(words, answer.json()["error"]["message"])


def test_a_builder_names_what_is_no_list_and_a_job_inside_a_value(manual: Pools) -> None:
    flow: Any = jobs.Workflow()
    first = flow.job("sums", "add", number=1)
    for words, add in (
        ("after: must be a list of jobs, or of their ids, not Step", lambda: flow.job("sums", "add", after=first)),
        ("after: must be a list", lambda: flow.group("sums", "add", [{"number": 1}], after=first)),
        ("rows: must be a list of dicts", lambda: flow.group("sums", "add", None)),
        ("arguments: must be a dict, not int", lambda: flow.group("sums", "add", [5])),
        ("commands: must be a list of names", lambda: flow.chain("sums", "add", "number", 1)),
        ("numbers: a job inside a value receives no result", lambda: flow.job("sums", "total", numbers={"a": [first]})),
    ):
        with pytest.raises(BadRequest, match=words):
            add()
    assert flow.steps == [first]


def _with(first: Any, flow: jobs.Workflow, name: str, **more: Any) -> None:
    del flow.steps[1:]
    flow.job("sums", name, **more)
    flow.submit()


SPEC = [
    {"id": "a", "pool": "sums", "command": "add", "arguments": {"number": 1}},
    {"id": "b", "pool": "sums", "command": "total", "results": {"numbers": ["a"]}, "priority": 5},
]


def test_rest_submits_shows_and_lists(manual: Pools, client: Client, make_key: Any) -> None:
    headers = {"Authorization": make_key("run", "view")}

    def post(body: Any) -> Any:
        return client.post("/api/workflows", json.dumps(body), content_type="application/json", headers=headers)

    made = post({"name": "night", "jobs": SPEC})
    assert made.status_code == 201
    assert (made.json()["state"], made.json()["states"]) == ("running", {"queued": 1, "blocked": 1})
    manual.run_jobs()
    shown = client.get(f"/api/workflows/{made.json()['id']}", headers=headers).json()
    assert (shown["state"], [one["state"] for one in shown["jobs"]]) == ("succeeded", ["succeeded"] * 2)
    assert shown["jobs"][1]["after"] == [shown["jobs"][0]["id"]]
    listed = client.get("/api/workflows", headers=headers).json()
    assert [one["name"] for one in listed["workflows"]] == ["night"]
    one = client.get(f"/api/jobs?workflow={shown['id']}", headers=headers).json()["jobs"]
    assert {job["workflow"] for job in one} == {shown["id"]}
    assert len(one) == 2
    assert client.get("/api/workflows/none", headers=headers).status_code == 404
    later = {**SPEC[0], "run_after": (utc_now() + timedelta(hours=1)).isoformat()}
    assert post({"jobs": [later, SPEC[1]]}).json()["states"] == {"scheduled": 1, "blocked": 1}
    both = {"arguments": {"numbers": [1]}, "results": {"numbers": ["a"]}}
    for wrong in (both, {"results": {"numbers": []}}):  # one of two values would be lost; no job to wait for
        refused = post({"jobs": [SPEC[0], {**SPEC[1], **wrong}]})
        assert refused.status_code == 400
        assert "jobs[1]: results.numbers" in refused.json()["error"]["message"]
    for wrong in ([{**SPEC[1], "results": {"numbers": ["z"]}}], [SPEC[1], SPEC[0]], [{"pool": "sums", "colour": 1}]):
        refused = post({"jobs": wrong})
        assert refused.status_code == 400
        assert "jobs[0]" in refused.json()["error"]["message"]


def test_others_see_no_workflow_of_theirs(manual: Pools, client: Client, make_key: Any) -> None:
    row = jobs.Workflow(owner="bob")
    row.job("sums", "add", number=1)
    made = row.submit()
    for scopes, status in ((("run",), 404), (("view",), 200)):
        headers = {"Authorization": make_key(*scopes)}
        assert client.get(f"/api/workflows/{made.pk}", headers=headers).status_code == status
        assert len(client.get("/api/workflows", headers=headers).json()["workflows"]) == (status == 200)


def test_a_shell_submits_a_file_and_shows_it(manual: Pools, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "flow.json"
    file.write_text(json.dumps({"name": "night", "jobs": SPEC}))
    assert run(["workflow", "--file", str(file)]) == 0
    ident = capsys.readouterr().out.strip()
    assert run(["workflow", ident]) == 0
    out = capsys.readouterr().out
    assert "night" in out
    assert "blocked" in out
    assert "total" in out
    assert run(["workflow", ident, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["states"] == {"queued": 1, "blocked": 1}
    file.write_text('{"jobs": [{"id": "a", "id": "b", "pool": "primes", "command": "count"}]}')
    assert run(["workflow", "--file", str(file)]) == 2
    assert "contains the key 'id' twice" in capsys.readouterr().err
    assert run(["workflow", "0" * 32]) == 1
    assert run(["workflow"]) == 2


def test_the_dashboard_draws_it(
    manual: Pools, client: Client, django_user_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakepit.pools.dashboard.page.hub", Hub())
    row = diamond()
    client.force_login(django_user_model.objects.create_user("lena", is_staff=True))
    page = client.get(f"/workflows/{row.pk}/").content.decode()
    assert page.count("data-step=") == 4
    assert page.count('class="edge"') == 4
    assert "<title" in page
    assert 'role="group"' in page
    job = row.jobs.first()
    assert job is not None
    assert f"/workflows/{row.pk}/" in client.get(f"/jobs/{job.pk}/").content.decode()
    assert f"/workflows/{row.pk}/" in client.get("/workflows/").content.decode()
    assert client.get("/workflows/00000000-0000-0000-0000-000000000000/").status_code == 404
