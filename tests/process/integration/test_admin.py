"""Every admin page renders, writes what it may, and reaches the broker only through the client."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.admin.templatetags.admin_list import result_headers
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from snakepit.pools.admin import page as lists
from snakepit.pools.jobs import listing
from snakepit.pools.jobs.listing import key_at
from snakepit.pools.models import ApiKey, Audit, Event, Job, JobAttempt, Node, Pool, Worker
from snakepit.pools.models.moments import utc_now
from tests.process.integration.fakes import FakeClient, unreachable

pytestmark = pytest.mark.django_db
NOW = "2026-01-01T00:00Z"


def url(model: str, page: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:snakepit_pools_{model}_{page}", args=args)


@pytest.fixture
def rows(admin_user: Any) -> dict[str, Any]:
    node = Node.objects.create(name="node-1", seen_at=NOW)
    return {
        "pool": Pool.objects.create(name="digits", adapter="digits", size=2),
        "node": node,
        "worker": Worker.objects.create(node=node, worker_id="digits-1", pool="digits", state="ready", seen_at=NOW),
        "event": Event.objects.create(at=NOW, kind="worker.died", worker="digits-1", message="it <b>died</b>"),
        "apikey": ApiKey.create(name="ci", owner=admin_user)[0],
    }


@pytest.fixture
def staff(django_user_model: Any) -> Any:
    return django_user_model.objects.create_user("grace", password="x", is_staff=True)


def grant(user: Any, *names: str) -> None:
    user.user_permissions.add(*Permission.objects.filter(codename__in=names, content_type__app_label="snakepit_pools"))


def form_of(response: Any) -> dict[str, Any]:
    form = response.context["adminform"].form
    data = {name: form.get_initial_for_field(field, name) for name, field in form.fields.items()}
    data = {name: form[name].value() for name in data}
    return {name: value for name, value in data.items() if value is not None and value is not False}


@pytest.mark.parametrize("model", ["pool", "node", "worker", "event", "apikey"])
def test_every_page_renders(admin_client: Client, rows: dict[str, Any], model: str) -> None:
    assert admin_client.get(url(model)).status_code == 200
    assert admin_client.get(url(model) + "?q=digits").status_code == 200
    page = admin_client.get(url(model, "change", rows[model].pk))
    assert page.status_code == 200
    assert "<b>died</b>" not in page.content.decode()


@pytest.mark.parametrize("model", ["node", "worker", "event"])
def test_what_was_seen_cannot_be_written(admin_client: Client, rows: dict[str, Any], model: str) -> None:
    assert admin_client.get(url(model, "add")).status_code == 403
    assert admin_client.post(url(model, "change", rows[model].pk), {}).status_code == 403
    assert admin_client.post(url(model, "delete", rows[model].pk), {"post": "yes"}).status_code == 403
    assert type(rows[model]).objects.filter(pk=rows[model].pk).exists()


def test_lists_cost_the_same_for_one_row_and_for_many(
    admin_client: Client, rows: dict[str, Any], django_assert_max_num_queries: Any
) -> None:
    for number in range(30):
        Worker.objects.create(node=rows["node"], worker_id=f"w-{number}", pool="digits", state="ready", seen_at=NOW)
        Event.objects.create(at=NOW, kind="worker.started")
        Pool.objects.create(name=f"p{number}", adapter="digits", size=1)
        Audit.objects.create(actor="user ada", action="pause")
        Job.objects.create(pool="digits", command="classify", arguments={"n": number})
    job = Job.objects.first()
    assert job is not None
    for number in range(1, 9):
        JobAttempt.objects.create(job=job, number=number, started_at=NOW)
    for model in ("pool", "worker", "event", "apikey", "audit", "job"):
        with django_assert_max_num_queries(10):
            admin_client.get(url(model))
    for page in (url("pool", "change", rows["pool"].pk), url("job", "change", job.pk), url("worker") + "?state=ready"):
        with django_assert_max_num_queries(10):
            assert admin_client.get(page).status_code == 200


def test_a_list_reads_no_payload_and_counts_no_further_than_it_must(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "COUNTED", 3)
    for number in range(5):
        Job.objects.create(pool="digits", command="classify", arguments={"secret": number}, tags=",night,")
    with CaptureQueriesContext(connection) as captured:
        response = admin_client.get(url("job"))
    assert response.context["cl"].result_count == 3
    selected = [query["sql"] for query in captured if '"snakepit_job"."command"' in query["sql"]]
    assert selected
    assert not any(f'"snakepit_job"."{name}"' in sql for name in ("arguments", "result") for sql in selected)
    job = Job.objects.earliest("pk")
    for words in (str(job.pk), job.pk.hex, "night", "classif"):
        assert str(job.pk) in admin_client.get(url("job"), {"q": words}).content.decode()


@pytest.mark.parametrize("model", ["job", "periodicjob", "event", "audit", "apikey"])
def test_a_filter_with_a_null_character_is_a_wrong_filter(admin_client: Client, model: str) -> None:
    """PostgreSQL refuses the character with an error of its own; SQLite finds nothing."""
    for query in ("pool=a%00b", "pool=digits&name__contains=%00"):
        response = admin_client.get(f"{url(model)}?{query}")
        assert (response.status_code, response.headers.get("Location")) == (302, f"{url(model)}?e=1"), query
    assert admin_client.get(url(model), follow=True).status_code == 200


def test_a_pool_shows_what_the_broker_reports(admin_client: Client, rows: dict[str, Any], broker: FakeClient) -> None:
    broker.change_pool(state="failed", ready=0, size=2, reason="boot_failed: ImportError: no module named torch")
    for path in (url("pool"), url("pool", "change", rows["pool"].pk)):
        page = admin_client.get(path).content.decode()
        assert "failed, 0 of 2 ready: boot_failed: ImportError" in page
    broker.error = unreachable()
    assert "last known: failed, 0 of 2 ready" in admin_client.get(url("pool")).content.decode()
    assert "no module named torch" not in admin_client.get(url("pool", "add")).content.decode()


def test_a_job_shows_its_tags_as_names_and_a_capped_list_says_so(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "COUNTED", 2)
    for _ in range(2):
        job = Job.objects.create(pool="digits", command="classify", tags=",import,customer-4711,")
    page = admin_client.get(url("job", "change", job.pk)).content.decode()
    assert "import, customer-4711" in page
    assert ",import,customer-4711," not in page
    assert "2 or more results" in admin_client.get(url("job")).content.decode()


def test_lists_show_short_ids_and_figures_with_their_units(admin_client: Client, rows: dict[str, Any]) -> None:
    job = Job.objects.create(pool="digits", command="classify", progress=0.25)
    page = admin_client.get(url("job")).content.decode()
    assert f">{str(job.pk)[-12:]}</a>" in page
    assert ">25%</td>" in page
    Worker.objects.update(memory_mb=41.3, gil="on", gil_culprit="numpy", parallelism=0.0, load=1, capacity=4)
    for path in (url("worker"), url("worker", "change", rows["worker"].pk)):
        page = admin_client.get(path).content.decode()
        assert [one for one in ("41 MiB", "on because of numpy", "1/4") if one not in page] == []
        assert ">0.0<" not in page


@pytest.mark.parametrize(("model", "action"), [("job", "delete_ended"), ("job", "cancel"), ("pool", "pause")])
@pytest.mark.parametrize("selected", ["x", "\0", "", "'; drop"])
def test_a_selection_that_no_row_has_is_refused(
    admin_client: Client, rows: dict[str, Any], model: str, action: str, selected: str
) -> None:
    response = admin_client.post(url(model), {"action": action, "_selected_action": [selected]}, follow=True)
    assert response.status_code == 200
    assert "The selection is not of rows of this list" in response.content.decode()


def test_jobs_are_found_by_their_day(admin_client: Client) -> None:
    Job.objects.create(pool="digits", command="classify")
    then = datetime(2024, 12, 30, 10, tzinfo=UTC)
    old = Job.objects.create(pk=key_at(then), pool="digits", command="classify")
    Job.objects.filter(pk=old.pk).update(created_at=then)
    text = admin_client.get(url("job")).content.decode()
    assert "?created_at__year=2024" in text
    text = admin_client.get(url("job") + "?created_at__year=2024&created_at__month=12").content.decode()
    assert "created_at__day=30" in text
    text = admin_client.get(url("job") + "?created_at__year=2024&created_at__month=12&created_at__day=30")
    assert text.context["cl"].result_count == 1
    with CaptureQueriesContext(connection) as asked:
        assert admin_client.get(url("job") + "?q=nothing").context["cl"].result_count == 0
    # Neither reads the times of all rows: a search finds nothing in the newest, the ends are those of the first ids.
    assert not [one for one in asked if 'MIN("snakepit_job"."created_at")' in one["sql"]]
    for wrong in ("year=x", "year=9999&created_at__month=12&created_at__day=31", "year=2026&created_at__month=13"):
        assert admin_client.get(url("job") + f"?created_at__{wrong}").status_code == 302, wrong


def test_jobs_are_sorted_only_by_their_id(admin_client: Client) -> None:
    """No index has the order of another column: the database would sort a million rows for one page."""
    made = [Job.objects.create(pool="digits", command="classify", priority=one, owner=f"u{one}") for one in (2, 1, 3)]
    for place in range(1, 12):
        page = admin_client.get(f"{url('job')}?o={place}")
        shown = [row.pk for row in page.context["cl"].result_list]
        assert shown == [job.pk for job in (made if place == 1 else reversed(made))], place
    assert [head.get("sortable") for head in result_headers(page.context["cl"])].count(True) == 1


def test_a_search_reads_the_jobs_twice(admin_client: Client) -> None:
    """Once for the count and once for the page: the days of the list would read them two more times."""
    Job.objects.create(pool="digits", command="classify")
    with CaptureQueriesContext(connection) as asked:
        page = admin_client.get(url("job") + "?q=class")
    assert len([one for one in asked if "%class%" in one["sql"]]) == 2
    assert page.context["cl"].result_count == 1


def test_a_search_covers_the_newest_jobs(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "SCANNED", 2)
    made = [Job.objects.create(pool="digits", command="classify", owner=owner) for owner in ("ada", "ada", "bob")]
    assert admin_client.get(url("job") + "?q=ada").context["cl"].result_count == 1
    assert admin_client.get(url("job") + f"?q={made[0].pk}").context["cl"].result_count == 1
    assert admin_client.get(url("job")).context["cl"].result_count == 3


def test_a_pool_is_made_and_changed_with_the_rules_of_a_spec(admin_client: Client, admin_user: Any) -> None:
    data = form_of(admin_client.get(url("pool", "add")))
    data |= {"name": "digits", "adapter": "digits", "size": 2, "args": "{}", "env": "{}"}
    response = admin_client.post(url("pool", "add"), data)
    assert response.status_code == 302, response.context["errors"]
    pool = Pool.objects.get()
    assert (pool.size, pool.updated_by, pool.source, pool.enabled) == (2, admin_user, "admin", True)
    page = admin_client.post(url("pool", "change", pool.pk), {**data, "size": 0})
    assert "greater than or equal to 1" in page.content.decode()
    page = admin_client.post(url("pool", "change", pool.pk), {**data, "max_surge": 0})
    assert "leaves no way to replace a worker" in page.content.decode()
    page = admin_client.post(url("pool", "change", pool.pk), {**data, "args": '{"x": NaN}'})
    assert page.status_code == 200
    assert "JSON cannot represent" in page.content.decode()
    confirmed = {**data, "size": 5, "name": "renamed", "_preview": pool.revision}
    admin_client.post(url("pool", "change", pool.pk), confirmed)
    pool.refresh_from_db()
    assert (pool.size, pool.name, pool.revision) == (5, "digits", 2)


def hidden(page: Any) -> dict[str, str]:
    """What the form of a preview would send."""
    found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page.content.decode())
    return {name: unescape(value) for name, value in found if name != "csrfmiddlewaretoken"}


def test_a_change_of_a_pool_is_previewed_and_saved_when_it_is_confirmed(
    admin_client: Client, rows: dict[str, Any], broker: FakeClient, django_capture_on_commit_callbacks: Any
) -> None:
    pool, page = rows["pool"], url("pool", "change", rows["pool"].pk)
    data = form_of(admin_client.get(page)) | {"args": '{"tag": "\\"x\\""}', "env": "{}", "size": 3, "ttl": 60}
    preview = admin_client.post(page, data)
    text = " ".join(preview.content.decode().split())
    assert "2 workers are replaced, 1 at a time; each replacement is ready first; 1 more worker starts." in text
    assert "Busy workers (1 now) finish their calls first" in text
    assert "applies at the next sweep" in text
    assert Pool.objects.get().size == 2
    assert broker.orders == []
    again = admin_client.post(page, hidden(preview) | {"_preview": "edit"})
    assert "The change is not saved yet" in again.content.decode()
    assert Pool.objects.get().size == 2
    with django_capture_on_commit_callbacks(execute=True):
        done = admin_client.post(page, hidden(preview) | {"_preview": pool.revision, "reason": "it leaks"})
    assert done.status_code == 302
    saved = Pool.objects.get()
    assert (saved.size, saved.ttl, saved.args) == (3, 60, {"tag": '"x"'})
    assert broker.orders == [("digits", "change args, size, ttl", "user admin", "it leaks")]
    row = Audit.objects.get()
    assert (row.action, row.pool, row.reason, row.surface, row.outcome) == (
        "change_pool", "digits", "it leaks", "admin", "done",
    )  # fmt: skip
    assert row.data["size"] == [2, 3]


def test_a_confirmation_of_what_changed_meanwhile_is_asked_for_again(
    admin_client: Client, rows: dict[str, Any], broker: FakeClient
) -> None:
    page = url("pool", "change", rows["pool"].pk)
    data = form_of(admin_client.get(page)) | {"args": "{}", "env": "{}", "size": 3}
    revision = rows["pool"].revision
    rows["pool"].save()
    assert "Apply this change" in admin_client.post(page, data | {"_preview": revision}).content.decode()
    assert Pool.objects.get().size == 2


def test_a_form_that_changes_nothing_needs_no_preview(
    admin_client: Client, rows: dict[str, Any], broker: FakeClient
) -> None:
    page = url("pool", "change", rows["pool"].pk)
    data = form_of(admin_client.get(page)) | {"args": "{}", "env": "{}"}
    assert admin_client.post(page, data).status_code == 302


def test_an_adapter_outside_the_registry_cannot_be_chosen(admin_client: Client) -> None:
    data = form_of(admin_client.get(url("pool", "add"))) | {
        "name": "x",
        "adapter": "os.system",
        "args": "{}",
        "env": "{}",
    }
    page = admin_client.post(url("pool", "add"), data)
    assert "os.system is not one of the available choices" in page.content.decode()
    assert not Pool.objects.exists()


def test_a_pool_of_the_settings_shows_why_it_is_read_only(admin_client: Client, rows: dict[str, Any]) -> None:
    Pool.objects.update(source="settings")
    pool = rows["pool"]
    page = admin_client.get(url("pool", "change", pool.pk))
    assert page.status_code == 200
    assert "SNAKEPIT[&quot;POOLS&quot;][&quot;digits&quot;]" in page.content.decode()
    assert "_save" not in page.content.decode()
    assert admin_client.post(url("pool", "change", pool.pk), {"size": 9}).status_code == 403
    assert admin_client.post(url("pool", "delete", pool.pk), {"post": "yes"}).status_code == 403
    delete = {"action": "delete_selected", "_selected_action": [pool.pk], "post": "yes"}
    admin_client.post(url("pool"), delete)
    assert Pool.objects.get().size == 2


def test_recycle_goes_through_the_client_and_is_logged(
    admin_client: Client, rows: dict[str, Any], broker: FakeClient, admin_user: Any
) -> None:
    for model, why in (("pool", "release 42"), ("worker", "")):
        data = {"action": "recycle", "_selected_action": [rows[model].pk], "confirmed": "yes", "reason": why}
        page = admin_client.post(url(model), data, follow=True)
        assert "Recycling 2 workers" in page.content.decode()
    actor = f"user {admin_user.username}"
    assert broker.orders == [
        ("digits", "", actor, "release 42"),
        ("digits", "digits-1", actor, "ordered in the admin"),
    ]
    entries = LogEntry.objects.order_by("pk")
    assert [(entry.user, entry.object_repr) for entry in entries] == [(admin_user, "digits"), (admin_user, "digits-1")]
    assert entries[0].get_change_message().startswith("Recycling 2 workers")
    assert entries[0].get_change_message().endswith("Reason: release 42")


def test_an_unreachable_broker_is_reported_and_not_logged_in_the_history(
    admin_client: Client, rows: dict[str, Any], broker: FakeClient
) -> None:
    broker.error = unreachable()
    data = {"action": "recycle", "_selected_action": [rows["pool"].pk]}
    assert "No broker answers at" in admin_client.post(url("pool"), data).content.decode()
    page = admin_client.post(url("pool"), {**data, "confirmed": "yes"}, follow=True)
    assert "No broker answers at" in page.content.decode()
    assert not LogEntry.objects.exists()


def test_a_worker_that_is_gone_is_not_recycled(admin_client: Client, rows: dict[str, Any], broker: FakeClient) -> None:
    Worker.objects.update(state="gone")
    page = admin_client.post(url("worker"), {"action": "recycle", "_selected_action": [rows["worker"].pk]}, follow=True)
    assert "Skipped workers that are gone: 1" in page.content.decode()
    assert broker.orders == []


@pytest.mark.parametrize("model", ["pool", "worker"])
def test_recycle_needs_its_own_permission(
    client: Client, rows: dict[str, Any], broker: FakeClient, staff: Any, model: str
) -> None:
    grant(staff, "view_pool", "view_worker", "change_pool")
    client.force_login(staff)
    data = {"action": "recycle", "_selected_action": [rows[model].pk], "confirmed": "yes"}
    assert "Recycle the" not in client.get(url(model)).content.decode()
    client.post(url(model), data)
    assert broker.orders == []
    grant(staff, "operate_pool")
    client.post(url(model), data)
    assert len(broker.orders) == 1


def key_form(**more: Any) -> dict[str, Any]:
    return {"name": "ci", "scopes": ["run"], "pools": [], "expires_at_0": "", "expires_at_1": "", **more}


def test_a_new_key_shows_its_secret_once(admin_client: Client, admin_user: Any, rows: dict[str, Any]) -> None:
    page = admin_client.post(url("apikey", "add"), key_form(name="laptop", pools=["digits"]))
    assert page.status_code == 200
    assert "no-store" in page["Cache-Control"]
    match = re.search(r'<code id="secret"[^>]*>(snk_[^<]+)</code>', page.content.decode())
    assert match is not None
    key = ApiKey.find(match[1])
    assert key is not None
    assert (key.name, key.owner, key.scopes, key.pools) == ("laptop", admin_user, ["run"], ["digits"])
    assert match[1] not in admin_client.get(url("apikey", "change", key.pk)).content.decode()


def secret_of(page: Any) -> str:
    match = re.search(r'<code id="secret"[^>]*>(snk_[^<]+)</code>', page.content.decode())
    assert match is not None, page.content.decode()
    return match[1]


def test_a_rotated_key_and_its_successor_are_valid_at_once(admin_client: Client, admin_user: Any) -> None:
    made, end = utc_now() - timedelta(days=80), utc_now() + timedelta(days=10)
    key, old = ApiKey.create(name="ci", owner=admin_user, scopes=("run",), pools=("digits",), expires_at=end)
    ApiKey.objects.update(created_at=made)
    page = admin_client.post(url("apikey"), {"action": "rotate", "_selected_action": [key.pk]})
    assert "no-store" in page["Cache-Control"]
    new = ApiKey.find(secret_of(page))
    before = ApiKey.find(old)
    assert new
    assert before
    assert (new.name, new.owner, new.scopes, new.pools, new.last_used_at) == (
        "ci",
        admin_user,
        ["run"],
        ["digits"],
        None,
    )
    assert new.pk != before.pk
    assert before.expires_at
    assert new.expires_at
    assert timedelta(days=6) < before.expires_at - utc_now() <= timedelta(days=7)
    assert timedelta(days=89) < new.expires_at - utc_now() <= timedelta(days=90)
    assert Audit.objects.filter(action="rotate_key", outcome="done", target=str(key)).exists()


@pytest.mark.parametrize("why", ["belongs to", "not valid", "you lost", "Select one key"])
def test_only_the_owner_rotates_one_valid_key_with_rights_that_are_left(
    client: Client, staff: Any, django_user_model: Any, why: str
) -> None:
    grant(staff, "view_apikey", "add_apikey", "change_apikey", "run_command")
    client.force_login(staff)
    owner = django_user_model.objects.create_user("other") if why == "belongs to" else staff
    key, _ = ApiKey.create(name="ci", owner=owner, scopes=("operate",) if why == "you lost" else ("run",))
    keys = [key, ApiKey.create(name="2", owner=owner)[0]] if why == "Select one key" else [key]
    if why == "not valid":
        key.revoke()
    data = {"action": "rotate", "_selected_action": [one.pk for one in keys]}
    assert why in client.post(url("apikey"), data, follow=True).content.decode()
    assert ApiKey.objects.count() == len(keys)


def test_a_key_is_changed_without_a_new_secret(admin_client: Client, rows: dict[str, Any]) -> None:
    key = rows["apikey"]
    data = key_form(name="renamed", scopes=["view", "operate"])
    assert admin_client.post(url("apikey", "change", key.pk), data).status_code == 302
    changed = ApiKey.objects.get()
    assert (changed.name, changed.scopes, changed.digest) == ("renamed", ["view", "operate"], key.digest)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"pools": ["digits", "other"]}, "No pool is named &#x27;other&#x27;"),
        ({"scopes": []}, "required"),
        ({"scopes": ["root"]}, "valid choice"),
    ],
)
def test_a_wrong_key_is_refused(admin_client: Client, rows: dict[str, Any], more: Any, words: str) -> None:
    page = admin_client.post(url("apikey", "add"), key_form(**more))
    assert words in page.content.decode()
    assert ApiKey.objects.count() == 1


def test_a_key_offers_the_pools_and_keeps_one_that_is_gone(
    admin_client: Client, admin_user: Any, rows: dict[str, Any]
) -> None:
    Pool.objects.create(name="words", adapter="digits", size=1)
    key, _ = ApiKey.create(name="ci", owner=admin_user, scopes=("run",), pools=("digits", "old"))
    page = admin_client.get(url("apikey", "change", key.pk)).content.decode()
    boxes = re.findall(r'name="pools" value="(\w+)"[^>]*?( checked)?>', page)
    assert [(name, bool(checked)) for name, checked in boxes] == [("digits", True), ("old", True), ("words", False)]
    assert "old (no such pool now)" in page
    data = key_form(pools=["old", "words"])
    assert admin_client.post(url("apikey", "change", key.pk), data).status_code == 302
    assert ApiKey.objects.get(pk=key.pk).pools == ["old", "words"]


def test_a_user_cannot_grant_a_scope_without_its_permissions(client: Client, staff: Any) -> None:
    grant(staff, "add_apikey", "view_apikey", "view_pool", "view_worker", "view_event", "view_node")
    client.force_login(staff)
    assert "you do not have its permissions" in client.post(url("apikey", "add"), key_form()).content.decode()
    client.post(url("apikey", "add"), key_form(scopes=["view"]))
    assert ApiKey.objects.get().owner == staff


def test_a_user_cannot_change_the_key_of_another_user(client: Client, staff: Any, rows: dict[str, Any]) -> None:
    grant(staff, "change_apikey", "delete_apikey", "view_apikey", "run_command")
    client.force_login(staff)
    key = rows["apikey"]
    assert client.post(url("apikey", "change", key.pk), key_form()).status_code == 403
    client.post(url("apikey"), {"action": "revoke", "_selected_action": [key.pk]})
    assert ApiKey.objects.get().revoked_at is None


def test_a_key_is_revoked(admin_client: Client, rows: dict[str, Any]) -> None:
    admin_client.post(url("apikey"), {"action": "revoke", "_selected_action": [rows["apikey"].pk]})
    assert ApiKey.objects.get().revoked_at is not None
    assert LogEntry.objects.get().get_change_message() == "Revoked."


def test_the_list_shows_threads_of_pools_that_have_them(admin_client: Client, broker: FakeClient) -> None:
    Pool.objects.create(name="procs", adapter="digits", profile="process", threads=17)
    Pool.objects.create(name="threads", adapter="digits", profile="thread", threads=23)
    cells = re.findall(r'class="field-slots_each">([^<]*)<', admin_client.get(url("pool")).content.decode())
    assert sorted(cells) == ["-", "23"]
