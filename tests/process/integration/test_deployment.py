"""The site in production: TLS by a proxy, headers of named proxies, the Content-Security-Policy, `check --deploy`."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import Tags, run_checks
from django.test import Client

from snakepit.pools import conf
from snakepit.pools.models import Audit, Pool
from tests.process.integration.fakes import FakeClient

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_SSL_REDIRECT", "SECURE_HSTS_SECONDS")


def site(tmp_path: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SNAKEPIT_", "DJANGO_"))}
    env = {**clean, "SNAKEPIT_STATE_DIR": str(tmp_path), **environment}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=100, check=False
    )


def shipped() -> dict[str, str]:
    """The variables of deploy/snakepit.env.example that are set there, with a secret key."""
    lines = (ROOT / "deploy" / "snakepit.env.example").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    places = ("SNAKEPIT_DATABASE_URL", "SNAKEPIT_STATE_DIR", "SNAKEPIT_SECRET_KEY")
    kept = {name: value for name, value in given.items() if value and name not in places}
    return kept | {"SNAKEPIT_SECRET_KEY": secrets.token_urlsafe(50)}


def warnings_of(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return site(tmp_path, "manage.py", "check", "--deploy", "--fail-level", "WARNING", **environment)


def test_the_shipped_production_settings_pass_the_check_for_deployment(tmp_path: Path) -> None:
    done = warnings_of(tmp_path, **shipped())
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout


def test_production_without_tls_is_a_choice_that_the_check_reports(tmp_path: Path) -> None:
    done = warnings_of(tmp_path, **{**shipped(), "SNAKEPIT_TLS": "0"})
    assert done.returncode == 1
    assert all(f"security.W0{number}" in done.stderr for number in ("04", "08", "12", "16"))


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, [False, False, False, 0]),
        ({"SNAKEPIT_DEBUG": "0", "SNAKEPIT_SECRET_KEY": "x"}, [True, True, True, 31_536_000]),
        ({"SNAKEPIT_DEBUG": "1"}, [False, False, False, 0]),
        ({"SNAKEPIT_DEBUG": "0", "SNAKEPIT_SECRET_KEY": "x", "SNAKEPIT_TLS": "0"}, [False, False, False, 0]),
        ({"SNAKEPIT_TLS": "1", "SNAKEPIT_HSTS_SECONDS": "60"}, [True, True, True, 60]),
        ({"SNAKEPIT_TLS": "1", "SNAKEPIT_HSTS_SECONDS": "0"}, [True, True, True, 0]),
    ],
)
def test_tls_is_switched_by_the_environment(tmp_path: Path, environment: dict[str, str], found: list[Any]) -> None:
    show = f"import json; from snakepit.site import settings as s; print(json.dumps([getattr(s, n) for n in {NAMES}]))"
    done = site(tmp_path, "-c", show, **environment)
    assert json.loads(done.stdout) == found, done.stderr


def test_a_wrong_switch_is_refused_by_name(tmp_path: Path) -> None:
    done = site(tmp_path, "-c", "import snakepit.site.settings", SNAKEPIT_TLS="1", SNAKEPIT_HSTS_SECONDS="a year")
    assert "SNAKEPIT_HSTS_SECONDS is 'a year'; set it to a number of seconds" in done.stderr


@pytest.fixture
def tls(settings: Any) -> Callable[..., None]:
    def set_up(*proxies: str) -> None:
        settings.SECURE_SSL_REDIRECT = settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
        settings.SECURE_HSTS_SECONDS = 60
        settings.SNAKEPIT = {**settings.SNAKEPIT, "TRUSTED_PROXIES": proxies}
        conf.forget()

    return set_up


@pytest.mark.django_db
def test_only_a_named_proxy_says_that_a_request_came_by_tls(client: Client, tls: Callable[..., None]) -> None:
    headers = {"X-Forwarded-Proto": "https"}
    tls("10.0.0.0/8")
    page = client.get("/admin/login/", headers=headers, REMOTE_ADDR="10.0.0.1")
    assert page.status_code == 200
    assert page["Strict-Transport-Security"].startswith("max-age=60")
    assert page.cookies["csrftoken"]["secure"]
    for peer, more in (("192.0.2.1", headers), ("10.0.0.1", {}), ("", headers)):
        page = client.get("/admin/login/", headers=more, REMOTE_ADDR=peer)
        assert (page.status_code, page["Location"]) == (301, "https://testserver/admin/login/")
    assert client.get("/api/live", REMOTE_ADDR="192.0.2.1").status_code == 200  # a probe in clear text


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "address"),
    [
        ((), "127.0.0.1", "6.6.6.6", "127.0.0.1"),
        (("127.0.0.1",), "127.0.0.1", "203.0.113.9", "203.0.113.9"),
        (("127.0.0.1",), "127.0.0.1", "6.6.6.6, 203.0.113.9", "203.0.113.9"),
        (("127.0.0.1", "10.0.0.0/8"), "127.0.0.1", "203.0.113.9, 10.0.0.7", "203.0.113.9"),
        (("127.0.0.1",), "192.0.2.1", "203.0.113.9", "192.0.2.1"),
        (("127.0.0.1",), "127.0.0.1", "\x1b[31m<script>\r\nforged", "127.0.0.1"),
        (("unix",), "", "203.0.113.9", "203.0.113.9"),
        ((), "<script>", "", ""),  # a server that believed a header itself
    ],
)
def test_the_audit_has_the_address_that_a_named_proxy_gives(
    client: Client, make_key: Callable[..., str], broker: FakeClient, tls: Callable[..., None], settings: Any,
    proxies: tuple[str, ...], peer: str, forwarded: str, address: str,
) -> None:  # fmt: skip
    tls(*proxies)
    settings.SECURE_SSL_REDIRECT = False
    Pool.objects.create(name="digits", adapter="digits", size=1)
    headers = {"Authorization": make_key("view", "operate"), "X-Forwarded-For": forwarded}
    answer = client.post(
        "/api/pools/digits/pause", {}, content_type="application/json", headers=headers, REMOTE_ADDR=peer
    )
    assert answer.status_code == 200, answer.content
    assert Audit.objects.get().address == address


@pytest.mark.parametrize("wrong", ["10.0.0.1", ["10.0.0.300"], ["proxy.example"], [5.5], [""]])
def test_a_proxy_is_an_address_or_a_network(settings: Any, wrong: Any) -> None:
    settings.SNAKEPIT = {"TRUSTED_PROXIES": wrong}
    assert any("TRUSTED_PROXIES" in problem for problem in conf.find_problems())


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["/admin/login/", "/admin/", "/api/docs", "/api/pools", "/no/such/page", "/favicon.ico"]
)
def test_every_response_has_a_content_security_policy(client: Client, path: str) -> None:
    policy = client.get(path)["Content-Security-Policy"]
    script = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert "unsafe" not in script
    assert "frame-ancestors 'none'" in policy


def test_the_site_passes_the_checks_of_security_with_tls(settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT = settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
    settings.SECURE_HSTS_SECONDS = 60
    settings.SECURE_HSTS_INCLUDE_SUBDOMAINS = settings.SECURE_HSTS_PRELOAD = True
    settings.SECRET_KEY = secrets.token_urlsafe(50)
    assert run_checks(tags=[Tags.security], include_deployment_checks=True) == []
