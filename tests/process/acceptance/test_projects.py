"""A matrix of ordinary Django projects: each is migrated, gets a broker, and answers on every page and route."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.brokers import ROOT
from tests.process.acceptance.test_host_project import own_environment

BASE = """
from snakepit.site.settings import *
SNAKEPIT = {
    "NODE_NAME": "node-1",
    "RUNTIME_DIR": os.environ["TMPDIR"] + "/run",
    "ADAPTERS": {"primes": "snakepit.examples.primes.Primes"},
    "POOLS": {"primes": {"adapter": "primes", "profile": "thread", "size": 1}},
}
ALLOWED_HOSTS = ["testserver"]
DEFAULT_MIDDLEWARE = MIDDLEWARE
"""
# Two databases: the default one has none of the apps that the pools refer to.
ROUTED = """
DATABASES["default"]["NAME"] = str(STATE_DIR / "default.sqlite3")
DATABASES["pools"] = {**DATABASES["default"], "NAME": str(STATE_DIR / "pools.sqlite3")}
DATABASE_ROUTERS = ["router.Router"]
"""
ROUTER = """
APPS = {apps}


class Router:
    def db_for_read(self, model, **hints):
        return "pools" if model._meta.app_label in APPS else "default"

    db_for_write = db_for_read

    def allow_migrate(self, db, app_label, **hints):
        return (db == "pools") == (app_label in APPS)
"""
CUSTOM_USER = """
INSTALLED_APPS = ["people", *INSTALLED_APPS]
AUTH_USER_MODEL = "people.Person"
"""
PEOPLE = """
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.db import models


class Manager(BaseUserManager):
    def create_user(self, email, password=None, **fields):
        person = self.model(email=email, **fields)
        person.save()
        return person

    def create_superuser(self, email, password=None, **fields):
        return self.create_user(email, password, is_superuser=True, is_staff=True, **fields)


class Person(AbstractBaseUser, PermissionsMixin):
    id = models.UUIDField(primary_key=True, default=__import__("uuid").uuid4)
    email = models.EmailField(unique=True)
    is_staff = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    USERNAME_FIELD = "email"
    objects = Manager()
"""
BARE = """
INSTALLED_APPS = [one for one in INSTALLED_APPS if one not in ("django.contrib.admin", "django.contrib.messages")]
MIDDLEWARE = [one for one in MIDDLEWARE if "messages" not in one]
TEMPLATES[0]["OPTIONS"]["context_processors"] = []
ROOT_URLCONF = "bare_urls"
LOGIN_URL = "/login/"
"""
BARE_URLS = """
from django.urls import include, path
urlpatterns = [path("api/", include("snakepit.pools.urls")), path("", include("snakepit.pools.dashboard.urls"))]
"""
PREFIXED_URLS = """
from django.contrib import admin
from django.urls import include, path
urlpatterns = [
    path("internal/api/v1/", include("snakepit.pools.urls", namespace="internal-api")),
    path("internal/pools/", include("snakepit.pools.dashboard.urls", namespace="operations")),
    path("back/office/", admin.site.urls),
    path("<slug:page>/", admin.site.index),
]
"""
# Each project has settings that do not touch each other; the driver tries the same things in each of them.
PROJECTS = {
    "default": "",
    "ATOMIC_REQUESTS, USE_TZ off, CSRF in sessions, strict cookies": """
DATABASES["default"]["ATOMIC_REQUESTS"] = True
USE_TZ, TIME_ZONE = False, "America/Chicago"
CSRF_USE_SESSIONS = CSRF_COOKIE_HTTPONLY = SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Strict"
SESSION_COOKIE_NAME, CSRF_HEADER_NAME = "shop", "HTTP_X_XSRF_TOKEN"
""",
    "a router to a second database, Redis cache, cached sessions": ROUTED
    + """
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": os.environ["REDIS"]}}
SESSION_ENGINE = "django.contrib.sessions.backends.cache"
""",
    "custom user model, AutoField, DummyCache": CUSTOM_USER
    + """
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
""",
    "no admin, no messages, no context processors, LOGIN_URL elsewhere": BARE,
    "APPEND_SLASH off, DEBUG on, sessions in the database's cache": """
APPEND_SLASH, DEBUG = False, True
SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"
MIDDLEWARE.append("django.contrib.auth.middleware.LoginRequiredMiddleware")
""",
    "FORCE_SCRIPT_NAME, sessions in cookies": """
FORCE_SCRIPT_NAME = "/tools"
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
""",
    "German, thousand separators, other loaders, string_if_invalid": """
USE_I18N = USE_THOUSAND_SEPARATOR = True
LANGUAGE_CODE = "de"
MIDDLEWARE.insert(MIDDLEWARE.index("django.middleware.common.CommonMiddleware"),
                  "django.middleware.locale.LocaleMiddleware")
TEMPLATES[0]["APP_DIRS"] = False
TEMPLATES[0]["OPTIONS"] |= {
    "loaders": ["django.template.loaders.filesystem.Loader", "django.template.loaders.app_directories.Loader"],
    "string_if_invalid": "INVALID %s",
}
""",
    "GZip, conditional GET, a cache for the whole site": """
MIDDLEWARE = [
    "django.middleware.gzip.GZipMiddleware", "django.middleware.http.ConditionalGetMiddleware",
    "django.middleware.cache.UpdateCacheMiddleware", *MIDDLEWARE, "django.middleware.cache.FetchFromCacheMiddleware",
]
""",
    "mounted under a prefix, with namespaces and another admin": """
ROOT_URLCONF = "prefixed_urls"
LOGIN_URL = "/sign-in/"
""",
}
TOGETHER = ("snakepit_pools", "auth", "contenttypes", "sessions", "admin")


@dataclass
class Project:
    directory: Path
    environment: dict[str, str]

    def write(self, lines: str, apps: tuple[str, ...] = TOGETHER) -> None:
        (self.directory / "variant.py").write_text(BASE + lines)
        (self.directory / "router.py").write_text(ROUTER.format(apps=apps))
        (self.directory / "bare_urls.py").write_text(BARE_URLS)
        (self.directory / "prefixed_urls.py").write_text(PREFIXED_URLS)
        (self.directory / "people").mkdir()
        (self.directory / "people" / "__init__.py").touch()
        (self.directory / "people" / "models.py").write_text(PEOPLE)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.directory, env=self.environment, capture_output=True, text=True,
            timeout=240, check=False,
        )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, valkey_url: str) -> Iterator[Project]:
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as short:  # the path of a socket has to be short
        ours = {"TMPDIR": short, "PYTHONPATH": f"{tmp_path}:{ROOT}", "SNAKEPIT_STATE_DIR": str(tmp_path / "state"),
                "DJANGO_SETTINGS_MODULE": "variant", "SNAKEPIT_DEMO": "0",
                "REDIS": valkey_url.replace("redis+socket", "unix")}  # fmt: skip
        yield Project(tmp_path, own_environment() | ours)


@pytest.mark.parametrize("lines", PROJECTS.values(), ids=PROJECTS.keys())
def test_a_project_works_on_every_page_and_route(project: Project, lines: str) -> None:
    project.write(lines)
    done = project.run("-m", "tests.process.acceptance.project_driver")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n".join(json.loads(done.stdout.splitlines()[-1])) == ""


def test_paths_that_the_locale_cannot_decode_are_shown(project: Project) -> None:
    project.write("")
    place = Path(project.environment["TMPDIR"]) / "zustände"
    place.mkdir()
    posix = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    project.environment |= posix | {"TMPDIR": str(place), "SNAKEPIT_STATE_DIR": str(place / "state")}
    done = project.run("-m", "tests.process.acceptance.project_driver")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def names(database: Path, kind: str) -> set[str]:
    with closing(sqlite3.connect(database)) as connection:
        return {name for (name,) in connection.execute("select name from sqlite_master where type = ?", [kind])}


def test_tables_and_triggers_are_in_the_database_that_the_router_chose(project: Project) -> None:
    project.write(ROUTED)
    for alias in ("default", "pools"):
        done = project.run("-m", "django", "migrate", f"--database={alias}", "-v", "0")
        assert done.returncode == 0, done.stderr
    state = project.directory / "state"
    assert names(state / "pools.sqlite3", "trigger") == {"snakepit_job_guard", "snakepit_jobentry_guard"}
    assert {"snakepit_pool", "snakepit_job", "auth_user"} <= names(state / "pools.sqlite3", "table")
    assert names(state / "default.sqlite3", "trigger") == set()
    assert not any(name.startswith(("snakepit", "auth")) for name in names(state / "default.sqlite3", "table"))


def test_pools_and_users_in_two_databases_are_refused_by_name(project: Project) -> None:
    project.write(ROUTED, apps=("snakepit_pools",))
    done = project.run("-m", "django", "check")
    assert done.returncode == 1
    assert "(snakepit.E004)" in done.stderr
    assert "snakepit_pools in the database 'pools' and the user model in 'default'" in done.stderr
    load = (
        "import django; django.setup()\n"
        "from snakepit.pools.adapters.records.definitions import DatabaseDefinitions\nDatabaseDefinitions().load()"
    )
    told = project.run("-c", load).stderr.splitlines()[-1]
    assert "a foreign key cannot cross databases. Route snakepit_pools" in told
