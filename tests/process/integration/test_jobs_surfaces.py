"""Jobs through REST, the command line and the admin."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import OperationalError, connections
from django.test import AsyncClient, Client
from django.urls import reverse

from snakepit.pools import jobs
from snakepit.pools.api import job_events, job_hub
from snakepit.pools.api.streams import HEARTBEAT
from snakepit.pools.cli import jobs as commands
from snakepit.pools.cli.main import run
from snakepit.pools.jobs import leases, messages
from snakepit.pools.jobs.policy import Transition
from snakepit.pools.models import Job, Pool

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def pool(db: None, monkeypatch: pytest.MonkeyPatch) -> Pool:
    monkeypatch.setattr(messages, "send", lambda *_: True)
    monkeypatch.setattr(job_hub, "POLL", 0.01)
    monkeypatch.setattr(commands, "POLL", 0.01)
    Pool.objects.create(name="primes", adapter="primes", size=1)
    return Pool.objects.create(name="digits", adapter="digits", size=1)


def post(client: Client, path: str, key: str, body: Any = None, **headers: str) -> Any:
    given = {"Authorization": key, **headers}
    return client.post(f"/api/jobs{path}", body, content_type="application/json", headers=given)


def get(client: Client, path: str, key: str) -> Any:
    return client.get(f"/api/jobs{path}", headers={"Authorization": key})


def finish(job: Job, value: Any = 7) -> Job:
    held = leases.claim(job.pk, "test", "node-1")
    assert held is not None
    assert leases.append_entries(held, [("log", {"message": "one"}), ("chunk", 2)], None)
    assert leases.succeed(held, value, {})
    return Job.objects.get(pk=job.pk)


def fail(job: Job) -> Job:
    held = leases.claim(job.pk, "test", "node-1")
    assert held is not None
    error = {"code": "adapter_error", "message": "KeyError: x", "outcome": "failed", "details": {}}
    assert leases.fail(held, Transition("failed"), error, {})
    return Job.objects.get(pk=job.pk)


BODY = {"pool": "digits", "command": "classify", "arguments": {"n": 1}}


# REST.


def test_a_job_is_submitted_shown_and_listed(client: Client, make_key: Callable[..., str]) -> None:
    key = make_key()
    response = post(client, "", key, {**BODY, "tags": ["night"], "priority": 2})
    assert response.status_code == 201
    job = response.json()
    assert (job["state"], job["owner"], job["tags"], job["arguments"]) == ("queued", "ada", ["night"], {"n": 1})
    assert client.get(response["Location"], headers={"Authorization": key}).json() == job
    finish(Job.objects.get())
    assert get(client, f"/{job['id']}", key).json()["result"] == 7
    (listed,) = get(client, "?tag=night&state=succeeded&command=classify&owner=ada", key).json()["jobs"]
    assert listed["id"] == job["id"]
    assert "result" not in listed
    for nothing in ("?tag=nigh", "?state=failed", "?owner=bob", "?pool=primes", "?until=2020-01-01T00:00:00Z"):
        assert get(client, nothing, key).json()["jobs"] == [], nothing


def test_an_idempotency_key_answers_the_first_job(client: Client, make_key: Callable[..., str]) -> None:
    key = make_key()
    first, second = (post(client, "", key, BODY, **{"Idempotency-Key": "k1"}) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    other = post(client, "", key, {**BODY, "arguments": {"n": 2}}, **{"Idempotency-Key": "k1"})
    assert other.status_code == 400


def test_pages_of_jobs_follow_each_other(client: Client, make_key: Callable[..., str]) -> None:
    made = [str(jobs.submit("digits", "classify", {"n": n}).pk) for n in range(5)]
    key, seen, cursor = make_key(), [], ""
    for _ in range(3):
        answer = get(client, f"?limit=2{cursor}", key).json()
        seen += [job["id"] for job in answer["jobs"]]
        cursor = f"&cursor={answer['next']}"
    assert sorted(seen) == sorted(made)
    assert len(seen) == len(set(seen)) == 5
    assert answer["next"] is None


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({**BODY, "pool": "nothing"}, 404, "pool_unknown"),
        ({**BODY, "priority": 1000}, 400, "bad_request"),
        ({**BODY, "prioritie": 1}, 400, "bad_request"),
        ({**BODY, "priority": True}, 400, "bad_request"),
        ({**BODY, "deadline": "soon"}, 400, "bad_request"),
        ({**BODY, "deadline": 3600}, 400, "bad_request"),
        ({**BODY, "run_after": "0.5"}, 400, "bad_request"),
        ({**BODY, "arguments": [1]}, 400, "bad_request"),
        ({"pool": "digits"}, 400, "bad_request"),
        ({**BODY, "arguments": {"x": "y" * 2**20}}, 413, "payload_too_large"),
    ],
)
def test_a_bad_submission_is_answered_in_the_shape(
    client: Client, make_key: Callable[..., str], body: Any, status: int, code: str
) -> None:
    response = post(client, "", make_key(), body)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("query", ["?state=no", "?cursor=x", "?limit=0", "?since=2020-01-01T00:00:00", "?tag=%00"])
def test_a_bad_filter_is_refused(client: Client, make_key: Callable[..., str], query: str) -> None:
    assert get(client, query, make_key()).status_code == 400


def test_a_number_is_no_time(client: Client, make_key: Callable[..., str]) -> None:
    answer = get(client, "?until=0.5", make_key())
    assert answer.status_code == 400
    assert "until" in answer.json()["error"]["message"]
    assert "ISO 8601" in answer.json()["error"]["message"]


def test_scopes_and_pools_of_a_key_hold_for_jobs(client: Client, make_key: Callable[..., str]) -> None:
    mine = jobs.submit("digits", "classify", owner="ada")
    foreign = jobs.submit("digits", "classify", owner="bob")
    elsewhere = jobs.submit("primes", "count", owner="ada")
    runs, views, operates = make_key("run"), make_key("view"), make_key("view", "jobs")
    bound = make_key("run", "view", "operate", pools=["digits"])
    assert post(client, "", views, BODY).status_code == 403
    assert post(client, "", bound, {**BODY, "pool": "primes", "command": "count"}).status_code == 403
    assert {job["id"] for job in get(client, "", runs).json()["jobs"]} == {str(mine.pk), str(elsewhere.pk)}
    assert {job["id"] for job in get(client, "", bound).json()["jobs"]} == {str(mine.pk), str(foreign.pk)}
    assert get(client, f"/{foreign.pk}", runs).status_code == 404
    assert get(client, f"/{elsewhere.pk}", bound).status_code == 404
    assert get(client, "?pool=primes", bound).status_code == 403
    assert get(client, f"/{foreign.pk}", views).status_code == 200
    assert post(client, f"/{mine.pk}/cancel", views).status_code == 403
    assert post(client, f"/{foreign.pk}/cancel", bound).json()["error"]["details"]["scope"] == "jobs"
    assert post(client, f"/{foreign.pk}/cancel", runs).status_code == 404
    assert post(client, f"/{mine.pk}/cancel", runs).json()["state"] == "cancelled"
    assert post(client, f"/{foreign.pk}/cancel", operates).json()["state"] == "cancelled"
    assert client.get("/api/jobs").status_code == 401


def test_the_payload_of_other_users_is_hidden_without_permission(client: Client, make_key: Callable[..., str]) -> None:
    foreign = finish(jobs.submit("digits", "classify", {"secret": 1}, owner="bob"))
    views, manages = make_key("view", "run"), make_key("view", "jobs")
    seen = get(client, f"/{foreign.pk}", views).json()
    assert (seen["arguments"], seen["result"], seen["payload_hidden"]) == (None, None, True)
    for refused in (get(client, f"/{foreign.pk}/events", views), post(client, f"/{foreign.pk}/clone", views)):
        assert refused.json()["error"]["details"]["scope"] == "jobs"
    seen = get(client, f"/{foreign.pk}", manages).json()
    assert (seen["arguments"], seen["result"], seen["payload_hidden"]) == ({"secret": 1}, 7, False)


def test_a_job_is_retried_and_cloned(client: Client, make_key: Callable[..., str]) -> None:
    key = make_key()
    job = fail(jobs.submit("digits", "classify", owner="ada"))
    twin = post(client, f"/{job.pk}/clone", key)
    assert twin.status_code == 201
    assert twin.json()["id"] != str(job.pk)
    assert post(client, f"/{job.pk}/retry", key).json()["state"] == "queued"
    assert post(client, f"/{job.pk}/retry", key).status_code == 400
    for path in ("no-uuid", "01a1fc74-719c-711a-a1ad-ada04c90a194"):
        assert get(client, f"/{path}", key).json()["error"]["code"] == "not_found"


@pytest.mark.django_db(transaction=True)
def test_the_stream_of_a_job_goes_on_where_it_broke(client: Client, make_key: Callable[..., str]) -> None:
    job = finish(jobs.submit("digits", "classify", owner="ada"))
    key = make_key()
    whole = b"".join(get(client, f"/{job.pk}/events", key).streaming_content).decode()  # type: ignore[arg-type]
    frames = [frame.split("\n") for frame in whole.strip().split("\n\n")]
    assert frames[:2] == [["id: 1", "event: log", 'data: {"message":"one"}'], ["id: 2", "event: chunk", "data: 2"]]
    assert frames[2][0] == "event: end"
    assert json.loads(frames[2][1].removeprefix("data: "))["result"] == 7
    headers = {"Authorization": key, "Last-Event-ID": "1"}
    rest = client.get(f"/api/jobs/{job.pk}/events", headers=headers)
    assert b"".join(rest.streaming_content).startswith(b"id: 2\nevent: chunk")  # type: ignore[arg-type]
    wrong = client.get(f"/api/jobs/{job.pk}/events", headers={**headers, "Last-Event-ID": "x"})
    assert wrong.status_code == 400


@pytest.mark.django_db(transaction=True)
def test_a_client_does_not_connect_again_after_the_end(client: Client, make_key: Callable[..., str]) -> None:
    job = finish(jobs.submit("digits", "classify", owner="ada"))
    headers = {"Authorization": make_key()}

    def read(last: str) -> tuple[int, bytes]:
        answer = client.get(f"/api/jobs/{job.pk}/events", headers={**headers, "Last-Event-ID": last})
        return answer.status_code, b"".join(answer) if answer.status_code != 204 else b""

    status, stream = read("0")
    ended = stream.decode().strip().split("\n")[-1].removeprefix("id: ")
    assert (status, ended.startswith("end-")) == (200, True)
    assert read(ended) == (204, b"")
    assert b"event: end" in read("2")[1]  # it has all output, but not the end
    assert read("end-1")[1] == stream  # of an earlier end, before a retry
    assert read("end-x")[0] == 400


@pytest.mark.django_db(transaction=True)
def test_a_stream_survives_an_unavailable_database(
    client: Client, make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = finish(jobs.submit("digits", "classify", owner="ada"))
    looks, away = job_events._read, iter([True, True])

    def look(*arguments: Any) -> Any:
        if next(away, False):
            raise OperationalError("the connection is closed")
        return looks(*arguments)

    monkeypatch.setattr(job_events, "_read", look)
    monkeypatch.setattr(job_events, "POLL", 0.0)
    stream = b"".join(get(client, f"/{job.pk}/events", make_key()).streaming_content).decode()  # type: ignore[arg-type]
    assert stream.startswith(HEARTBEAT * 2 + "id: 1\n")
    assert "event: end" in stream


def borrowed(work: Callable[..., Any]) -> Callable[..., Any]:
    """Work for an event loop, in a thread that keeps no connection: an open one would outlive the test's database."""

    def run(*arguments: Any) -> Any:
        try:
            return work(*arguments)
        finally:
            connections.close_all()

    return sync_to_async(run)


@pytest.mark.django_db(transaction=True)
async def test_a_stream_includes_entries_added_after_its_start(amake_key: Any, async_client: AsyncClient) -> None:
    key = await amake_key()
    job = await borrowed(functools.partial(jobs.submit, owner="ada"))("digits", "classify")
    response = await async_client.get(f"/api/jobs/{job.pk}/events", headers={"Authorization": key})
    await borrowed(finish)(job)
    frames = [frame async for frame in response.streaming_content]  # type: ignore[union-attr]
    assert [b"event: log" in frame for frame in frames].count(True) == 1
    assert b"event: end" in frames[-1]


# The command line.


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*words: str) -> tuple[int, str, str]:
        code = run(words)
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_a_job_is_submitted_and_listed_from_a_shell(shell: Any) -> None:
    code, out, _ = shell("submit", "digits", "classify", '{"n": 1}', "--json", "--tag", "a", "--key", "k")
    assert code == 0
    job = json.loads(out)
    assert shell("submit", "digits", "classify", '{"n": 1}', "--key", "k")[1].strip() == job["id"]
    code, out, _ = shell("jobs", "--json", "--state", "queued", "--pool", "digits")
    (listed,) = json.loads(out)
    assert code == 0
    assert {"id", "pool", "command", "state", "attempts"} <= set(listed)
    assert (listed["id"], listed["state"], listed["attempts"]) == (job["id"], "queued", 0)
    assert job["id"] in shell("jobs")[1]
    code, out, _ = shell("cancel", job["id"][-12:])
    assert (code, out.split()[1]) == (0, "cancelled")
    assert shell("retry", job["id"])[1].split()[1] == "queued"


def test_a_shell_takes_the_options_of_a_job(shell: Any, tmp_path: Any) -> None:
    options = ("--deadline", "2999-01-31T12:00:00Z", "--retry", "never", "--max-attempts", "7", "--backoff", "0.5",
               "--retention", "60")  # fmt: skip
    lines = tmp_path / "rows.ndjson"
    lines.write_text('{"n": 2}\n')
    for words in (('{"n": 1}',), ("--file", str(lines))):
        code, out, _ = shell("submit", "digits", "classify", *words, *options)
        job = Job.objects.get(pk=out.strip())
        assert (code, job.retry, job.max_attempts, job.backoff, job.retention) == (0, "never", 7, 0.5, 60)
        assert job.deadline is not None
        assert job.deadline.year == 2999
    assert "retry: 'maybe' is not one of" in shell("submit", "digits", "classify", "--retry", "maybe")[2]


def test_a_job_is_followed_from_a_shell(shell: Any) -> None:
    job = finish(jobs.submit("digits", "classify"), {"label": 7})
    code, out, err = shell("job", str(job.pk), "--follow", "--json")
    assert (code, err.strip()) == (0, "one")
    assert out.splitlines()[0] == "2"
    assert json.loads(out.splitlines()[1])["result"] == {"label": 7}
    code, out, _ = shell("job", str(job.pk), "--json")
    assert json.loads(out)["attempts_made"][0]["outcome"] == "succeeded"


def test_a_job_that_failed_is_exit_code_one(shell: Any) -> None:
    job = fail(jobs.submit("digits", "classify"))
    code, _, err = shell("job", str(job.pk), "--follow")
    assert code == 1
    assert "failed: adapter_error: KeyError: x" in err
    assert shell("job", str(job.pk))[0] == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("submit", "nothing", "x"), 1, "pool_unknown"),
        (("submit", "digits", "x", "[1]"), 2, "must be a JSON object"),
        (("submit", "digits", "x", '{"n": 1, "n": 2}'), 2, "the arguments: contains the key 'n' twice"),
        (("submit", "digits", "x", "--run-after", "soon"), 2, "is not a time"),
        (("submit", "digits", "x", "--run-after", "2026-01-01T00:00:00"), 1, "run_after"),
        (("jobs", "--state", "no"), 2, ": --state: 'no' is not one of"),
        (("jobs", "export", "--state", "no"), 2, ": --state: 'no' is not one of"),
        (("jobs", "--since", "1h"), 2, ": --since '1h' is not a time"),
        (("job", "xyz"), 2, "is not the id of a job"),
        (("cancel", "01a1fc74-719c-711a-a1ad-ada04c90a194"), 1, "No job"),
    ],
)
def test_a_wrong_command_line_reports_the_error(shell: Any, words: tuple[str, ...], code: int, said: str) -> None:
    found, _, err = shell(*words)
    assert found == code
    assert said in err


# The admin.


def admin(page: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:snakepit_pools_job_{page}", args=args)


def test_jobs_are_seen_and_not_written_in_the_admin(admin_client: Client) -> None:
    job = fail(jobs.submit("digits", "classify", {"text": "<b>bold</b>"}, tags=["night"]))
    assert "classify" in admin_client.get(admin() + "?q=night").content.decode()
    page = admin_client.get(admin("change", job.pk)).content.decode()
    assert "KeyError" in page
    assert "<b>bold" not in page
    assert admin_client.get(admin("add")).status_code == 403
    assert admin_client.post(admin("change", job.pk), {"state": "succeeded"}).status_code == 403


def test_actions_on_jobs_need_their_own_permission_and_are_logged(client: Client, django_user_model: Any) -> None:
    staff = django_user_model.objects.create_user("grace", is_staff=True)
    job = jobs.submit("digits", "classify", {"secret": "payload"})
    order = {"action": "cancel", "_selected_action": [str(job.pk)]}
    names = {"view_job"}
    for allowed in (False, True):
        names |= {"manage_job"} if allowed else set()
        granted = Permission.objects.filter(codename__in=names, content_type__app_label="snakepit_pools")
        staff.user_permissions.set(granted)
        client.force_login(staff)
        client.post(admin(), order)
        assert (Job.objects.get().state == "cancelled") == allowed
    assert LogEntry.objects.get().user == staff
    assert "payload" not in client.get(admin("change", job.pk)).content.decode()
    client.post(admin(), {**order, "action": "retry"})
    assert Job.objects.get().state == "queued"
