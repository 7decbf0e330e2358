"""A project of one's own, as `startproject` makes it, with the lines of the README: what a stranger does first."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.brokers import ROOT

pytestmark = pytest.mark.timeout(180)

LINES = """
INSTALLED_APPS += ["ninja", "snakepit.pools"]
SNAKEPIT = {
    "ADAPTERS": {"greeter": "greeter.Greeter"},
    "POOLS": {"greeter": {"adapter": "greeter", "size": 1}},
}
"""


@dataclass
class Project:
    directory: Path
    environment: dict[str, str]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    def snakepit(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "snakepit.pools.cli", *arguments)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    mine = {name: text for name, text in os.environ.items() if not name.startswith(("SNAKEPIT_", "DJANGO_"))}
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as short:  # the path of a socket has to be short
        found = Project(tmp_path, mine | {"TMPDIR": short, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"})
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


def test_a_strangers_broker_says_what_lacks_and_where_it_is_and_leaves_nothing(project: Project) -> None:
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
        assert 'not sent: no Celery app found. Jobs need one, calls do not: set SNAKEPIT["CELERY_APP"]' in (
            submitted.stderr
        )
    finally:
        broker.send_signal(signal.SIGINT)
        rest, _ = broker.communicate(timeout=60)
    assert broker.returncode == 0, rest
    gone = project.snakepit("status")
    assert (gone.returncode, "start it with: snakepit broker" in gone.stderr) == (3, True)
