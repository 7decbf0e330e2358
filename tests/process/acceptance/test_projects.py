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

pytestmark = pytest.mark.timeout(300)

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
TEMPLATES[0]["OPTIONS"]["context_processors"].pop()
ROOT_URLCONF = "bare_urls"
LOGIN_URL = "/login/"
"""
BARE_URLS = """
from django.urls import include, path
urlpatterns = [path("api/", include("snakepit.pools.urls")), path("", include("snakepit.pools.dashboard.urls"))]
"""
PROJECTS = {
    "default": "",
    "ATOMIC_REQUESTS, USE_TZ off": 'DATABASES["default"]["ATOMIC_REQUESTS"] = True; USE_TZ = False',
    "a router to a second database": ROUTED,
    "custom user model": CUSTOM_USER,
    "no admin, no messages": BARE,
    "APPEND_SLASH off, DEBUG on": "APPEND_SLASH = False; DEBUG = True",
    "FORCE_SCRIPT_NAME": 'FORCE_SCRIPT_NAME = "/tools"',
    "German, thousand separators": 'USE_I18N = USE_THOUSAND_SEPARATOR = True; LANGUAGE_CODE = "de"',
    "GZip and conditional GET": """
MIDDLEWARE = ["django.middleware.gzip.GZipMiddleware", "django.middleware.http.ConditionalGetMiddleware", *MIDDLEWARE]
""",
    "AutoField": 'DEFAULT_AUTO_FIELD = "django.db.models.AutoField"',
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
        (self.directory / "people").mkdir()
        (self.directory / "people" / "__init__.py").touch()
        (self.directory / "people" / "models.py").write_text(PEOPLE)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.directory, env=self.environment, capture_output=True, text=True,
            timeout=240, check=False,
        )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as short:  # the path of a socket has to be short
        ours = {"TMPDIR": short, "PYTHONPATH": f"{tmp_path}:{ROOT}", "SNAKEPIT_STATE_DIR": str(tmp_path / "state"),
                "DJANGO_SETTINGS_MODULE": "variant", "SNAKEPIT_DEMO": "0"}  # fmt: skip
        yield Project(tmp_path, own_environment() | ours)


@pytest.mark.parametrize("lines", PROJECTS.values(), ids=PROJECTS.keys())
def test_a_project_works_on_every_page_and_route(project: Project, lines: str) -> None:
    project.write(lines)
    done = project.run("-m", "tests.process.acceptance.project_driver")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [], done.stderr[-3000:]


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
