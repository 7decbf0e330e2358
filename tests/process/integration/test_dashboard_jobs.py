"""Jobs, playground and audit on the dashboard: what each visitor sees, and what each may do."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, reverse
from django.utils import timezone

from snakepit.pools import jobs
from snakepit.pools.broker.errors import BadRequest, QueueFull
from snakepit.pools.dashboard import stored_state, urls
from snakepit.pools.dashboard.hub import Hub
from snakepit.pools.dashboard.jobs import described
from snakepit.pools.dashboard.stored_state import read_stored_state
from snakepit.pools.dashboard.timeline import timeline
from snakepit.pools.jobs import leases, listing, messages
from snakepit.pools.jobs.listing import JobQuery
from snakepit.pools.jobs.policy import Transition
from snakepit.pools.models import Audit, Job, JobAttempt, PeriodicJob, Pool
from snakepit.pools.models.moments import utc_now
from snakepit.pools.models.states import SHOWN_STATES
from tests.process.integration.fakes import FakeClient, unreachable

pytestmark = pytest.mark.django_db
ERROR = {"code": "adapter_error", "message": "KeyError: <x>", "outcome": "failed", "details": {"traceback": "line 7"}}


@pytest.fixture(autouse=True)
def ready(monkeypatch: pytest.MonkeyPatch, broker: FakeClient) -> None:
    """An empty hub, messages that are dropped, and a pool."""
    monkeypatch.setattr("snakepit.pools.dashboard.page.hub", Hub())
    monkeypatch.setattr(messages, "send", lambda *_: True)
    Pool.objects.create(name="digits", adapter="digits", size=2)


@pytest.fixture
def lena(client: Client, django_user_model: Any) -> Client:
    """WorkerHandle without any permission: may look."""
    client.force_login(django_user_model.objects.create_user("lena", is_staff=True))
    return client


@pytest.fixture
def grace(django_user_model: Any) -> Client:
    """May look, run commands, and manage the jobs of others."""
    user = django_user_model.objects.create_user("grace", is_staff=True)
    names = ("run_command", "manage_job", "view_payload")
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client = Client()
    client.force_login(user)
    return client


def fail(job: Job) -> Job:
    held = leases.claim(job.pk, "celery-1", "node-1")
    assert held is not None
    assert leases.fail(held, Transition("failed"), ERROR, {"error": ERROR})
    return Job.objects.get(pk=job.pk)


def succeed(job: Job, value: Any = 7) -> Job:
    held = leases.claim(job.pk, "celery-1", "node-1")
    assert held is not None
    assert leases.append_entries(held, [("log", {"message": "one"}), ("chunk", 2)], None)
    assert leases.succeed(held, value, {"worker": "digits-1"})
    return Job.objects.get(pk=job.pk)


def text(client: Client, url: str, status: int = 200) -> str:
    page = client.get(url)
    assert page.status_code == status
    return page.content.decode()


# The list.


def test_jobs_are_listed_filtered_and_counted(lena: Client, broker: FakeClient) -> None:
    broker.known.append(replace(broker.known[0], name="sample"))
    first = succeed(jobs.submit("digits", "classify", tags=["night"], owner="bob"))
    second = fail(jobs.submit("digits", "sample"))
    page = text(lena, "/jobs/")
    assert page.index(str(second.pk)) < page.index(str(first.pk))
    assert "adapter_error: The command raised an exception" in page  # of another user: without the text
    expected = {"state=failed": second, "command=classify": first, "tag=night": first, "span=1h": first}
    for query, found in expected.items():
        assert str(found.pk) in text(lena, f"/jobs/?{query}"), query
    assert "No matching jobs" in text(lena, "/jobs/?pool=primes")
    assert str(first.pk) not in text(lena, "/jobs/?state=failed&part=table")
    for wrong in ("state=odd", "span=9y", "cursor=x", "tag=%00"):
        assert 'class="notice bad"' in text(lena, f"/jobs/?{wrong}"), wrong


def test_pages_of_jobs_follow_each_other_and_counts_end(lena: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snakepit.pools.dashboard.jobs.ROWS", 2)
    monkeypatch.setattr(listing, "COUNTED", 2)
    monkeypatch.setattr(listing.counts_by_state, "__defaults__", (2,))
    made = [str(jobs.submit("digits", "classify").pk) for _ in range(3)]
    page = lena.get("/jobs/")
    assert "<b>2+</b>" in page.content.decode()
    assert [row["id"] for row in page.context["rows"]] == made[:0:-1]
    older = lena.get(f"/jobs/?cursor={page.context['next']}")
    assert [row["id"] for row in older.context["rows"]] == made[:1]
    assert "data-poll" not in older.content.decode()


def test_the_counts_of_all_states_are_one_statement(lena: Client) -> None:
    for later in (None, None, timezone.now() + timedelta(hours=1)):
        jobs.submit("digits", "classify", run_after=later)
    jobs.cancel(Job.objects.earliest("pk").pk)
    with CaptureQueriesContext(connection) as seen:
        page = lena.get("/jobs/?part=table")
    counts = {one["name"]: one["count"] for one in page.context["states"] if one["count"]}
    assert counts == {"scheduled": 1, "queued": 1, "cancelled": 1}
    assert len([one for one in seen if "snakepit_job" in one["sql"]]) == 2  # the rows and the counts
    empty = listing.counts_by_state(Job.objects.none())
    assert set(empty.values()) == {(0, False)}
    assert list(empty) == list(SHOWN_STATES)


def test_a_tag_is_looked_for_among_the_newest_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.submit("digits", "classify", tags=["old"])
    for _ in range(3):
        jobs.submit("digits", "classify", tags=["new"])
    assert JobQuery(tag="old").rows().count() == 1
    monkeypatch.setattr(listing, "SCANNED", 3)
    assert JobQuery(tag="old").rows().count() == 0
    assert JobQuery(tag="new").rows().count() == 3


def test_a_span_of_time_is_exact() -> None:
    job = jobs.submit("digits", "classify")
    at = job.created_at
    assert JobQuery(since=at, until=at + timedelta(microseconds=1)).rows().get() == job
    assert not JobQuery(since=at + timedelta(microseconds=1)).rows().exists()
    assert not JobQuery(until=at).rows().exists()
    with pytest.raises(BadRequest, match="time zone"):
        JobQuery(since=datetime(2026, 1, 1))


@pytest.mark.parametrize(
    "wanted",
    [{}, {"state": "failed"}, {"pool": "digits"}, {"pool": "digits", "state": "failed"}, {"command": "classify"},
     {"owner": "bob"}, {"since": datetime(2026, 1, 1, tzinfo=UTC)}],
    ids=str,
)  # fmt: skip
def test_a_page_of_jobs_is_read_from_an_index_in_its_order(wanted: dict[str, Any]) -> None:
    rows = JobQuery(**wanted).rows().order_by("-pk")[:51]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")  # it would read a table this small as a whole
            cursor.execute("SET LOCAL enable_bitmapscan = off")
            cursor.execute("SET LOCAL enable_sort = off")  # it would sort the two rows that it expects
        plan = rows.explain()
        assert "Index" in plan
        assert "Sort" not in plan, plan
    else:
        plan = rows.explain()
        assert "USING INDEX" in plan
        assert "TEMP B-TREE" not in plan, plan


@pytest.mark.parametrize(
    ("index", "columns"),
    [("owner_id", ["owner", "id", "pool", "command"]), ("owner_bad", ["owner", "id", "pool", "state"]),
     ("command_bad", ["command", "id", "pool", "state"]), ("owner_active", ["owner", "id", "pool"]),
     ("command_active", ["command", "id", "pool"])],
    ids=str,
)  # fmt: skip
def test_a_filter_is_compared_in_the_index_that_gives_the_order(index: str, columns: list[str]) -> None:
    """Else a filter that no job matches, such as an owner and another's pool, reads all rows of the owner."""
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, Job._meta.db_table)
    assert found[f"snakepit_job_{index}"]["columns"] == columns


# One job.


def test_a_job_shows_its_life_its_payload_and_its_error(grace: Client) -> None:
    job = fail(jobs.submit("digits", "classify", {"text": "<b>bold</b>"}, owner="bob"))
    page = text(grace, f"/jobs/{job.pk}/")
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>bold" not in page
    assert "attempt 1" in page
    assert "line 7" in page
    assert 'data-act="retry"' in page
    assert 'data-act="cancel"' not in page
    assert "data-poll" not in page
    assert "data-poll" in text(grace, f"/jobs/{jobs.submit('digits', 'classify').pk}/?part=now")


def test_the_payload_of_other_users_is_hidden_from_viewers(lena: Client) -> None:
    job = succeed(jobs.submit("digits", "classify", {"secret": "apple"}, owner="bob"), {"plum": "result"})
    page = text(lena, f"/jobs/{job.pk}/")
    assert "apple" not in page
    assert "plum" not in page
    assert "data-act=" not in page
    assert lena.get(f"/jobs/{job.pk}/arguments/").status_code == 403
    assert lena.get(f"/jobs/{job.pk}/events/").status_code == 403
    assert text(lena, "/jobs/01a1fc74-719c-711a-a1ad-ada04c90a194/", 404)


def test_payloads_are_cut_on_the_page_and_whole_in_the_file(grace: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snakepit.pools.dashboard.job.SHOWN", 20)
    job = succeed(jobs.submit("digits", "classify", {"text": "x" * 100}), b"\0PNG")
    page = text(grace, f"/jobs/{job.pk}/")
    assert "characters in total" in page
    assert "x" * 50 not in page
    file = grace.get(f"/jobs/{job.pk}/arguments/")
    assert file.json() == {"text": "x" * 100}
    assert file["Content-Disposition"] == f'attachment; filename="arguments-{job.pk}.json"'
    raw = grace.get(f"/jobs/{job.pk}/result/")
    assert (raw.content, raw["Content-Type"]) == (b"\0PNG", "application/octet-stream")
    assert "4 bytes." in page


def test_a_job_is_cancelled_retried_and_cloned_after_a_question(grace: Client) -> None:
    job = jobs.submit("digits", "classify", {"n": 1}, owner="bob")
    assert "nothing of it has run" in text(grace, f"/jobs/{job.pk}/cancel/")
    assert Job.objects.get().state == "queued"
    assert grace.post(f"/jobs/{job.pk}/cancel/", {"reason": "not needed"})["Location"] == f"/jobs/{job.pk}/"
    assert Job.objects.get().state == "cancelled"
    row = Audit.objects.get()
    assert (row.actor, row.action, row.reason, row.surface) == ("user grace", "cancel_job", "not needed", "dashboard")
    grace.post(f"/jobs/{job.pk}/retry/")
    assert Job.objects.get().state == "queued"
    refused = grace.post(f"/jobs/{job.pk}/retry/")
    assert refused.status_code == 400
    assert "only a job that ended without success" in refused.content.decode()
    twin = grace.post(f"/jobs/{job.pk}/clone/")["Location"].split("/")[2]
    assert (Job.objects.get(pk=twin).arguments, Job.objects.get(pk=twin).owner) == ({"n": 1}, "grace")


def test_the_owner_of_a_job_may_cancel_it_with_the_right_to_run(django_user_model: Any) -> None:
    user = django_user_model.objects.create_user("ada", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="run_command"))
    client = Client()
    client.force_login(user)
    mine, foreign = jobs.submit("digits", "classify", owner="ada"), jobs.submit("digits", "classify", owner="bob")
    assert client.post(f"/jobs/{foreign.pk}/cancel/").status_code == 403
    assert client.post(f"/jobs/{foreign.pk}/clone/").status_code == 403
    assert client.post(f"/jobs/{mine.pk}/cancel/").status_code == 302
    assert 'data-act="cancel"' not in text(client, f"/jobs/{foreign.pk}/")


@pytest.mark.django_db(transaction=True)
def test_the_output_of_a_job_is_streamed_and_resumes_after_a_break(grace: Client) -> None:
    job = succeed(jobs.submit("digits", "classify"))
    answer = grace.get(f"/jobs/{job.pk}/events/", headers={"Last-Event-ID": "1"})
    said = b"".join(answer.streaming_content).decode()  # type: ignore[arg-type]
    assert said.startswith("id: 2\nevent: chunk\ndata: 2\n")
    assert '"state":"succeeded"' in said


def test_the_timeline_of_a_job_has_a_bar_for_each_phase() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    job = Job(state="running", created_at=at, queued_at=at, attempts=2)
    tries = [
        JobAttempt(number=1, started_at=at + timedelta(seconds=10), finished_at=at + timedelta(seconds=30),
                   outcome="worker_lost", error={"message": "signal 9"}),
        JobAttempt(number=2, started_at=at + timedelta(seconds=40)),
    ]  # fmt: skip
    found = timeline(job, tries, at + timedelta(seconds=100))
    assert [(one.title, one.kind, one.seconds, one.left, one.open) for one in found] == [
        ("waited", "queued", 10, 0, False), ("attempt 1", "failed", 20, 10, False),
        ("waited", "queued", 10, 30, False), ("attempt 2", "running", 60, 40, True),
    ]  # fmt: skip
    assert found[1].detail == "worker_lost: signal 9"
    waiting = timeline(Job(state="queued", created_at=at, queued_at=at), [], at + timedelta(seconds=5))
    assert [(one.title, one.width, one.open) for one in waiting] == [("waits", 100, True)]


def test_a_scheduled_job_shows_its_date_and_no_queue_time() -> None:
    at = utc_now()
    job = Job(state="queued", created_at=at, queued_at=at, run_after=datetime(2040, 1, 1, 6, tzinfo=UTC))
    [waits] = timeline(job, [], at)
    assert waits.detail == "not before 2040-01-01 06:00:00 UTC"
    assert described(job)["waited"] is None
    job = Job(state="running", created_at=at, queued_at=at, run_after=at + timedelta(hours=2))
    job.started_at = at + timedelta(hours=2, seconds=3)
    assert described(job)["waited"] == 3


# The playground.


def send(client: Client, url: str, **body: Any) -> Any:
    body = {"pool": "digits", "command": "classify", "arguments": {}, **body}
    return client.post(f"/playground/{url}/", json.dumps(body), content_type="application/json")


def test_the_playground_has_a_field_for_every_argument(grace: Client, broker: FakeClient) -> None:
    job = jobs.submit("digits", "classify", {"pixels": [1, 2], "name": "it's"}, owner="bob")
    schema = {
        "properties": {
            "pixels": {"type": "array", "items": {"type": "number"}}, "label": {"enum": ["a", "b"]},
            "deep": {"type": "boolean", "default": False}, "size": {"type": "integer", "maximum": 9},
            "name": {"type": "string", "default": "<x>"}, "more": {"$ref": "#/$defs/More"},
        },
        "required": ["pixels", "size"], "$defs": {"More": {"type": "object"}},
    }  # fmt: skip
    broker.known[0] = replace(broker.known[0], schema=json.dumps(schema))
    page = text(grace, f"/playground/?job={job.pk}")
    assert (
        "label?: &quot;a&quot; | &quot;b&quot;, deep?: boolean, size: integer, name?: string, more?: More) -&gt; Digit"
        in page
    )
    assert "Digit = 7 | 8" in page
    assert page.index('name="pixels"') < page.index('name="size"') < page.index('name="label"')
    assert '<textarea id="field-pixels" name="pixels" data-kind="json"' in page
    assert ">[1, 2]</textarea>" in page
    assert 'type="number" value="" autocomplete="off" aria-describedby="about-size" step="1" max="9" required' in page
    assert "text; left empty: &quot;&lt;x&gt;&quot;" in page
    assert 'value="it&#x27;s"' in page
    assert '<option value="true">true</option>' in page
    assert '<textarea id="field-more"' in page


def test_the_playground_runs_a_command_and_streams_its_output(grace: Client, broker: FakeClient) -> None:
    said = b"".join(send(grace, "run", timeout=2).streaming_content).decode()
    assert [line[7:] for line in said.splitlines() if line.startswith("event: ")] == [
        "progress", "log", "chunk", "chunk", "result",
    ]  # fmt: skip
    assert broker.calls == [("digits", "classify", {}, 2, 0)]
    broker.error = QueueFull("Full.")
    assert '"code":"queue_full"' in b"".join(send(grace, "run").streaming_content).decode()


@pytest.mark.parametrize(
    ("body", "words"),
    [({"timeout": 0}, "timeout"), ({"timeout": "soon"}, "timeout"), ({"timeout": True}, "timeout"),
     ({"arguments": [1]}, "arguments"), ({"command": 7}, "command"), ({"pool": ""}, "pool"), ({"tags": "x"}, "tags")],
    ids=str,
)  # fmt: skip
def test_a_wrong_run_is_refused_by_name(grace: Client, broker: FakeClient, body: dict[str, Any], words: str) -> None:
    answer = send(grace, "run", **body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
    assert words in answer.json()["error"]["message"]
    assert broker.calls == []


def test_the_playground_submits_a_job_in_the_users_name(grace: Client) -> None:
    answer = send(grace, "submit", arguments={"n": 1}, tags=["try"])
    job = Job.objects.get()
    assert (answer.status_code, answer.json()["url"]) == (201, f"/jobs/{job.pk}/")
    assert (job.owner, job.tag_list, job.arguments) == ("grace", ["try"], {"n": 1})
    assert send(grace, "submit", pool="nothing").json()["error"]["code"] == "pool_unknown"


def test_the_playground_shows_that_the_broker_is_unreachable(grace: Client, broker: FakeClient) -> None:
    broker.error = unreachable()
    assert "No broker answers" in text(grace, "/playground/")


# The audit.


def test_the_audit_is_listed_and_filtered(lena: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snakepit.pools.dashboard.audit.ROWS", 1)
    Audit.objects.create(actor="user <ada>", action="scale", pool="digits", data={"size": [1, 2]}, reason="load")
    Audit.objects.create(actor="user bob", action="pause", pool="digits", outcome="pool_unknown")
    page = lena.get("/audit/")
    assert "user bob" in page.content.decode()
    older = text(lena, f"/audit/?cursor={page.context['next']}")
    assert "user &lt;ada&gt;" in older
    assert "size: 1 → 2" in older
    assert "user bob" not in text(lena, "/audit/?action=scale")
    assert 'class="notice bad"' in text(lena, "/audit/?cursor=x")


# Who only looks.


def posted() -> list[str]:
    ident = "01a1fc74-719c-711a-a1ad-ada04c90a194"
    samples = {"ident": ident, "action": "cancel", "which": "result", "name": "digits", "worker": "digits-1"}
    found = []
    for route in urls.urlpatterns:
        assert isinstance(route, URLPattern)
        names = route.pattern.regex.groupindex if hasattr(route.pattern, "regex") else {}
        names = set(names) | set(getattr(route.pattern, "converters", {}))
        own = samples | ({"action": "run"} if route.name == "periodic-act" else {})
        found.append(reverse(f"snakepit:{route.name}", kwargs={name: own.get(name, "digits") for name in names}))
    return sorted(set(found))


@pytest.mark.parametrize("url", posted())
def test_a_viewer_is_refused_every_post(lena: Client, broker: FakeClient, url: str) -> None:
    answer = lena.post(url, "{}", content_type="application/json")
    # 405: it takes no POST from anybody.
    assert answer.status_code == 403 or (answer.status_code == 405 and "POST" not in answer["Allow"])
    orders = Audit.objects.exclude(outcome="permission_denied")  # a refused one is there, and did nothing
    assert (broker.orders, broker.calls, orders.count(), Job.objects.count()) == ([], [], 0, 0)


def test_a_viewer_sees_no_button_that_changes_something(lena: Client) -> None:
    job = succeed(jobs.submit("digits", "classify"))
    for url in ("/", "/pools/", "/jobs/", f"/jobs/{job.pk}/", "/audit/"):
        page = text(lena, url)
        assert 'method="post"' not in page, url
        assert "data-act" not in page.replace("data-action", ""), url
        assert "Playground" not in page
    assert lena.get("/playground/").status_code == 403


@pytest.mark.django_db
def test_failed_and_lost_jobs_need_attention_in_groups_by_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = (("failed", {"details": {"type": "KeyError"}}), ("failed", {"details": {"type": "KeyError"}}))
    for state, error in (*ends, ("lost", {"code": "worker_lost"})):
        held = leases.claim(jobs.submit("digits", "classify").pk, "test", "node-1")
        assert held is not None
        assert leases.fail(held, Transition(state), {**ERROR, **error}, {})
    stored = read_stored_state()
    found = {(one.state, f"{one.pool}.{one.command}", one.cause): one.count for one in stored.ended_jobs}
    assert found == {("failed", "digits.classify", "KeyError"): 2, ("lost", "digits.classify", "worker_lost"): 1}
    assert (stored.ended_more, stored.ended_others) == (False, 0)
    monkeypatch.setattr(stored_state, "GROUPS", 1)
    assert read_stored_state().ended_others == 1


@pytest.mark.django_db
def test_periodic_jobs_that_are_late_or_refused_need_attention() -> None:
    now = utc_now()
    long_ago, soon = now - timedelta(hours=1), now + timedelta(hours=1)
    rows = {
        "late": {"next_run": long_ago},
        "refused": {"next_run": soon, "last_run": long_ago, "problem": "No pool is named 'x'."},
        "fine": {"next_run": soon},
        "stopped": {"next_run": long_ago, "problem": "x", "enabled": False},
    }
    for name, facts in rows.items():
        made = PeriodicJob.objects.create(name=name, pool="digits", command="classify", interval=60)
        PeriodicJob.objects.filter(pk=made.pk).update(**facts)
    found = read_stored_state()
    assert (found.late_schedules, found.late_since) == (("late",), long_ago.timestamp())
    assert (found.refused_schedules, found.refused_since) == (("refused",), long_ago.timestamp())


@pytest.mark.django_db
def test_the_counts_of_the_overview_stop_at_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    for state in ("failed", "failed", "failed", "quarantined", "quarantined", "quarantined"):
        held = leases.claim(jobs.submit("digits", "classify").pk, "test", "node-1")
        assert held is not None
        assert leases.fail(held, Transition(state), ERROR, {})
    monkeypatch.setattr(stored_state, "LATELY_COUNTED", 2)
    monkeypatch.setattr(stored_state, "COUNTED", 1)
    found = read_stored_state()
    assert ([one.count for one in found.ended_jobs], found.ended_more, found.quarantined) == ([2], True, 2)
