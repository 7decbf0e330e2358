"""Cancel, retry and delete all jobs that a filter matches, and delete ended jobs in small batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from snakepit.pools import jobs
from snakepit.pools.cli.main import run
from snakepit.pools.dashboard.hub import Hub
from snakepit.pools.jobs import bulk_actions, deletion, leases, messages
from snakepit.pools.jobs.listing import JobQuery
from snakepit.pools.jobs.policy import Transition
from snakepit.pools.models import Audit, Job, JobAttempt, JobEntry, Pool
from tests.process.integration.fakes import FakeClient

pytestmark = pytest.mark.django_db
ERROR = {"code": "adapter_error", "message": "KeyError: x", "outcome": "failed", "details": {}}


@pytest.fixture(autouse=True)
def ready(monkeypatch: pytest.MonkeyPatch, broker: FakeClient) -> None:
    def send_many(ids: Sequence[Any], *_: Any, **__: Any) -> messages.Sent:
        return messages.Sent(tuple(ids))

    monkeypatch.setattr("snakepit.pools.dashboard.page.hub", Hub())
    monkeypatch.setattr(messages, "send", lambda *_: True)
    monkeypatch.setattr(messages, "send_many", send_many)
    for name in ("digits", "primes"):
        Pool.objects.create(name=name, adapter=name, size=1)


def bring(state: str, pool: str = "digits", **options: Any) -> Job:
    job = jobs.submit(pool, "classify", {"pixels": []}, **options)
    if state != "queued":
        held = leases.claim(job.pk, "test", "node-1")
        assert held is not None
        leases.append_entries(held, [("log", {"message": "one"})])
        if state == "succeeded":
            leases.succeed(held, 1, {})
        elif state != "running":
            leases.fail(held, Transition(state), ERROR, {})
    return job.refresh()


def states() -> list[str]:
    return [job.state + ("?" if job.cancel_requested else "") for job in Job.objects.order_by("pk")]


def bring_all() -> list[Job]:
    return [bring(state) for state in ("queued", "running", "succeeded", "failed", "lost")] + [
        bring("queued", "primes")
    ]


@pytest.mark.parametrize(
    ("action", "count", "after"),
    [
        ("cancel", 2, ["cancelled", "running?", "succeeded", "failed", "lost", "queued"]),
        ("retry", 2, ["queued", "running", "succeeded", "queued", "queued", "queued"]),
        ("delete", 3, ["queued", "running", "queued"]),
    ],
)
@pytest.mark.parametrize("batch", [1, 200])
def test_an_action_changes_the_jobs_that_match_and_can_change(
    action: str, count: int, after: list[str], batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_actions, "BATCH", batch)
    made = bring_all()
    rows = JobQuery(pool="digits").rows()
    seen = bulk_actions.preview(action, rows)
    assert (seen.count, seen.more) == (count, False)
    before = states()
    late = bring("failed" if action != "cancel" else "queued")  # after the preview
    assert bulk_actions.act(action, rows, seen.upto).done == count
    assert states() == [*after, late.state]
    assert before != states()
    assert bulk_actions.act(action, rows, seen.upto).done == 0
    if action == "retry":
        assert not JobEntry.objects.filter(job=made[3]).exists()
    if action == "delete":
        assert not JobAttempt.objects.filter(job__in=[one.pk for one in made[2:5]]).exists()


def test_an_action_whose_time_is_over_says_that_jobs_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_actions, "BATCH", 2)
    for _ in range(3):
        bring("queued")
    found = bulk_actions.act("cancel", Job.objects.all(), seconds=-1.0)
    assert (found.done, found.left) == (2, True)
    found = bulk_actions.act("cancel", Job.objects.all(), seconds=-1.0)
    assert (found.done, found.left) == (1, False)


def test_a_batch_of_deleted_jobs_is_bounded_by_their_output(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = [bring("failed") for _ in range(3)]
    monkeypatch.setattr(deletion, "ENTRIES", 2)
    assert deletion.delete_some(Job.objects.order_by("pk")) == 2
    assert list(Job.objects.all()) == ended[2:]
    assert deletion.delete_some(Job.objects.all()) == 1
    assert deletion.delete_some(Job.objects.all()) == 0
    assert not JobEntry.objects.exists()


def test_a_job_that_is_queued_again_meanwhile_is_not_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    job = bring("failed")
    found = deletion._first(Job.objects.all())
    jobs.retry(job.pk)
    assert found == [job.pk]
    assert deletion._delete(found) == 0
    assert job.refresh().state == "queued"
    assert job.tries.count() == 1


def call(client: Client, action: str, key: str, **body: Any) -> Any:
    headers = {"Authorization": key}
    return client.post(f"/api/jobs/{action}", json.dumps(body), content_type="application/json", headers=headers)


def test_rest_previews_and_then_changes(client: Client, make_key: Any) -> None:
    bring_all()
    key = make_key("run", "view", "jobs")
    seen = call(client, "cancel", key, pool="digits", dry_run=True).json()
    assert (seen["count"], seen["more"], len(seen["sample"])) == (2, False, 2)
    assert states()[0] == "queued"
    done = call(client, "cancel", key, pool="digits", upto=seen["upto"], reason="wrong data").json()
    assert (done["count"], done["left"]) == (2, False)
    assert states()[:2] == ["cancelled", "running?"]
    row = Audit.objects.get(action="cancel_jobs")
    assert (row.pool, row.reason, row.data["jobs"], row.outcome) == ("digits", "wrong data", 2, "done")
    assert row.data["filter"] == {"pool": "digits"}


def test_rest_changes_what_the_caller_could_change_one_by_one(client: Client, make_key: Any) -> None:
    bring("queued", owner="ada"), bring("queued", owner="bob"), bring("queued", "primes", owner="ada")
    assert call(client, "cancel", make_key("view"), all=True).status_code == 403
    assert Audit.objects.get(action="cancel_jobs").outcome == "permission_denied"
    assert call(client, "cancel", make_key("run", "jobs", pools=["primes"]), pool="digits").status_code == 403
    assert call(client, "cancel", make_key("run", pools=["digits"]), all=True).json()["count"] == 1
    assert states() == ["cancelled", "queued", "queued"]
    assert call(client, "delete", make_key("run", "jobs"), all=True).json()["count"] == 1
    assert states() == ["queued", "queued"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"state": "done"},
        {"pool": "digits", "upto": "x"},
        {"pool": "digits", "upto": "x", "dry_run": True},
        {"colour": "red"},
        {"since": 5},
    ],
    ids=str,
)
def test_rest_refuses_what_it_cannot_read(body: dict[str, Any], client: Client, make_key: Any) -> None:
    bring("queued")
    assert call(client, "cancel", make_key("run", "jobs"), **body).status_code == 400
    assert states() == ["queued"]


def test_a_shell_counts_first_and_needs_a_yes(capsys: pytest.CaptureFixture[str]) -> None:
    bring_all()
    assert run(["jobs", "cancel", "--pool", "digits", "--state", "queued", "--dry-run"]) == 0
    assert "1 job, none changed" in capsys.readouterr().out
    assert run(["jobs", "cancel", "--pool", "digits"]) == 1  # no terminal, no --yes
    assert "this would cancel 2 jobs: add --yes" in capsys.readouterr().err
    assert run(["jobs", "cancel"]) == 2
    assert run(["jobs", "--pool", "digits", "cancel", "--all", "--yes"]) == 2  # it would not use the pool
    assert states()[0] == "queued"
    assert run(["jobs", "retry", "--state", "failed", "--yes"]) == 0
    assert run(["jobs", "delete", "--pool", "digits", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"action": "delete", "count": 2}
    assert states() == ["queued", "running", "queued", "queued"]
    assert Audit.objects.filter(surface="shell").count() == 2


def test_the_dashboard_asks_with_the_count_and_then_acts(client: Client, django_user_model: Any) -> None:
    bring("queued", owner="grace"), bring("queued", owner="bob"), bring("running", "primes")
    user = django_user_model.objects.create_user("grace", is_staff=True)
    client.force_login(user)
    assert "jobs/all/" not in client.get("/jobs/").content.decode()
    assert client.get("/jobs/all/cancel/").status_code == 403
    user.user_permissions.set(Permission.objects.filter(codename="run_command"))
    assert "/jobs/all/cancel/?pool=digits" in client.get("/jobs/?pool=digits").content.decode()
    page = client.get("/jobs/all/cancel/?pool=digits", follow=True)
    assert "Cancel 1 job?" in page.content.decode()
    assert "Only your own jobs" in page.content.decode()
    user.user_permissions.set(Permission.objects.filter(codename__in=("run_command", "manage_job")))
    page = client.get("/jobs/all/cancel/?pool=digits", follow=True)
    assert "Cancel 2 jobs?" in page.content.decode()
    late = bring("queued")
    done = client.post(page.redirect_chain[-1][0], {"reason": "wrong data"}, follow=True)
    assert "2 jobs cancelled" in done.content.decode()
    assert states() == ["cancelled", "cancelled", "running", "queued"]
    assert late.refresh().state == "queued"
    assert Audit.objects.get(action="cancel_jobs").data["filter"] == {"pool": "digits"}
    assert client.get("/jobs/all/cancel/?state=none").status_code == 400


def test_the_admin_shows_the_count_and_deletes_ended_jobs_alone(client: Client, django_user_model: Any) -> None:
    made, url = bring_all(), reverse("admin:snakepit_pools_job_changelist")
    client.force_login(user := django_user_model.objects.create_user("grace", is_staff=True))
    chosen = {"action": "delete_ended", "_selected_action": [str(job.pk) for job in made]}
    grant(user, "view_job")
    client.post(url, {**chosen, "upto": str(made[-1].pk)})
    assert len(states()) == 6
    grant(user, "view_job", "manage_job")
    asked = client.post(url, chosen)
    page = asked.content.decode()
    assert "Delete 3 jobs?" in page
    assert f'value="{made[4].pk}"' in page.partition('name="upto"')[2]
    assert len(states()) == 6
    late = bring("failed")
    again = {**chosen, "_selected_action": [*chosen["_selected_action"], str(late.pk)]}
    done = client.post(url, {**again, "upto": str(made[4].pk), "reason": "old"}, follow=True)
    assert "3 jobs deleted." in done.content.decode()
    assert states() == ["queued", "running", "queued", "failed"]
    row = Audit.objects.get(action="delete_jobs")
    assert (row.actor, row.surface, row.reason, row.data["jobs"]) == ("user grace", "admin", "old", 3)
    none = client.post(url, {**chosen, "_selected_action": [str(made[0].pk)]}, follow=True)
    assert "None of the selected jobs has ended" in none.content.decode()


def test_the_admin_deletes_all_jobs_that_its_filters_match(admin_client: Client) -> None:
    made, url = bring_all(), reverse("admin:snakepit_pools_job_changelist") + "?state=failed"
    chosen = {"action": "delete_ended", "_selected_action": [str(made[3].pk)], "select_across": "1"}
    page = admin_client.post(url, chosen).content.decode()
    assert "Delete 1 job?" in page
    assert 'name="select_across" value="1"' in page
    admin_client.post(url, {**chosen, "upto": str(made[3].pk)})
    assert states() == ["queued", "running", "succeeded", "lost", "queued"]
    assert Audit.objects.get().data["filter"] == {"state": "failed", "selected": "all that match in the admin"}


def grant(user: Any, *names: str) -> None:
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
