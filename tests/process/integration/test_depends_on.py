"""Jobs that wait for jobs that were submitted before them: in each state, on every surface, and beside their end."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client

from snakepit.pools import jobs
from snakepit.pools.broker.errors import BadArguments, BadRequest
from snakepit.pools.cli.main import run
from snakepit.pools.jobs import after_end, deletion, ends, predecessors, reconciler
from snakepit.pools.jobs.policy import Transition
from snakepit.pools.models import Job, JobEdge
from snakepit.pools.models.job import uuid7s
from snakepit.pools.models.states import CANCELLED
from snakepit.testing import Pools, override_pools
from tests.process.integration.sums import Sums


@pytest.fixture
def manual(db: None) -> Iterator[Pools]:
    with override_pools({"sums": Sums, "others": Sums}, jobs="manual") as pools:
        yield pools


def state(job: Job) -> str:
    return str(Job.objects.get(pk=job.pk).state)


def test_a_job_waits_for_jobs_that_wait_and_gets_their_results(manual: Pools) -> None:
    parts = [jobs.submit("sums", "add", number=number) for number in (1, 2)]
    one = jobs.submit("sums", "show", found=parts[0])
    every = jobs.submit("sums", "total", numbers=parts, depends_on=[one])
    assert (one.state, every.state, every.sent_at) == ("blocked", "blocked", None)
    manual.run_jobs()
    assert [Job.objects.get(pk=job.pk).value for job in (one, every)] == ["2", 5]
    assert Job.objects.get(pk=every.pk).arguments == {"numbers": [2, 3]}


def test_a_job_after_jobs_that_have_ended_is_queued_at_its_commit(manual: Pools) -> None:
    first = jobs.submit("sums", "add", number=1)
    manual.run_jobs()
    plain = jobs.submit("sums", "show", depends_on=[first.pk])
    given = jobs.submit("sums", "show", found=first)
    assert (plain.state, given.state, given.arguments) == ("queued", "queued", {"found": 2})
    manual.run_jobs()
    assert state(plain) == state(given) == "succeeded"


@pytest.mark.parametrize(("policy", "expected"), [("cancel", "cancelled"), ("run", "queued")])
def test_the_policy_decides_after_a_job_that_has_failed(policy: str, expected: str, manual: Pools) -> None:
    first = jobs.submit("sums", "fail", max_attempts=1)
    manual.run_jobs()
    job = jobs.submit("sums", "show", found=first, on_failure=policy)
    assert job.state == expected
    if policy == "cancel":
        assert job.error["message"] == f"The job {first.pk} (sums.fail) is failed, which this one waited for."
    else:
        assert job.arguments == {"found": None}


def test_a_job_of_another_pool_is_cancelled_with_the_job_that_it_waits_for(manual: Pools) -> None:
    first = jobs.submit("sums", "add", number=1)
    job = jobs.submit("others", "show", depends_on=[str(first.pk)])
    jobs.cancel(first.pk)
    assert state(job) == "cancelled"


def test_many_jobs_that_wait_for_one_are_released_by_few_statements(
    manual: Pools, django_assert_max_num_queries: Any
) -> None:
    first = jobs.submit("sums", "add", number=1)
    made = jobs.submit_many("sums", "show", [{"found": number} for number in range(40)], depends_on=[first])
    assert {job.state for job in made} == {"blocked"}
    job = Job.objects.get(pk=first.pk)
    with django_assert_max_num_queries(40):
        ends.write([ends.End(job, Transition(CANCELLED, counts=False), source="queued")], steps=False)
        JobEdge.objects.update(policy="run")
        list(predecessors.release([one.pk for one in made]))
    assert set(Job.objects.filter(pk__in=[one.pk for one in made]).values_list("state", flat=True)) == {"queued"}
    later = jobs.submit_many("sums", "show", [{}], depends_on=[first], on_failure="run")
    assert later[0].state == "queued"


def test_an_end_that_does_not_see_the_new_job_is_found_after_its_commit(
    manual: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, settle = jobs.submit("sums", "add", number=1), predecessors.settle

    def ended_meanwhile(*given: Any) -> bool:
        end = ends.End(Job.objects.get(pk=first.pk), Transition(CANCELLED, counts=False), source="queued")
        ends.write([end], steps=False)
        return settle(*given)

    monkeypatch.setattr(predecessors, "settle", ended_meanwhile)
    assert jobs.submit("sums", "show", depends_on=[first], on_failure="run").state == "queued"


@pytest.mark.django_db(transaction=True)
def test_an_end_that_is_being_written_releases_the_job_that_was_added_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen, written, waits = threading.Event(), threading.Event(), predecessors._wait_for
    errors: list[BaseException] = []

    def note(*given: Any) -> None:
        seen.set()
        waits(*given)

    monkeypatch.setattr(predecessors, "_wait_for", note)
    with override_pools({"sums": Sums}, jobs="manual"):
        first = jobs.submit("sums", "add", number=1)

        def end() -> None:
            try:
                with transaction.atomic():
                    jobs.cancel(first.pk)
                    written.set()
                    assert connection.vendor != "postgresql" or seen.wait(60)
            except BaseException as error:
                errors.append(error)
            finally:
                connection.close()

        thread = threading.Thread(target=end)
        thread.start()
        assert written.wait(60)
        if connection.vendor != "postgresql":  # one writer at a time: the submission comes after the end
            thread.join(60)
        job = jobs.submit("sums", "show", depends_on=[first], on_failure="run")
        thread.join(60)
        assert errors == []
        assert state(job) == "queued"


def test_a_job_that_is_waited_for_cannot_be_deleted_before_the_commit(manual: Pools) -> None:
    first = jobs.submit("sums", "add", number=1, retention=0)
    manual.run_jobs()
    with transaction.atomic():
        predecessors.keep([first.pk])
        with pytest.raises(BadRequest, match="depends_on: no job has the id 0"):
            predecessors.keep([first.pk, uuid.UUID(int=7)])
    jobs.submit("sums", "show", found=first)
    assert deletion.prune() in (0, 1)


def test_a_job_of_a_host_whose_clock_is_ahead_can_be_waited_for(manual: Pools) -> None:
    first = jobs.submit("sums", "add", number=1)
    later = uuid.UUID(int=first.pk.int + (3_600_000 << 80))
    Job.objects.filter(pk=first.pk).update(id=later)
    second = jobs.submit("sums", "show", depends_on=[later])
    third = jobs.submit_many("sums", "show", [{}, {}], depends_on=[second])
    assert later < second.pk < third[0].pk < third[1].pk
    assert next(uuid7s([later])) > later


def test_a_repeated_submission_finds_its_job_after_the_results_came(manual: Pools) -> None:
    first = jobs.submit("sums", "add", number=1)
    made = [jobs.submit("sums", "show", found=first, idempotency_key="k") for _ in range(2)]
    manual.run_jobs()
    made.append(jobs.submit("sums", "show", found=first, idempotency_key="k"))
    assert len({job.pk for job in made}) == 1
    assert [job.existed for job in made] == [False, True, True]
    with pytest.raises(BadRequest, match="already used"):
        jobs.submit("sums", "show", found=8, idempotency_key="k")


def test_a_unique_job_that_waits_is_found_and_waits_for_nothing_more(manual: Pools) -> None:
    first = jobs.submit("sums", "add", number=1)
    one = jobs.submit("sums", "show", depends_on=[first], unique=True)
    again = jobs.submit("sums", "show", depends_on=[one], unique=True)
    assert again.pk == one.pk
    assert JobEdge.objects.count() == 1


def test_jobs_that_run_at_once_pass_their_results_on(db: None) -> None:
    with override_pools({"sums": Sums}):
        first = jobs.submit("sums", "add", number=1)
        assert jobs.submit("sums", "total", numbers=[first, first]).value == 4
        assert [job.value for job in jobs.submit_many("sums", "show", [{}, {}], depends_on=[first])] == ["7", "7"]


def test_a_workflow_waits_for_jobs_from_before_it(manual: Pools) -> None:
    first = jobs.submit("sums", "add", number=1)
    flow = jobs.Workflow("later")
    parts = [flow.job("sums", "add", number=first), flow.job("sums", "add", number=5, after=[str(first.pk)])]
    flow.job("sums", "total", numbers=[*parts, first])
    row = flow.submit()
    assert {job.state for job in row.jobs.all()} == {"blocked"}
    manual.run_jobs()
    assert [job.value for job in row.jobs.order_by("pk")] == [3, 6, 11]
    late = jobs.Workflow()
    late.job("sums", "show", found=first)
    assert [job.state for job in late.submit().jobs.all()] == ["queued"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depends_on": "x"}, "depends_on: must be a list"),
        ({"depends_on": 5}, "depends_on: must be a list"),
        ({"depends_on": ["x"]}, "depends_on: 'x' is neither a job nor the id of one"),
        ({"depends_on": [None]}, "depends_on: None is neither"),
        ({"depends_on": [uuid.UUID(int=7)]}, "depends_on: no job has the id 00000000-"),
        ({"depends_on": [uuid.UUID(int=2**128 - 1)]}, "depends_on: no job has the id ffffffff-"),
        ({"depends_on": [Job(pool="sums", command="add")]}, "depends_on: no job has the id"),
        ({"depends_on": [uuid.UUID(int=n) for n in range(1001)]}, "at most 1000 jobs, not 1001"),
        ({"on_failure": "stop"}, "on_failure: 'stop' is not one of cancel, run"),
    ],
)
def test_a_wrong_predecessor_is_refused(options: dict[str, Any], words: str, manual: Pools) -> None:
    for submit in (lambda: jobs.submit("sums", "show", **options),
                   lambda: jobs.submit_many("sums", "show", [{}], **options)):  # fmt: skip
        with pytest.raises(BadRequest, match=words):
            submit()
    assert not Job.objects.exists()


def test_results_go_to_arguments_that_exist_and_lists_have_only_jobs(manual: Pools) -> None:
    first = jobs.submit("sums", "add", number=1)
    with pytest.raises(BadArguments, match="colour"):
        jobs.submit("sums", "show", colour=first)
    with pytest.raises(BadRequest, match="numbers: a list of results may have only jobs, not int"):
        jobs.submit("sums", "total", numbers=[first, 2])
    flow = jobs.Workflow()
    with pytest.raises(BadRequest, match="depends_on: a job of a workflow has `after`"):
        flow.job("sums", "show", depends_on=[first])


def test_what_was_missed_is_found_by_the_reconciler(manual: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    first = jobs.submit("sums", "add", number=1)
    job = jobs.submit("sums", "show", found=first)
    monkeypatch.setattr(after_end, "steps", [])
    manual.run_jobs()
    assert state(job) == "blocked"
    reconciler.reconcile()
    assert state(job) == "queued"


def test_rest_waits_for_jobs_that_the_caller_may_see(
    manual: Pools, client: Client, make_key: Callable[..., str]
) -> None:
    mine, other = (jobs.submit("sums", "add", number=1, owner=name) for name in ("ada", "bob"))

    def post(key: str, **more: Any) -> Any:
        body = {"pool": "sums", "command": "total", **more}
        return client.post("/api/jobs", body, content_type="application/json", headers={"Authorization": key})

    run_key = make_key("run")
    made = post(run_key, results={"numbers": [str(mine.pk)]}, on_failure="run")
    assert made.status_code == 201
    assert made.json()["state"] == "blocked"
    assert made.json()["depends_on"] == [str(mine.pk)]
    assert made.json()["waits_for"] == "waits for the end of 1 job"
    for given, field in (
        ({"depends_on": [str(other.pk)]}, "depends_on"),
        ({"results": {"numbers": str(other.pk)}}, "results.numbers"),
    ):
        refused = post(run_key, **given)
        assert refused.status_code == 400
        assert f"{field}: there is no job {other.pk}, or you may not see it" in refused.json()["error"]["message"]
    see_key = make_key("run", "view")
    seen = post(see_key, command="show", depends_on=[str(other.pk)])
    assert seen.status_code == 201
    assert post(make_key("run", "view", pools=["others"]), depends_on=[str(mine.pk)]).status_code == 403
    manual.run_jobs()
    shown = client.get(f"/api/jobs/{made.json()['id']}", headers={"Authorization": run_key}).json()
    assert (shown["result"], shown["depends_on"], shown["waits_for"]) == (2, [str(mine.pk)], "")


def test_rest_passes_no_result_on_that_the_caller_may_not_read(
    manual: Pools, client: Client, make_key: Callable[..., str]
) -> None:
    other = jobs.submit("sums", "add", number=1, owner="bob")
    headers = {"Authorization": make_key("run", "view")}
    body = {"pool": "sums", "command": "show", "results": {"found": str(other.pk)}}
    refused = client.post("/api/jobs", body, content_type="application/json", headers=headers)
    assert refused.status_code == 403
    assert "view_payload" in refused.json()["error"]["message"]
    flow = {"jobs": [{"pool": "sums", "command": "show", "results": {"found": str(other.pk)}}]}
    assert client.post("/api/workflows", flow, content_type="application/json", headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"results": {f"a{number}": str(uuid.UUID(int=number)) for number in range(1001)}}, "results: has 1001 jobs"),
        ({"results": {"found": [str(uuid.UUID(int=1))] * 1001}}, "results: has 1001 jobs"),
        ({"depends_on": [str(uuid.UUID(int=number)) for number in range(10_001)]}, "depends_on: has 10001 jobs"),
        ({"results": {"found": str(uuid.UUID(int=1))}, "arguments": {"found": 3}}, "results.found: is in arguments"),
    ],
)
def test_rest_refuses_too_many_predecessors_before_it_reads_one(
    given: dict[str, Any], words: str, manual: Pools, client: Client, make_key: Callable[..., str],
    django_assert_max_num_queries: Any,
) -> None:  # fmt: skip
    headers = {"Authorization": make_key("run")}
    body = {"pool": "sums", "command": "show", **given}
    with django_assert_max_num_queries(5):  # of the key
        refused = client.post("/api/jobs", body, content_type="application/json", headers=headers)
    assert refused.status_code == 400
    assert words in refused.json()["error"]["message"]


def test_rest_takes_predecessors_for_a_batch_and_a_workflow(
    manual: Pools, client: Client, make_key: Callable[..., str]
) -> None:
    first, headers = jobs.submit("sums", "add", number=1, owner="ada"), {"Authorization": make_key("run")}
    url = f"/api/jobs/batch?pool=sums&command=show&depends_on={first.pk}"
    batch = client.post(url, b"{}\n{}\n", content_type="application/x-ndjson", headers=headers)
    assert batch.status_code == 201
    assert set(Job.objects.filter(pk__in=batch.json()["ids"]).values_list("state", flat=True)) == {"blocked"}
    wrong = client.post(url + "&depends_on=x", b"{}\n", content_type="application/x-ndjson", headers=headers)
    assert wrong.status_code == 400
    flow = {"jobs": [{"pool": "sums", "command": "show", "after": [str(first.pk)]}]}
    made = client.post("/api/workflows", flow, content_type="application/json", headers=headers)
    assert made.status_code == 201
    assert made.json()["jobs"][0]["after"] == [str(first.pk)]
    flow["jobs"][0]["after"] = ["z"]
    named = client.post("/api/workflows", flow, content_type="application/json", headers=headers).json()
    assert named["error"]["message"].startswith("jobs[0]: after: 'z' is neither the name of a job before this one")


def test_the_shell_waits_for_a_job_and_shows_it(
    manual: Pools, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    first = jobs.submit("sums", "add", number=1)
    command = ["submit", "sums", "show", "--after", str(first.pk)[-12:], "--on-failure", "run", "--json"]
    assert run(command) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["state"] == "blocked"
    assert run(["job", made["id"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["depends_on"] == [str(first.pk)]
    file = tmp_path / "rows"
    file.write_text("{}\n")
    assert run(["submit", "sums", "show", "--file", str(file), "--after", str(first.pk)]) == 0
    assert state(Job.objects.get(pk=capsys.readouterr().out.strip())) == "blocked"
    assert run(["submit", "sums", "show", "--after", "0" * 32]) == 1
    assert run(["submit", "sums", "show", "--on-failure", "stop"]) != 0


def test_dashboard_and_admin_show_both_ends(manual: Pools, client: Client, admin_client: Client) -> None:
    first = jobs.submit("sums", "add", number=1)
    job = jobs.submit("sums", "show", found=first)
    page = admin_client.get(f"/jobs/{job.pk}/").content.decode()
    assert "waits for the end of 1 job" in page
    assert f"/jobs/{first.pk}/" in page.partition("data-before")[2]
    assert f"/jobs/{job.pk}/" in admin_client.get(f"/jobs/{first.pk}/").content.decode().partition("data-after")[2]
    shown = admin_client.get(f"/admin/snakepit_pools/job/{job.pk}/change/").content.decode()
    assert str(first.pk) in shown
