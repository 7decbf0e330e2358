"""The commands of the documents, run as printed: README.md beside a demo, and the Celery app of docs/howto/jobs.md."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.brokers import ROOT
from tests.demo import SNAKEPIT, Demo, demo_running

PATIENCE = 120.0  # a bound, never a wait
README = (ROOT / "README.md").read_text()
JOBS = (ROOT / "docs" / "howto" / "jobs.md").read_text()
# As `manage.py check` demands for several processes that write.
SQLITE = """
DATABASES["default"]["OPTIONS"] = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
}
"""


def code(page: str, kind: str, having: str) -> str:
    """The code block of a page that contains a text."""
    found = [text for text in re.findall(rf"^```{kind}\n(.*?)^```$", page, re.M | re.S) if having in text]
    assert len(found) == 1, f"{len(found)} blocks of {kind} have {having!r}"
    return str(found[0])


def commands(page: str, start: str) -> list[str]:
    """The shell commands of a page that start with a text, without prompt and comment."""
    blocks = re.findall(r"^```console\n(.*?)^```$", page, re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line[2:] for line in lines if line.startswith("$ " + start)]


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with demo_running() as running:
        yield running


def test_there_are_commands_to_run() -> None:
    assert len(commands(README, ".venv/bin/snakepit ")) == 6
    assert len(commands(README, "curl ")) == 1
    assert len(commands(JOBS, "celery ")) == 3


@pytest.mark.parametrize("command", commands(README, ".venv/bin/snakepit "))
def test_a_command_of_the_readme_works_beside_the_demo(demo: Demo, command: str) -> None:
    done = demo.run(*shlex.split(command)[1:])
    # The doctor also reports what other processes of this machine left behind.
    fine = (0, 1) if command.endswith(" doctor") else (0,)
    assert done.returncode in fine, done.stdout + done.stderr
    assert "Error" not in done.stderr


def test_the_curl_line_of_the_readme_answers(demo: Demo) -> None:
    key = demo.line(r"Authorization: Bearer (snk_[\w-]+)")[1]
    command = commands(README, "curl ")[0].replace("http://127.0.0.1:8000", demo.url)
    done = subprocess.run(
        command, shell=True, env={**os.environ, "SNAKEPIT_KEY": key}, capture_output=True, text=True, timeout=PATIENCE,
        check=True,
    )  # fmt: skip
    assert '"result":78498' in done.stdout


def test_the_python_block_of_the_readme_runs_beside_the_demo(demo: Demo) -> None:
    block = code(README, "python", "connect()")
    environment = {**demo.environment, "DJANGO_SETTINGS_MODULE": "snakepit.site.settings"}
    done = subprocess.run(
        [sys.executable, "-c", block],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


class Service:
    """A process of the project in the background, and its output."""

    def __init__(self, directory: Path, environment: dict[str, str], *command: str) -> None:
        self.process = subprocess.Popen(
            command, cwd=directory, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as output:
            for line in output:
                with self._news:
                    self.lines.append(line)
                    self._news.notify_all()

    def wait_for(self, pattern: str) -> None:
        def found() -> bool:
            return any(re.search(pattern, line) for line in self.lines)

        with self._news:
            assert self._news.wait_for(found, PATIENCE), f"no line like {pattern!r} in:\n{''.join(self.lines)}"

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self._reader.join(PATIENCE)


@contextmanager
def project(directory: Path, transport: str) -> Iterator[dict[str, str]]:
    """The project `shop` with the settings of the README and the Celery app of the page; yields its environment."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SNAKEPIT_", "DJANGO_"))}
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as short:  # socket paths must be short
        environment = {
            **kept, "TMPDIR": short, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1",
            "CELERY_BROKER_URL": transport,
        }  # fmt: skip
        run(directory, environment, sys.executable, "-m", "django", "startproject", "shop", ".")
        printed = code(README, "python", "INSTALLED_APPS").splitlines()
        lines = [line for line in printed if not line.endswith("# your apps")]
        with (directory / "shop" / "settings.py").open("a") as settings:
            settings.write("\n".join(lines) + SQLITE + code(JOBS, "python", "CELERY_BROKER_URL ="))
        (directory / "shop" / "celery.py").write_text(code(JOBS, "python", "# shop/celery.py"))
        for command in commands(README, "snakepit new-adapter "):
            run(directory, environment, *SNAKEPIT, *shlex.split(command, comments=True)[1:])
        run(directory, environment, sys.executable, "manage.py", "migrate", "-v", "0")
        yield environment


def run(directory: Path, environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_celery_app_of_the_page_runs_a_job_and_ticks(tmp_path: Path, valkey_url: str) -> None:
    with project(tmp_path, valkey_url) as environment, ExitStack() as ends:

        def start(*command: str) -> Service:
            service = Service(tmp_path, environment, *command)
            ends.callback(service.stop)
            return service

        broker = start(*SNAKEPIT, "broker")
        # test_jobs.py runs the one with another scheduler.
        shown = [one for one in commands(JOBS, "celery ") if "--scheduler" not in one]
        services = [start(sys.executable, "-m", *shlex.split(one), "--loglevel=INFO") for one in shown]
        worker, beat = services
        broker.wait_for(r"ready .* after its start")
        worker.wait_for(r"\bready\.")

        called = run(tmp_path, environment, *SNAKEPIT, *shlex.split(commands(README, "snakepit call greeter")[0])[1:])
        assert called == "Hello Ada\n"
        ended = run(tmp_path, environment, *SNAKEPIT, "submit", "greeter", "greet", '{"name": "Ada"}', "--wait")
        assert "Hello Ada" in ended

        beat.wait_for(r"Sending due task snakepit\.sweep")
        worker.wait_for(r"Task snakepit\.sweep\[.*succeeded")
