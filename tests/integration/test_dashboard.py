"""The dashboard's frame: who may see it, its headers, its live regions, and that nothing is loaded from elsewhere."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.contrib.staticfiles import finders
from django.test import Client
from django.urls import reverse

from pools.dashboard.hub import Hub
from pools.dashboard.navigation import ENTRIES
from tests.integration.fakes import FakeClient, unreachable

VENDOR = Path(__file__).resolve().parents[2] / "pools/static/snakepit/vendor"
PAGES = ["/", "/pools/"]


@pytest.fixture(autouse=True)
def fresh_hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Each test begins with a hub that knows nothing."""
    hub = Hub()
    for module in ("page", "stream", "series", "pools"):
        monkeypatch.setattr(f"pools.dashboard.{module}.hub", hub)
    return hub


@pytest.fixture
def viewer(client: Client, django_user_model: Any) -> Client:
    user = django_user_model.objects.create_user("vera")
    user.user_permissions.add(Permission.objects.get(codename="view_pool"))
    client.force_login(user)
    return client


# Who may see it.


@pytest.mark.django_db
@pytest.mark.parametrize("url", PAGES)
def test_a_page_is_for_viewers_alone(url: str, client: Client, broker: FakeClient, django_user_model: Any) -> None:
    answer = client.get(url)
    assert (answer.status_code, answer["Location"]) == (302, f"/admin/login/?next={url}")
    user = django_user_model.objects.create_user("grace")
    client.force_login(user)
    answer = client.get(url)
    assert answer.status_code == 403
    assert "grace, who may not do this" in answer.content.decode()
    assert "digits" not in answer.content.decode()
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
def test_the_policy_is_of_our_own_pages_alone(viewer: Client, broker: FakeClient) -> None:
    assert "Content-Security-Policy" not in viewer.get("/admin/login/").headers


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
def test_a_server_that_cannot_stream_says_so(viewer: Client, broker: FakeClient) -> None:
    answer = viewer.get("/live/stream/?topic=pools")  # the test client is a WSGI server
    assert answer.status_code == 501


@pytest.mark.django_db
def test_a_page_says_that_the_broker_is_away(viewer: Client, broker: FakeClient) -> None:
    broker.error = unreachable()
    for url in PAGES:
        page = viewer.get(url)
        assert page.status_code == 200
        assert "The broker is not reachable" in page.content.decode()
        assert "Not known." in page.content.decode()


@pytest.mark.django_db
def test_what_was_known_stays_and_is_called_old(
    viewer: Client, broker: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pools.dashboard.hub.FRESH", 0.0)
    viewer.get("/")
    broker.error = unreachable()
    page = viewer.get("/").content.decode()
    assert "The numbers below are of" in page
    assert "digits" in page
    assert viewer.get("/live/fragments/?topic=pools").json()["beat"]["state"] == "stale"


@pytest.mark.django_db
def test_many_pages_at_once_ask_the_broker_once(viewer: Client, broker: FakeClient) -> None:
    asked: list[str] = []
    status = broker.status
    broker.status = lambda pool="": (asked.append(pool), status(pool))[1]  # type: ignore[method-assign]
    for _ in range(3):
        viewer.get("/")
    assert len(asked) == 1


# Text of others.


@pytest.mark.django_db
def test_what_a_worker_says_is_text(viewer: Client, broker: FakeClient) -> None:
    broker.pools[0] |= {"state": 'bad" onload="x', "reason": "<script>alert(1)</script>", "warnings": ["<b>w</b>"]}
    for url in PAGES:
        page = viewer.get(url).content.decode()
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)" in page
        assert "<b>w</b>" not in page
        assert 'onload="x' not in page


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
        assert {len(column) for column in found["columns"].values()} == {1}
    assert viewer.get("/live/series/?span=7").status_code == 400
