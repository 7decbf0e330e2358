"""A host project, as `startproject` makes it, with the lines of the README: what a new user does first.

The second half installs the wheel, and then the repository as editable, into an environment of its own. Its project has
packages with the names of our folders.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.brokers import PATIENCE, ROOT
from tests.demo import UNANSWERED
from tests.ports import free_port

LINES = """
INSTALLED_APPS += ["ninja", "snakepit.pools"]
SNAKEPIT = {
    "ADAPTERS": {"greeter": "greeter.Greeter"},
    "POOLS": {"greeter": {"adapter": "greeter", "size": 1, "queue_timeout": 120.0}},
}
"""


CLI = ("-m", "snakepit.pools.cli")
LONG = 2 * PATIENCE  # for a program that waits for others


@dataclass
class Project:
    directory: Path
    environment: dict[str, str]
    python: str = sys.executable

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.python, *arguments]
        return subprocess.run(
            command, cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=LONG, check=False
        )

    def snakepit(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command beside a broker that runs: again while that does not answer in time."""
        end = time.monotonic() + PATIENCE
        while (done := self.run(*CLI, *arguments)).returncode == UNANSWERED and time.monotonic() < end:
            pass
        return done

    def fine(self, *arguments: str) -> str:
        """The output of a program that has to succeed."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def program(self, *arguments: str, until: str) -> Iterator[None]:
        """A program in the background, from the line that says it is ready to its orderly end."""
        started = subprocess.Popen(
            [self.python, *arguments], cwd=self.directory, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            line(started, until)
            yield
        finally:
            started.send_signal(signal.SIGINT)
            try:
                started.communicate(timeout=PATIENCE)
            finally:
                started.kill()


def own_environment() -> dict[str, str]:
    ours = ("SNAKEPIT_", "DJANGO_", "PYTHON")
    return {name: text for name, text in os.environ.items() if not name.startswith(ours)} | {"PYTHONUNBUFFERED": "1"}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as short:  # the path of a socket has to be short
        found = Project(tmp_path, own_environment() | {"TMPDIR": short, "PYTHONPATH": str(ROOT)})
        made = found.run("-m", "django", "startproject", "shop", ".")
        assert made.returncode == 0, made.stderr
        with (tmp_path / "shop" / "settings.py").open("a") as settings:
            settings.write(LINES)
        assert found.snakepit("new-adapter", "greeter").returncode == 0
        yield found


def line(broker: subprocess.Popen[str], pattern: str) -> str:
    """The next line of its log that has the pattern."""
    assert broker.stdout is not None
    told = []
    for text in broker.stdout:
        told.append(text)
        if re.search(pattern, text):
            return text
    pytest.fail(f"the broker ended before it said {pattern}: {''.join(told)}")


def test_a_new_projects_broker_names_what_is_missing_and_its_socket_and_leaves_nothing(project: Project) -> None:
    broker = subprocess.Popen(
        [sys.executable, "-m", "snakepit.pools.cli", "broker"], cwd=project.directory, env=project.environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        told = line(broker, "cannot be read")
        assert re.search(r"migrations not applied: \d+, from 0001_initial on; run: manage\.py migrate", told)
        migrated = project.run("manage.py", "migrate", "-v", "0")
        assert migrated.returncode == 0, migrated.stderr
        line(broker, "ready .* after its start")

        called = project.snakepit("call", "greeter", "greet", '{"name": "Ada"}')
        assert (called.stdout, called.stderr) == ("Hello Ada\n", "")

        inspected = project.snakepit("inspect")
        assert inspected.returncode == 0, inspected.stderr
        assert "greeter: ready" in inspected.stdout
        assert "1 of 1 workers ready" in inspected.stdout

        submitted = project.snakepit("submit", "greeter", "greet", '{"name": "Ada"}')
        assert submitted.returncode == 0, submitted.stderr
        assert 'was sent: no Celery app found. Jobs need one, calls do not: set SNAKEPIT["CELERY_APP"]' in (
            submitted.stderr
        )
    finally:
        broker.send_signal(signal.SIGINT)
        rest, _ = broker.communicate(timeout=PATIENCE)
    assert broker.returncode == 0, rest
    gone = project.run(*CLI, "status")
    assert (gone.returncode, "start it with: snakepit broker" in gone.stderr) == (3, True)


# Installed, in a project whose packages are called as our folders are.

FILES = {
    "workers/__init__.py": "",
    "workers/greeter.py": """
from examples.names import title
from pools.words import GREETING

from snakepit import Adapter, command


class Greeter(Adapter):
    @command(idempotent=True)
    def greet(self, name: str) -> str:
        return f"{GREETING} {title(name)}"
""",
    "pools/__init__.py": "",
    "pools/words.py": 'GREETING = "Good day"\n',
    "examples/__init__.py": "",
    "examples/names.py": "def title(name: str) -> str:\n    return name.title()\n",
    "shop/celery.py": """
import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["snakepit.pools"])
""",
    "shop/urls.py": """
from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", include("snakepit.pools.urls")),
    path("snakepit/", include("snakepit.pools.dashboard.urls")),
]
""",
}
SETTINGS = """
import examples.names, pools.words, workers.greeter

INSTALLED_APPS += ["ninja", "snakepit.pools"]
SNAKEPIT = {
    "ADAPTERS": {"greeter": "workers.greeter.Greeter"},
    "POOLS": {"greeter": {"adapter": "greeter", "size": 1, "queue_timeout": 120.0}},
}
DATABASES["default"]["OPTIONS"] = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
}
CELERY_BROKER_URL = "filesystem://"
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "data_folder_in": str(BASE_DIR / "messages"),
    "data_folder_out": str(BASE_DIR / "messages"),
    "control_folder": str(BASE_DIR / "control"),
    "polling_interval": 0.1,
}
CELERY_TASK_IGNORE_RESULT = True
"""
LOG_IN = """
import django
django.setup()
from django.contrib.auth import get_user_model
from django.test import Client
client = Client()
client.force_login(get_user_model().objects.create_superuser("ada"))
print(client.cookies["sessionid"].value)
"""
RECORD = """
from importlib.metadata import distribution
print(*distribution("django-snakepit").files, sep="\\n")
"""


@dataclass
class Installed:
    how: str
    project: Project
    files: list[str]  # that the installation recorded


def make_environment(home: Path) -> str:
    """A new environment that finds the libraries of the one which runs the tests, and nothing of this repository."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True, timeout=120)
    (packages,) = home.glob("lib/python3.*/site-packages")
    # Of a folder that a .pth file names, .pth files are not read: our own installation there stays unknown.
    libraries = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (packages / "libraries.pth").write_text("\n".join(libraries))
    return str(home / "bin/python")


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    home = tmp_path_factory.mktemp(request.param)
    python = make_environment(home / "env")
    # The build backend is among the libraries, so that nothing has to be downloaded.
    build = ("--no-deps", "--no-index", "--no-build-isolation")
    if request.param == "wheel":
        pip("wheel", *build, "--wheel-dir", str(home / "dist"), str(ROOT))
        pip("--python", python, "install", *build, *map(str, (home / "dist").glob("*.whl")))
    else:
        pip("--python", python, "install", *build, "--editable", str(ROOT))
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as short:  # the path of a socket has to be short
        directory = home / "shop"
        directory.mkdir()
        found = Project(directory, own_environment() | {"TMPDIR": short}, python)
        found.fine("-m", "django", "startproject", "shop", ".")
        for name, text in FILES.items():
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_text(text)
        for folder in ("messages", "control"):
            (directory / folder).mkdir()
        with (directory / "shop" / "settings.py").open("a") as settings:
            settings.write(SETTINGS)
        yield Installed(request.param, found, found.fine("-c", RECORD).split())


def test_an_installation_puts_snakepit_alone_beside_other_packages(installed: Installed) -> None:
    rest = {name for name in installed.files if ".dist-info/" not in name and not name.endswith("/bin/snakepit")}
    if installed.how == "wheel":
        assert {name.partition("/")[0] for name in rest} == {"snakepit"}
        assert {"snakepit/site/settings.py", "snakepit/examples/digits.py"} <= rest
    else:
        assert [Path(name).suffix for name in rest] == [".pth"]


def test_a_hosts_packages_keep_their_names(installed: Installed) -> None:
    ask = (
        "import examples, pools, snakepit, workers; print(*(m.__file__ for m in (examples, pools, workers, snakepit)))"
    )
    *theirs, ours = installed.project.fine("-c", ask).split()
    assert [Path(one).parent.parent for one in theirs] == [installed.project.directory] * 3
    home = str(ROOT) if installed.how == "editable" else str(Path(installed.project.python).parents[1])
    assert ours.startswith(home)


def test_a_host_project_checks_migrates_calls_runs_jobs_and_shows_its_dashboard(installed: Installed) -> None:
    project = installed.project
    project.fine("manage.py", "check", "--fail-level", "WARNING")
    project.fine("manage.py", "migrate", "-v", "0")
    port = free_port()
    celery = ("-m", "celery", "-A", "shop", "worker", "--pool", "threads", "--concurrency", "2", "--loglevel", "info")
    with ExitStack() as running:
        running.enter_context(project.program("manage.py", "snakepit", "broker", until="ready .* after its start"))
        name = '{"name": "ada"}'
        assert project.snakepit("call", "greeter", "greet", name).stdout == "Good day Ada\n"
        running.enter_context(project.program(*celery, until=r"celery@\S+ ready"))
        done = project.fine("manage.py", "snakepit", "submit", "greeter", "greet", name, "--wait")
        assert done.endswith("Good day Ada\n")
        server = ("manage.py", "runserver", "--noreload", f"127.0.0.1:{port}")
        running.enter_context(project.program(*server, until="Quit the server"))
        project.environment["DJANGO_SETTINGS_MODULE"] = "shop.settings"
        session = project.fine("-c", LOG_IN).strip()
        page = fetch(port, "/snakepit/", session)
        assert "greeter" in page
        styles = re.findall(r'href="(/static/snakepit/[^"]+\.css)', page)
        assert styles
        for style in styles:
            assert "{" in fetch(port, style, session)


def fetch(port: int, path: str, session: str) -> str:
    """The text of a page or file; anything but a 200 without a detour is an error."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Cookie": f"sessionid={session}"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert (answer.status, answer.url) == (200, request.full_url)
        text: str = answer.read().decode()
        return text


def test_a_change_of_adapter_code_reaches_the_workers_and_a_broken_one_leaves_them_serving(project: Project) -> None:
    source = project.directory / "greeter.py"
    good = source.read_text()

    def answers(text: str) -> bool:
        return project.snakepit("call", "greeter", "greet", '{"name": "Ada"}').stdout == f"{text}\n"

    def until(holds: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < end, project.snakepit("status").stdout

    project.fine("manage.py", "migrate", "-v", "0")
    with project.program("manage.py", "snakepit", "broker", "--reload", until="ready .* after its start"):
        assert answers("Hello Ada")
        source.write_text(good.replace('"Hello"', '"Good day"'))
        until(lambda: answers("Good day Ada"))

        source.write_text("import nothing_of_this_name\n")
        until(lambda: "degraded" in project.snakepit("status").stdout)
        assert "nothing_of_this_name" in project.snakepit("inspect", "greeter").stdout
        assert answers("Good day Ada")

        source.write_text(good.replace('"Hello"', '"Welcome"'))
        until(lambda: answers("Welcome Ada"))
