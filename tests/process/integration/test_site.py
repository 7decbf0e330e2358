"""The site around the app: checks, tasks, the demo login, settings from the environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.test import Client, RequestFactory
from django.urls import include, path, reverse

from snakepit.pools import tasks
from snakepit.pools.celery_setup import transport_options
from snakepit.pools.checks import check_snakepit, check_urls
from snakepit.pools.cli import demo
from snakepit.site import error_pages
from snakepit.site.celery import app
from tests.process.integration.fakes import FakeClient, unreachable

ROOT = Path(__file__).resolve().parents[3]


def ids() -> list[str | None]:
    return [message.id for message in check_snakepit()]


def test_a_browser_that_asks_for_the_icon_by_itself_is_led_to_it(client: Client) -> None:
    answer = client.get("/favicon.ico")
    assert (answer.status_code, answer["Location"]) == (302, "/static/snakepit/icon.svg")


@pytest.mark.parametrize("missing", ["", "whitenoise"])
def test_pages_have_their_static_files_with_and_without_whitenoise(tmp_path: Path, missing: str) -> None:
    program = f"""
import sys
if {missing!r}:
    sys.modules[{missing!r}] = None
import django
django.setup()
from django.conf import settings
from django.core.checks import run_checks
from django.core.management import call_command
from django.test import Client
assert bool({missing!r}) != ("whitenoise.middleware.WhiteNoiseMiddleware" in settings.MIDDLEWARE)
call_command("migrate", verbosity=0)
assert run_checks() == [], run_checks()
client = Client(headers={{"host": "localhost"}})
page = client.get("/admin/login/")
assert page.status_code == 200
style = client.get("/static/snakepit/snakepit.css")
print(style.status_code, style["Content-Type"].partition(";")[0], len(style.getvalue()) > 1000)
"""
    environment = {"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "snakepit.site.settings"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={**environment, "SNAKEPIT_STATE_DIR": str(tmp_path)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["200", "text/css", "True"]


# Checks.


@pytest.mark.django_db  # Django 6.1 asks the database for its features
def test_the_site_itself_has_no_problem() -> None:
    assert run_checks() == []


@pytest.mark.parametrize(
    ("snakepit", "found"),
    [
        ({"ADAPTRES": {}}, ["snakepit.E001"]),
        ({"POOLS": {"digits": {"adapter": "digits", "size": 0}}}, ["snakepit.E002"]),
        ({"RUNTIME_DIR": "/tmp/" + "x" * 100}, ["snakepit.E003"]),
        ({"ADAPTERS": {"digits": "no_such_package.Digits"}}, ["snakepit.W001"]),
        ({"ADAPTERS": {"digits": "snakepit.examples.no_such_module.Digits"}}, ["snakepit.W001"]),
        ({"ADAPTERS": {"digits": "snakepit.examples.digits.Digit"}}, ["snakepit.W001"]),
        (
            {
                "ADAPTERS": {"digits": "snakepit.examples.digits.Digits"},
                "POOLS": {"d": {"adapter": "digits", "threads": 3}},
            },
            ["snakepit.W004"],
        ),
    ],
)
def test_a_mistake_in_the_settings_is_found(settings: Any, snakepit: Any, found: list[str]) -> None:
    settings.SNAKEPIT = snakepit
    assert ids() == found


def test_a_check_imports_no_users_code(settings: Any, tmp_path: Path) -> None:
    (tmp_path / "users_code.py").write_text("raise SystemExit('imported')\nclass Adapter: ...")
    settings.SNAKEPIT = {"ADAPTERS": {"x": "users_code.Adapter"}, "WORKER_PATH": [tmp_path]}
    assert ids() == []
    assert "users_code" not in sys.modules


def test_an_adapter_in_a_zip_archive_of_the_worker_path_is_found(settings: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as archive:
        archive.writestr("users_zipped_code.py", "raise SystemExit('imported')\nclass Adapter: ...")
    settings.SNAKEPIT = {"ADAPTERS": {"x": "users_zipped_code.Adapter"}, "WORKER_PATH": [tmp_path / "bundle.zip"]}
    assert ids() == []
    assert "users_zipped_code" not in sys.modules


def test_sqlite_without_wal_is_found(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": "x", "OPTIONS": {"timeout": 20}}
    monkeypatch.setitem(settings.DATABASES, "other", database)
    assert ids() == ["snakepit.W002"]


def test_a_database_that_keeps_nothing_is_found(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.DATABASES["default"], "AUTOCOMMIT", False)
    assert ids() == ["snakepit.E009"]
    monkeypatch.setitem(settings.DATABASES["default"], "AUTOCOMMIT", True)
    fitting = settings.DATABASES["default"]["OPTIONS"]
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:", "OPTIONS": fitting}
    monkeypatch.setitem(settings.DATABASES, "other", database)
    assert "snakepit.W013" in ids()  # the options of PostgreSQL do not fit, which is another warning


@pytest.mark.parametrize(
    ("options", "found"), [({}, ["snakepit.W012"]), ({"connect_timeout": 2}, []), ({"service": "shop"}, [])]
)
def test_a_postgresql_that_may_hang_each_request_is_found(
    options: dict[str, Any], found: list[str], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = {"ENGINE": "django.db.backends.postgresql", "NAME": "x", "OPTIONS": options}
    monkeypatch.setitem(settings.DATABASES, "other", database)
    assert ids() == found


def test_an_api_page_that_would_load_from_elsewhere_is_found(settings: Any) -> None:
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name != "ninja"]
    assert ids() == ["snakepit.W003"]


@pytest.mark.django_db  # Django 6.1 asks the database for its features
def test_pools_in_the_web_process_are_found_in_a_deployment(settings: Any) -> None:
    assert [one for one in run_checks(include_deployment_checks=True) if str(one.id).startswith("snakepit.")] == []
    settings.SNAKEPIT = {"TEST": True}
    found = [one.id for one in run_checks(include_deployment_checks=True) if str(one.id).startswith("snakepit.")]
    assert found == ["snakepit.W008"]


# Celery.


def test_a_sweep_reaches_the_broker(broker: FakeClient, settings: Any) -> None:
    settings.SNAKEPIT = {"SWEEP_INTERVAL": 5.0}
    assert tasks.sweep() == 0
    assert broker.orders == [("beat", 5.0)]


def test_a_sweep_without_a_broker_is_a_warning(broker: FakeClient, caplog: pytest.LogCaptureFixture) -> None:
    broker.error = unreachable()
    tasks.sweep()
    (record,) = caplog.records
    assert (record.levelname, record.exc_info) == ("WARNING", None)


def test_celery_speaks_json_alone_and_keeps_no_results() -> None:
    assert app.conf.accept_content == app.conf.result_accept_content == ["json"]
    assert app.conf.task_serializer == "json"
    assert app.conf.task_ignore_result
    assert app.conf.beat_schedule["snakepit.sweep"]["task"] == "snakepit.sweep"
    app.loader.import_default_modules()
    assert {"snakepit.sweep", "snakepit.run_job"} <= set(app.tasks)
    assert app.tasks["snakepit.run_job"].acks_late
    assert app.tasks["snakepit.run_job"].reject_on_worker_lost


def test_options_of_redis_go_to_redis_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("redis://x/0", "rediss://x/0", "redis+socket:///tmp/x"):
        assert transport_options(url)["socket_timeout"] == 30
    assert transport_options("amqp://x") == {}
    monkeypatch.setattr("snakepit.pools.celery_setup.state_dir", lambda: tmp_path)
    options = transport_options("filesystem://")
    assert options["data_folder_in"] == options["data_folder_out"]
    assert Path(options["data_folder_in"]).is_dir()
    assert Path(options["control_folder"]).is_dir()


# The error pages.


def test_an_error_has_a_page_in_the_look_of_the_site_with_the_way_back(client: Client, rf: RequestFactory) -> None:
    missing = client.get("/nowhere/<b>")
    refused = error_pages.not_allowed(rf.get("/"), PermissionDenied())
    invalid = error_pages.bad_request(rf.get("/"), SuspiciousOperation())
    failed = error_pages.server_error(rf.get("/"))
    form = Client(enforce_csrf_checks=True).post("/admin/login/", {"username": "x"})
    pages = [(missing, 404), (refused, 403), (invalid, 400), (failed, 500), (form, 403)]
    for page, status in pages:
        text = page.content.decode()
        assert (page.status_code, "snakepit.css" in text, 'href="/"' in text) == (status, True, True)
    assert "There is no page at /nowhere/&lt;b&gt;." in missing.content.decode()
    assert "security token" in form.content.decode()
    assert client.get("/api/nowhere").json()["error"]["code"] == "not_found"


# The demo login.


@pytest.mark.django_db
def test_the_demo_login_takes_its_token_alone(client: Client, broker: FakeClient, settings: Any) -> None:
    settings.SNAKEPIT_DEMO_TOKEN = ""
    assert client.get("/demo-login/?token=").status_code == 404
    settings.SNAKEPIT_DEMO_TOKEN = demo.prepare().login_token
    for wrong in ("", "?token=", "?token=S3CRET", "?token=%C3%A9"):
        assert client.get(f"/demo-login/{wrong}").status_code == 403
    response = client.get("/demo-login/", {"token": settings.SNAKEPIT_DEMO_TOKEN})
    assert (response.status_code, response["Location"]) == (302, "/")
    assert client.get("/admin/").status_code == 200
    again = client.get("/demo-login/", {"token": settings.SNAKEPIT_DEMO_TOKEN})  # by the user who is signed in
    assert (again.status_code, again["Location"]) == (302, "/")


@pytest.mark.django_db
def test_the_demo_login_works_once_and_for_an_hour(client: Client, broker: FakeClient, settings: Any) -> None:
    settings.SNAKEPIT_DEMO_TOKEN = first = demo.prepare().login_token
    statuses = [Client().get("/demo-login/", {"token": first}).status_code for _ in range(2)]
    assert statuses == [302, 403]
    long_ago = time.time() - 3601
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("django.core.signing.time.time", lambda: long_ago)
        settings.SNAKEPIT_DEMO_TOKEN = old = demo.prepare().login_token
    response = client.get("/demo-login/", {"token": old})
    assert response.status_code == 403
    assert "older than an hour" in response.content.decode()
    settings.SNAKEPIT_DEMO_TOKEN = new = demo.prepare().login_token
    assert client.get("/demo-login/", {"token": new}).status_code == 302


# Settings from the environment.


def settings_with(tmp_path: Path, show: str = "None", **environment: str) -> subprocess.CompletedProcess[str]:
    code = f"import json; from snakepit.site import settings; print(json.dumps({show}))"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SNAKEPIT_")}
    env = {**clean, "SNAKEPIT_STATE_DIR": str(tmp_path), **environment}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)


def test_a_secret_key_is_made_once_and_kept(tmp_path: Path) -> None:
    keys = {settings_with(tmp_path, "settings.SECRET_KEY").stdout for _ in range(2)}
    assert len(keys) == 1
    assert len(keys.pop()) > 50
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600


def test_production_refuses_to_run_without_a_secret_key(tmp_path: Path) -> None:
    done = settings_with(tmp_path, SNAKEPIT_DEBUG="0")
    assert done.returncode != 0
    assert "SNAKEPIT_DEBUG=0 (production) needs SNAKEPIT_SECRET_KEY" in done.stderr
    assert settings_with(tmp_path, SNAKEPIT_DEBUG="0", SNAKEPIT_SECRET_KEY="x").returncode == 0


def test_the_databases_url_is_read(tmp_path: Path) -> None:
    show = "settings.DATABASES['default']"
    url = "postgres://u%40x:p%2F@db:5433/shop?sslmode=require"
    found = json.loads(settings_with(tmp_path, show, SNAKEPIT_DATABASE_URL=url).stdout)
    assert (found["USER"], found["PASSWORD"], found["HOST"], found["PORT"], found["NAME"]) == (
        "u@x", "p/", "db", "5433", "shop",
    )  # fmt: skip
    assert found["OPTIONS"] == {"sslmode": "require", "connect_timeout": 2}
    assert found["CONN_HEALTH_CHECKS"] is True
    found = json.loads(settings_with(tmp_path, show, SNAKEPIT_DATABASE_URL="sqlite:////srv/x.db").stdout)
    assert found["NAME"] == "/srv/x.db"
    found = json.loads(settings_with(tmp_path, show).stdout)
    assert found["NAME"] == str(tmp_path / "db.sqlite3")
    assert found["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert "must begin with" in settings_with(tmp_path, SNAKEPIT_DATABASE_URL="mysql://x").stderr


def test_the_demo_pools_are_there_on_demand(tmp_path: Path) -> None:
    assert "POOLS" not in json.loads(settings_with(tmp_path, "settings.SNAKEPIT").stdout)
    demo = json.loads(settings_with(tmp_path, "settings.SNAKEPIT", SNAKEPIT_DEMO="1").stdout)
    assert set(demo["POOLS"]) == set(demo["ADAPTERS"]) == {"digits", "docs", "primes"}


def test_an_installed_site_keeps_its_state_where_it_runs_and_not_among_the_packages(tmp_path: Path) -> None:
    packages, here = tmp_path / "packages", tmp_path / "here"
    shutil.copytree(ROOT / "snakepit", packages / "snakepit")  # with what its links lead to, as in a wheel
    here.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SNAKEPIT_")}
    code = "from snakepit.site import settings; print(settings.__file__, settings.STATE_DIR)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=here, env={**clean, "PYTHONPATH": str(packages)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    settings_file = packages / "snakepit" / "site" / "settings.py"
    assert done.stdout.split() == [str(settings_file), str(here / ".snakepit")], done.stderr


def test_a_shell_beside_the_demo_has_its_pools_unless_the_environment_disables_them(tmp_path: Path) -> None:
    (tmp_path / "demo").touch()
    assert "digits" in json.loads(settings_with(tmp_path, "settings.SNAKEPIT").stdout)["POOLS"]
    assert "POOLS" not in json.loads(settings_with(tmp_path, "settings.SNAKEPIT", SNAKEPIT_DEMO="0").stdout)


def test_a_flag_must_be_1_or_0(tmp_path: Path) -> None:
    assert "SNAKEPIT_DEBUG is 'maybe'; set it to 1 or 0" in settings_with(tmp_path, SNAKEPIT_DEBUG="maybe").stderr


# URLs


def nested_urls(app_name: str) -> Any:
    """A URLconf that includes the dashboard and the API, under this application namespace or none."""
    inner = ModuleType("inner_urls")
    inner.urlpatterns = [  # type: ignore[attr-defined]
        path("pools/", include("snakepit.pools.dashboard.urls")),
        path("api/", include("snakepit.pools.urls")),
    ]
    outer = ModuleType("outer_urls")
    included = include((inner, app_name)) if app_name else include(inner)
    outer.urlpatterns = [path("internal/", included)]  # type: ignore[attr-defined]
    return outer


def test_a_dashboard_in_another_namespace_is_refused_by_name(settings: Any) -> None:
    settings.ROOT_URLCONF = nested_urls("internal")
    found = check_urls()
    assert [one.id for one in found] == ["snakepit.E006", "snakepit.E006"]
    assert "'snakepit' are inside the namespace 'internal'" in found[0].msg
    settings.ROOT_URLCONF = nested_urls("")
    assert check_urls() == []
    assert reverse("snakepit:jobs") == "/internal/pools/jobs/"


def test_a_dashboard_without_users_is_refused_by_name(settings: Any) -> None:
    settings.ROOT_URLCONF = nested_urls("")
    auth = "django.contrib.auth.middleware.AuthenticationMiddleware"
    settings.MIDDLEWARE = [one for one in settings.MIDDLEWARE if one != auth]
    (found,) = check_urls()
    assert found.id == "snakepit.E010"
    assert auth in found.hint
