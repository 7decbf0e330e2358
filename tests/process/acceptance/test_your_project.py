"""The page "Add Snakepit to your project", line by line, in a new project and with the wheel.

The project has packages with the names of our folders, a user model of its own, and a Celery app that names a server.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.brokers import PATIENCE, ROOT
from tests.ports import free_port
from tests.process.acceptance.test_host_project import (
    LOG_IN,
    Project,
    fetch,
    make_environment,
    own_environment,
    pip,
)

PAGE = (ROOT / "docs/tutorial/your-project.md").read_text()
BLOCK = re.compile(r"<!-- (?P<note>[^>]*) -->\n```\w+\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
STEPS = [(match["note"], match["text"]) for match in BLOCK.finditer(PAGE)]
MODELS = "from django.contrib.auth.models import AbstractUser\n\n\nclass User(AbstractUser):\n    pass\n"
PEOPLE = 'AUTH_USER_MODEL = "people.User"\nINSTALLED_APPS += ["people"]\n'
UNHEARD = "redis://127.0.0.1:1/0"  # nothing listens on port 1


def first_answer() -> list[tuple[str, str]]:
    """The steps to the first answer of a view: those before the dashboard."""
    return STEPS[: next(index for index, (note, _) in enumerate(STEPS) if note == "fetch") + 1]


def test_a_first_answer_takes_at_most_twelve_commands_and_lines() -> None:
    lines = [text for _, block in first_answer() for text in block.splitlines() if text and text != "Hello Ada"]
    assert len(lines) <= 12, lines


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    home = tmp_path_factory.mktemp("yours")
    python = make_environment(home / "env")
    build = ("--no-deps", "--no-index", "--no-build-isolation")
    pip("wheel", *build, "--wheel-dir", str(home / "dist"), str(ROOT))
    pip("--python", python, "install", *build, *map(str, (home / "dist").glob("*.whl")))
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as short:  # the path of a socket has to be short
        directory = home / "shop"
        directory.mkdir()
        environment = own_environment() | {"TMPDIR": short}
        environment["PATH"] = f"{Path(python).parent}{os.pathsep}{environment['PATH']}"
        project = Project(directory, environment, python)
        project.fine("-m", "django", "startproject", "shop", ".")
        for package in ("workers", "pools", "examples", "people", "people/migrations"):
            (directory / package).mkdir()
            (directory / package / "__init__.py").touch()
        (directory / "people/models.py").write_text(MODELS)
        append(directory / "shop/settings.py", PEOPLE)
        project.fine("manage.py", "makemigrations", "people")
        yield project


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(f"\n{text}")


def follow(project: Project, steps: list[tuple[str, str]]) -> None:
    """Do what a reader does with the blocks; those about a running `snakepit up` come later."""
    for note, text in steps:
        what, _, place = note.partition(" shop/")
        if note == "run":
            for command in (row.removeprefix("$ ") for row in text.splitlines()):
                if not command.startswith("pip "):  # the fixture installed the wheel
                    done = subprocess.run(
                        shlex.split(command), cwd=project.directory, env=project.environment, check=False,
                        capture_output=True, text=True, timeout=PATIENCE,
                    )  # fmt: skip
                    assert done.returncode == 0, done.stderr
        elif what == "append to":
            append(project.directory / "shop" / place, text)
        elif what == "write":
            (project.directory / "shop" / place).write_text(text)
        else:
            assert note in ("up", "fetch", "submit"), note


@contextmanager
def up(project: Project, port: int) -> Iterator[str]:
    """`snakepit up` from its first to its last line; yields what it printed until it was ready."""
    started = subprocess.Popen(
        ["snakepit", "up", "--port", str(port)], cwd=project.directory, env=project.environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert started.stdout is not None
        printed = []
        for text in started.stdout:
            printed.append(text)
            if "snakepit status" in text:  # the last line of the welcome
                break
        assert "Snakepit is up" in "".join(printed), "".join(printed)
        yield "".join(printed)
    finally:
        started.send_signal(signal.SIGINT)
        try:
            rest, _ = started.communicate(timeout=PATIENCE)
            print(rest)  # for a test that fails
        finally:
            started.kill()
    assert started.returncode == 0, rest


def get(port: int, path: str) -> str:
    try:
        asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Accept": "text/plain, */*;q=0.1"})
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            text: str = answer.read().decode()
            return text
    except urllib.error.HTTPError as refused:  # with the traceback that the page of an error has
        refused.add_note(refused.read().decode()[:8_000])
        raise


def expected(note: str) -> str:
    """The answer that the page shows below a command."""
    return next(text for one, text in STEPS if one == note).splitlines()[1]


def test_every_line_of_the_page_works_in_a_new_project(shop: Project, valkey_url: str) -> None:
    steps = first_answer()
    follow(shop, steps)
    port = free_port()
    with up(shop, port) as printed:
        assert get(port, "/greet/Ada/") == expected("fetch")
        assert "There is no Celery app shop.celery, so jobs do not run. Add: the file shop/celery.py:" in printed
        assert "The dashboard is not in the URLs of shop.urls. Add: path(" in printed

    follow(shop, STEPS[len(steps) :])
    append(shop.directory / "shop/settings.py", f'CELERY_BROKER_URL = "{UNHEARD}"')
    with up(shop, port) as printed:
        assert "(shop.celery) does not answer" in printed
        assert f"dashboard  http://127.0.0.1:{port}/snakepit/" in printed
        assert "Add:" not in printed
        assert_styled(shop, port)
        assert_a_job_runs(shop)
        doctor = shop.snakepit("doctor").stdout
        assert "all entries of Snakepit are scheduled" in doctor

    append(shop.directory / "shop/settings.py", f'CELERY_BROKER_URL = "{valkey_url}"')
    with up(shop, port) as printed:
        assert f"messages: {valkey_url} (shop.celery)" in printed
        assert_a_job_runs(shop)


def assert_styled(project: Project, port: int) -> None:
    log_in = "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'" + LOG_IN
    page = fetch(port, "/snakepit/", project.fine("-c", log_in).strip())
    assert "greeter" in page
    styles = re.findall(r'href="(/static/snakepit/[^"]+\.css)', page)
    assert styles
    assert all("{" in get(port, style) for style in styles)
    assert all(re.search(r"\b(width|class)=", svg) for svg in re.findall(r"<svg[^>]*>", page))


def assert_a_job_runs(project: Project) -> None:
    command = shlex.split(next(text for note, text in STEPS if note == "submit").splitlines()[0].removeprefix("$ "))
    done = project.snakepit(*command[1:])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == expected("submit")
