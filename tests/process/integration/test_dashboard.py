"""The dashboard's frame: who may see it, its headers, its live regions, and that nothing is loaded from elsewhere."""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.contrib.staticfiles import finders
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from snakepit.pools.broker.caller import QuotaStatus
from snakepit.pools.broker.node_status import ListenerStatus
from snakepit.pools.broker.status import RecordedEvent, RunningCall
from snakepit.pools.dashboard.hub import Hub
from snakepit.pools.dashboard.navigation import ENTRIES
from snakepit.pools.dashboard.pool import definition
from snakepit.pools.models import Audit, Event, Job, Node, Pool, Worker
from tests.process.integration.fakes import FakeClient, unreachable
from tests.statuses import usage

VENDOR = Path(__file__).resolve().parents[3] / "pools/static/snakepit/vendor"
PAGES = [
    *("/", "/pools/", "/pools/digits/", "/workers/", "/workers/digits-1/", "/nodes/", "/events/"),
    *("/workers/?state=gone", "/events/?before=9999999999"),
]


@pytest.fixture(autouse=True)
def fresh_hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Each test begins with an empty hub."""
    hub = Hub()
    for module in ("page", "stream", "series"):
        monkeypatch.setattr(f"snakepit.pools.dashboard.{module}.hub", hub)
    return hub


@pytest.fixture
def viewer(client: Client, django_user_model: Any) -> Client:
    client.force_login(viewer_named("vera", django_user_model))
    return client


# Who may see it.


@pytest.mark.django_db
@pytest.mark.parametrize("url", PAGES)
def test_a_page_is_for_viewers_alone(url: str, client: Client, broker: FakeClient, django_user_model: Any) -> None:
    answer = client.get(url)
    assert (answer.status_code, answer["Location"].partition("?")[0]) == (302, "/admin/login/")
    user = django_user_model.objects.create_user("grace")
    client.force_login(user)
    answer = client.get(url)
    assert answer.status_code == 403
    assert "The user grace lacks a permission" in answer.content.decode()
    assert "data-live" not in answer.content.decode()
    user.user_permissions.add(Permission.objects.get(codename="view_pool"))
    assert client.get(url).status_code == 200


@pytest.mark.django_db
def test_staff_may_look(client: Client, broker: FakeClient, django_user_model: Any) -> None:
    client.force_login(django_user_model.objects.create_user("stan", is_staff=True))
    assert client.get("/").status_code == 200


@pytest.mark.django_db
def test_the_live_urls_are_for_viewers_alone(client: Client, broker: FakeClient, django_user_model: Any) -> None:
    assert client.get("/live/fragments/?topic=pools").status_code == 403
    assert client.get("/live/series/").status_code == 302
    client.force_login(django_user_model.objects.create_user("grace"))
    assert client.get("/live/fragments/?topic=pools").status_code == 403
    assert client.get("/live/series/").status_code == 403


# Headers and files.


@pytest.mark.django_db
@pytest.mark.parametrize("url", PAGES)
def test_a_page_allows_its_own_scripts_alone(url: str, viewer: Client, broker: FakeClient) -> None:
    answer = viewer.get(url)
    page, policy = answer.content.decode(), answer["Content-Security-Policy"]
    nonce = re.search(r"script-src 'self' 'nonce-([\w-]+)'", policy)
    assert nonce is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.count("<script") == page.count(f'nonce="{nonce[1]}" src=')
    assert not re.search(r"\sstyle=|\son\w+=|javascript:", page)
    assert viewer.get(url)["Content-Security-Policy"] != policy  # a nonce is used once
    assert "no-store" in answer["Cache-Control"]


@pytest.mark.django_db
def test_without_the_middleware_the_policy_is_of_our_own_pages_alone(
    viewer: Client, broker: FakeClient, settings: Any
) -> None:
    settings.MIDDLEWARE = [one for one in settings.MIDDLEWARE if "ContentSecurityPolicy" not in one]
    assert "Content-Security-Policy" not in viewer.get("/admin/login/").headers
    assert "default-src 'none'" in viewer.get("/")["Content-Security-Policy"]


@pytest.mark.django_db
@pytest.mark.parametrize("url", PAGES)
def test_a_page_loads_nothing_from_elsewhere(url: str, viewer: Client, broker: FakeClient) -> None:
    page = viewer.get(url).content.decode()
    assert page.replace("http://testserver", "").count("://") == 0
    for name in re.findall(r'(?:src|href)="/static/([^"]+)"', page):
        assert finders.find(name), name


def test_vendored_files_are_what_their_makers_published() -> None:
    rows = [line.split() for line in (VENDOR / "VENDORED").read_text().splitlines() if not line.startswith("#")]
    assert {row[0] for row in rows} == {path.name for path in VENDOR.iterdir()} - {"VENDORED"}
    for name, _, version, _, checksum in rows:
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == checksum, name
        assert name.endswith("LICENSE") or version in name


# Live regions.


@pytest.mark.django_db
@pytest.mark.parametrize("url", PAGES)
def test_every_region_of_a_page_can_be_asked_for(url: str, viewer: Client, broker: FakeClient) -> None:
    page = viewer.get(url).content.decode()
    topics = re.findall(r'data-live="([^"]+)"', page)
    assert "banner" in topics
    answer = viewer.get("/live/fragments/", {"topic": topics}).json()
    assert [region["topic"] for region in answer["regions"]] == topics
    assert answer["beat"]["state"] == "live"
    for region in answer["regions"]:
        assert region["html"].strip() in page


@pytest.mark.django_db
def test_an_unknown_region_and_too_many_are_refused(viewer: Client, broker: FakeClient) -> None:
    assert viewer.get("/live/fragments/?topic=nothing").status_code == 404
    many = [f"banner:{number}" for number in range(30)]
    assert viewer.get("/live/fragments/", {"topic": many}).status_code == 400


@pytest.mark.django_db
def test_a_server_that_cannot_stream_responds_with_an_error(viewer: Client, broker: FakeClient) -> None:
    answer = viewer.get("/live/stream/?topic=pools")  # the test client is a WSGI server
    assert answer.status_code == 501


@pytest.mark.django_db
def test_a_page_shows_that_the_broker_is_unreachable(viewer: Client, broker: FakeClient) -> None:
    broker.error = unreachable()
    for url in PAGES:
        page = viewer.get(url)
        assert page.status_code == 200
        assert "No broker runs here" in page.content.decode()
        text = page.content.decode()
        assert "No data." in text or "before" in url or "gone" in url or url == "/events/"  # those have rows


@pytest.mark.django_db
def test_old_data_stays_on_the_page_and_is_marked_as_old(
    viewer: Client, broker: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakepit.pools.dashboard.hub.FRESH", 0.0)
    viewer.get("/")
    broker.error = unreachable()
    page = viewer.get("/").content.decode()
    assert "The data below is from" in page
    assert "digits" in page
    assert viewer.get("/live/fragments/?topic=pools").json()["beat"]["state"] == "stale"


@pytest.mark.django_db
def test_concurrent_pages_cause_one_request_to_the_broker(viewer: Client, broker: FakeClient) -> None:
    asked: list[str] = []
    status = broker.status
    broker.status = lambda pool="", timeout=10.0: (asked.append(pool), status(pool))[1]  # type: ignore[method-assign]
    for _ in range(3):
        viewer.get("/")
    assert len(asked) == 1


# Text of others.


@pytest.mark.django_db
def test_what_others_say_is_text(viewer: Client, broker: FakeClient) -> None:
    evil = "<script>alert(1)</script>"
    broker.change_pool(state='bad" onload="x', reason=evil, warnings=(evil,), adapter=evil)
    calls = (RunningCall(evil, evil, 1.0, -1.0),)
    broker.change_worker(reason=evil, output=(evil,), python=evil, gil_culprit=evil, calls=calls)
    broker.known[0] = replace(broker.known[0], name="x'y", summary=evil)
    event: dict[str, Any] = {
        "at": 1.0,
        "pool": "digits",
        "worker": "digits-1",
        "reason": evil,
        "message": evil,
        "level": "error",
    }
    broker.events = [RecordedEvent(seq=1, kind=evil, **event)]
    node = Node.objects.create(name=evil, seen_at=timezone.now(), problems=[evil])
    Worker.objects.create(
        node=node, worker_id="digits-1", pool="digits", state="gone", reason=evil, seen_at=timezone.now()
    )
    Event.objects.create(**{**event, "at": timezone.now(), "kind": "k", "data": {"evidence": evil}})
    for url in PAGES:
        page = viewer.get(url).content.decode()
        assert "<script>alert" not in page, url
        assert "&lt;script&gt;alert(1)" in page, url
        assert 'onload="x' not in page, url


# Frame.


@pytest.mark.django_db
def test_every_entry_of_the_navigation_is_there(admin_client: Client, broker: FakeClient) -> None:
    page = admin_client.get("/").content.decode()
    for entry in ENTRIES:
        assert f'href="{reverse("snakepit:" + entry.view)}" data-key="{entry.key}"' in page
    assert len({entry.key for entry in ENTRIES}) == len(ENTRIES)


@pytest.mark.django_db
def test_the_theme_is_the_visitors_choice(viewer: Client, broker: FakeClient) -> None:
    for cookie, theme in (("dark", "dark"), ('"><b>', "auto")):
        viewer.cookies["snakepit_theme"] = cookie
        assert f'<html lang="en" data-theme="{theme}">' in viewer.get("/").content.decode()


@pytest.mark.django_db
def test_the_charts_get_columns_of_one_length(viewer: Client, broker: FakeClient) -> None:
    viewer.get("/")
    for query in ("", "?pool=digits&span=300"):
        found = viewer.get(f"/live/series/{query}").json()
        assert set(found["columns"]) == set(found["live"])
        (length,) = {len(column) for column in found["columns"].values()}
        assert length >= 1  # one more for each second that has passed
    assert viewer.get("/live/series/?span=7").status_code == 400


# Pages.


@pytest.mark.django_db
def test_an_unknown_pool_or_worker_is_not_found(viewer: Client, broker: FakeClient) -> None:
    for url, words in (("/pools/nothing/", "No pool is named nothing."), ("/workers/nothing-1/", "nothing-1 is known")):
        answer = viewer.get(url)
        assert answer.status_code == 404
        assert words in answer.content.decode()
        assert "default-src 'none'" in answer["Content-Security-Policy"]


@pytest.mark.django_db
def test_a_pools_page_shows_its_workers_commands_and_forecast(viewer: Client, broker: FakeClient) -> None:
    page = viewer.get("/pools/digits/").content.decode()
    assert 'data-worker="digits-1" data-state="busy"' in page
    assert "http://testserver/api/pools/digits/commands/classify" in page
    assert "no limit" in page
    assert '<td data-type><code>Digit</code><div class="why"><code>Digit = 7 | 8</code></div></td>' in page
    assert "8 MiB of arguments in shared memory" in page


@pytest.mark.django_db
def test_a_definition_shows_the_source_of_each_value(viewer: Client, broker: FakeClient, settings: Any) -> None:
    settings.SNAKEPIT = {**settings.SNAKEPIT, "POOLS": {"digits": {"adapter": "digits", "size": 2, "ttl": 60.0}}}
    row = Pool.objects.create(name="digits", adapter="digits", size=5, ttl=60.0, queue_limit=7, source="settings")
    origins = {one["name"]: (one["origin"], one["note"]) for one in definition(row)}
    assert origins["ttl"] == ("settings", "")
    assert origins["size"] == ("row", "the settings have 2")
    assert origins["queue_limit"][0] == "row"
    assert origins["call_timeout"][0] == "default"
    assert "the settings have 2" in viewer.get("/pools/digits/").content.decode()


@pytest.mark.django_db
def test_a_worker_that_is_gone_shows_how_it_ended(viewer: Client, broker: FakeClient) -> None:
    node, now = Node.objects.create(name="n", seen_at=timezone.now()), timezone.now()
    Worker.objects.create(node=node, worker_id="digits-7", pool="digits", state="gone", seen_at=now, gone_at=now)
    data = {"output": "Fatal Python error", "stacks": "thread 7\n  hang  a.py:3"}  # as the broker records it
    Event.objects.create(
        at=now, kind="worker.died", pool="digits", worker="digits-7", message="signal SIGSEGV", level="error", data=data
    )
    page = viewer.get("/workers/digits-7/").content.decode()
    assert "digits-7 is gone" in page
    assert "signal SIGSEGV" in page
    assert "Fatal Python error" in page
    assert "Where its threads were" in page
    assert "hang  a.py:3" in page


@pytest.mark.django_db
def test_a_page_asks_the_database_little(
    viewer: Client, broker: FakeClient, django_assert_max_num_queries: Any
) -> None:
    for url in PAGES:
        viewer.get(url)
        with django_assert_max_num_queries(12):
            viewer.get(url)


@pytest.mark.django_db
def test_lists_are_paged(viewer: Client, broker: FakeClient) -> None:
    broker.workers = [replace(broker.workers[0], id=f"digits-{number}") for number in range(120)]
    page = viewer.get("/workers/?page=3").content.decode()
    assert "page 3 of 3" in page
    assert page.count(' data-worker="') == 20
    assert viewer.get("/workers/?page=x&q=digits-11").content.decode().count(' data-worker="') == 11
    now = timezone.now()
    Event.objects.bulk_create([Event(at=now, kind="node.started", message=f"event {n}") for n in range(120)])
    first = viewer.get("/events/?before=999999").content.decode()
    older = re.search(r'href="\?before=(\d+)">Older', first)
    assert older is not None
    assert viewer.get(f"/events/?before={older[1]}").content.decode().count("<li class") == 50


@pytest.mark.django_db
def test_a_filter_by_state_shows_rows_of_this_state(viewer: Client, broker: FakeClient) -> None:
    idle = replace(broker.workers[0], id="digits-2", load=0)
    broker.workers = [broker.workers[0], idle]
    for state, ident, other in (("busy", "digits-1", "digits-2"), ("ready", "digits-2", "digits-1")):
        page = viewer.get(f"/workers/?state={state}").content.decode()
        row = page.partition(f' data-worker="{ident}"')[2].partition("</tr>")[0]
        assert f'<span class="state {state}">{state}</span>' in row
        assert f' data-worker="{other}"' not in page


@pytest.mark.django_db
def test_a_pool_that_refuses_every_call_shows_one_number_of_them(viewer: Client, broker: FakeClient) -> None:
    broker.change_pool(state="failed", finished=0, refused=362, usage=usage(seconds=60.0, answered=0))
    page = viewer.get("/pools/digits/").content.decode()
    part = page.partition('data-part="usage"')[2].partition("</section>")[0]
    assert "0 failed, 362 refused" in page
    assert "0 calls" in part
    assert "every call is refused" in part


@pytest.mark.django_db
def test_a_crash_loop_shows_reason_and_last_lines(viewer: Client, broker: FakeClient) -> None:
    broker.change_pool(state="starting", reason="2 starts failed")
    node, now = Node.objects.create(name="n", seen_at=timezone.now()), timezone.now()
    for number in (7, 8):
        ident = f"digits-{number}"
        Worker.objects.create(node=node, worker_id=ident, pool="digits", state="gone", seen_at=now, gone_at=now)
        Event.objects.create(
            at=now, kind="worker.died", pool="digits", worker=ident, reason="boot_failure", level="error",
            message=f"died before it was ready, ImportError {number}", data={"output": f"Traceback of {number}"},
        )  # fmt: skip
    gone = viewer.get("/workers/?state=gone").content.decode()
    assert "ImportError 7" in gone
    assert "ImportError 8" in gone
    page = viewer.get("/pools/digits/").content.decode()
    assert "Traceback of 8" in page
    assert "Traceback of 7" not in page
    own = viewer.get("/workers/digits-7/").content.decode()
    assert "ImportError 7" in own
    assert "Traceback of 7" in own


@pytest.mark.django_db
@pytest.mark.parametrize("url", ["/pools/digits/", "/workers/digits-1/"])
def test_a_command_that_changes_something_says_so(url: str, viewer: Client, broker: FakeClient) -> None:
    page = viewer.get(url).content.decode()
    looks, warned, changes = page.rpartition("This command changes something:")
    assert warned
    assert "<pre>snakepit recycle" in changes
    assert "<pre>snakepit recycle" not in looks


@pytest.mark.django_db
@pytest.mark.parametrize(("url", "row"), [("/pools/", "row-digits"), ("/workers/", "row-digits-1")])
def test_a_row_keeps_its_identity_between_updates(url: str, row: str, viewer: Client, broker: FakeClient) -> None:
    assert f'<tr id="{row}"' in viewer.get(url).content.decode()


# The command palette.


def found(client: Client, query: str = "") -> list[tuple[str, str, str]]:
    entries = client.get(f"/live/palette/{query}").json()["entries"]
    return [(one["kind"], one["title"], one["url"]) for one in entries]


@pytest.mark.django_db
def test_the_palette_has_every_page_pool_and_worker_that_its_visitor_may_see(
    viewer: Client, broker: FakeClient
) -> None:
    entries = found(viewer)
    assert ("pool", "digits", "/pools/digits/") in entries
    assert ("worker", "digits-1", "/workers/digits-1/") in entries
    pages = [title for kind, title, _ in entries if kind == "page"]
    assert pages == [entry.title for entry in ENTRIES if entry.right == "view"]
    assert {kind for kind, *_ in entries} == {"page", "pool", "worker"}
    assert all(viewer.get(url).status_code == 200 for _, _, url in entries if "worker" not in url)


@pytest.mark.django_db
def test_the_palette_offers_an_operator_the_orders_that_can_be_given_now(operator: Client, broker: FakeClient) -> None:
    def orders() -> dict[str, str]:
        return {title: url for kind, title, url in found(operator) if kind == "order"}

    given = orders()
    assert list(given) == ["Recycle digits", "Scale digits", "Drain digits", "Pause digits", "Drain node node-1"]
    assert all(operator.get(url).status_code == 200 for url in given.values())
    broker.change_pool(state="paused")
    operator.post("/nodes/node-1/drain/", {})
    assert list(orders()) == ["Recycle digits", "Scale digits", "Resume digits", "Resume node node-1"]
    assert broker.orders == [("node-1", "drain", "user olga", "")]


@pytest.mark.django_db
def test_the_palette_finds_jobs_by_the_beginning_and_the_end_of_their_ids(
    viewer: Client, broker: FakeClient, django_assert_max_num_queries: Any
) -> None:
    ids = [uuid.UUID(f"01890000-000{n}-7000-8000-{n}aaaabbbbccc") for n in range(1, 4)]
    jobs = [Job.objects.create(pk=ident, pool="digits", command="classify") for ident in ids]
    for job in jobs:
        for part in (str(job.pk), job.pk.hex, str(job.pk).upper(), job.pk.hex[-12:]):
            with django_assert_max_num_queries(12):
                assert found(viewer, f"?job={part}") == [("job", str(job.pk), f"/jobs/{job.pk}/")], part
    together = found(viewer, f"?job={jobs[0].pk.hex[:6]}")
    assert [title for _, title, _ in together] == [str(job.pk) for job in reversed(jobs)]
    for nothing in ("", "abc", "no-id", "a" * 33, "0" * 32, "%00%00%00%00", "-----"):
        assert found(viewer, f"?job={nothing}") == [], nothing


@pytest.mark.django_db
def test_the_palette_is_for_viewers_alone_and_answers_while_the_broker_is_away(
    client: Client, viewer: Client, broker: FakeClient, django_user_model: Any
) -> None:
    broker.error = unreachable()
    assert {kind for kind, *_ in found(viewer)} == {"page"}
    client.force_login(django_user_model.objects.create_user("grace"))
    assert client.get("/live/palette/").status_code == 403
    assert client.get("/live/palette/?job=0123").status_code == 403


@pytest.mark.django_db
def test_a_page_of_workers_that_no_number_names_is_the_first(viewer: Client, broker: FakeClient) -> None:
    for wrong in ("9" * 5000, "-1", "x", ""):
        assert 'data-worker="digits-1"' in viewer.get("/workers/", {"page": wrong}).content.decode(), wrong[:5]
        assert viewer.get("/live/fragments/", {"topic": f"workers:page={wrong}"}).status_code == 200
        assert viewer.get("/workers/", {"state": "gone", "before": wrong}).status_code == 200


@pytest.mark.django_db
def test_no_null_character_of_a_query_reaches_the_database(viewer: Client, broker: FakeClient) -> None:
    """PostgreSQL refuses it: an error 500."""
    for path in ("/live/series/?pool=a%00b&node=a%00b", "/workers/?state=gone&pool=a%00b&node=a%00b&q=a%00b"):
        with CaptureQueriesContext(connection) as seen:
            assert viewer.get(path).status_code == 200
        text = "".join(one["sql"] for one in seen)
        assert "'ab'" in text
        assert "\0" not in text


# Orders.

ORDERS = [
    *(f"/pools/digits/{order}/" for order in ("recycle", "scale", "pause", "drain", "resume")),
    *(f"/workers/digits-1/{order}/" for order in ("recycle", "stacks", "kill")),
    *(f"/nodes/node-1/{order}/" for order in ("drain", "resume")),
]


@pytest.fixture
def operator(client: Client, django_user_model: Any) -> Client:
    user = django_user_model.objects.create_user("olga")
    user.user_permissions.add(*Permission.objects.filter(codename__in=["view_pool", "operate_pool"]))
    client.force_login(user)
    return client


@pytest.mark.django_db
@pytest.mark.parametrize("url", ORDERS)
def test_an_order_is_for_operators_alone(url: str, viewer: Client, broker: FakeClient) -> None:
    for answer in (viewer.get(url), viewer.post(url)):
        assert answer.status_code == 403
        assert "snakepit_pools.operate_pool" in answer.content.decode()
    assert broker.orders == []
    for page in ("/pools/digits/", "/workers/digits-1/"):
        assert 'data-region="orders"' not in viewer.get(page).content.decode()


@pytest.mark.django_db
def test_a_page_of_an_operator_offers_the_orders(operator: Client, broker: FakeClient) -> None:
    pages = operator.get("/pools/digits/").content.decode() + operator.get("/workers/digits-1/").content.decode()
    pages += operator.get("/nodes/").content.decode()
    for url in ORDERS:
        assert f'href="{url}"' in pages or url.endswith("resume/")
    broker.change_pool(state="paused")


@pytest.mark.django_db
def test_every_node_that_lives_has_an_order_and_its_labels(
    operator: Client, broker: FakeClient, django_user_model: Any
) -> None:
    now = datetime.now(UTC)
    Node.objects.create(name="far-1", seen_at=now, labels=["gpu=yes"])
    Node.objects.create(name="far-2", seen_at=now, draining=True)
    Node.objects.create(name="far-3", seen_at=now, stopped=True)
    page = operator.get("/nodes/").content.decode()
    assert re.findall(r'href="/nodes/(far-\d/\w+)/"', page) == ["far-1/drain", "far-2/resume"]
    assert '<span class="tag">gpu=yes</span>' in page
    operator.force_login(viewer_named("vera", django_user_model))
    assert "/nodes/far-1/drain/" not in operator.get("/nodes/").content.decode()


@pytest.mark.django_db
def test_an_operator_sees_the_use_of_limits_and_a_viewer_does_not(
    operator: Client, broker: FakeClient, django_user_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = QuotaStatus("key", "snk_1", 3, 90, 7, 5, 0, 2, 0.0, 0, 4)
    watch = broker.watch
    monkeypatch.setattr(broker, "watch", lambda *given: replace(watch(*given), quotas=(one,)))
    page = operator.get("/nodes/").content.decode()
    row = page.partition('data-limit="key snk_1"')[2].partition("</tr>")[0]
    assert "3/4" in row
    assert ">90<" in row
    assert re.findall(r'class="why warn">([^<]+)<', row) == ["calls_per_second 5", "calls_waiting 2"]
    assert 'data-limit="pool digits"' in page
    operator.force_login(viewer_named("vera", django_user_model))
    assert "data-limit" not in operator.get("/nodes/").content.decode()


def viewer_named(name: str, users: Any) -> Any:
    user = users.objects.create_user(name)
    user.user_permissions.add(Permission.objects.get(codename="view_pool"))
    return user


@pytest.mark.django_db
@pytest.mark.parametrize("url", ORDERS)
def test_an_order_shows_its_effects_and_needs_a_csrf_token(url: str, operator: Client, broker: FakeClient) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = operator.cookies
    page = strict.get(url)
    assert page.status_code == 200
    assert "csrfmiddlewaretoken" in page.content.decode()
    assert strict.post(url).status_code == 403
    assert broker.orders == []


@pytest.mark.django_db
def test_orders_reach_the_broker_with_actor_and_reason(operator: Client, broker: FakeClient) -> None:
    Pool.objects.create(name="digits", adapter="digits", size=2)
    for url in ORDERS:
        answer = operator.post(url, {"reason": "because", "size": "4"}, follow=True)
        assert answer.status_code == 200, url
    assert [order[:2] for order in broker.orders] == [
        ("digits", ""), ("digits", "scale 2 to 4"), ("digits", "pause"), ("digits", "pause"), ("digits", "resume"),
        ("digits", "digits-1"), ("digits-1", "dump"), ("digits-1", "kill"), ("node-1", "drain"), ("node-1", "resume"),
    ]  # fmt: skip
    assert {order[2] for order in broker.orders} == {"user olga"}
    assert Pool.objects.get().size == 4
    rows = Audit.objects.order_by("pk")
    assert [row.action for row in rows][:3] == ["recycle", "scale", "pause"]
    assert {row.surface for row in rows} == {"dashboard"}


@pytest.mark.django_db
def test_a_refused_order_shows_its_reason(operator: Client, broker: FakeClient) -> None:
    Pool.objects.create(name="digits", adapter="digits", size=2)
    answer = operator.post("/pools/digits/scale/", {"size": "0"})
    assert answer.status_code == 422
    assert "size: 0 is outside 1 to 1000" in answer.content.decode()
    assert operator.post("/pools/nothing/pause/").status_code == 404
    broker.error = unreachable()
    assert operator.post("/workers/digits-1/kill/").status_code == 503


@pytest.mark.django_db
def test_the_node_has_its_network_addresses_and_the_end_of_its_certificate(viewer: Client, broker: FakeClient) -> None:
    broker.listeners = (ListenerStatus("[::]:7443", "mutual", 2e9, "cert /x: no such file", 5, 9, {}),)
    Node.objects.create(name="gpu-1", advertised=["gpu-1.internal:7443"], seen_at=timezone.now())
    page = viewer.get("/nodes/").content.decode()
    for text in ("[::]:7443", "certificate until 2033-05-18", "cert /x: no such file", "gpu-1.internal:7443"):
        assert text in page
