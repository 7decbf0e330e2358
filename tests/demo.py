"""A running `snakepit up --demo`: what it printed, its port, and the command line beside it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.brokers import PATIENCE, ROOT
from tests.ports import free_port

START = 400.0  # seconds: a bound for six programs that start together on a machine under load
UNANSWERED = 3  # exit code of a command that the broker did not answer in time: it may, after a moment
SNAKEPIT = [sys.executable, "-m", "snakepit.pools.cli"]


class Demo:
    """A running `snakepit up --demo` and what it printed."""

    def __init__(self, home: Path, more: dict[str, str] | None = None) -> None:
        self.port = free_port()
        self.runtime = home / "run"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SNAKEPIT_", "DJANGO_", "PORT"))}
        self.environment = {
            **kept,
            "SNAKEPIT_STATE_DIR": str(home / "state"),
            "SNAKEPIT_RUNTIME_DIR": str(self.runtime),
            "NO_COLOR": "1",
            **(more or {}),
        }
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [*SNAKEPIT, "up", "--demo", "--port", str(self.port)],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
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
                    self.lines.append(line.rstrip("\n"))
                    self._news.notify_all()

    def interrupt(self) -> int:
        """Ctrl-C. Returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(PATIENCE)
        self._reader.join(10)
        return code

    def line(self, pattern: str) -> re.Match[str]:
        """The first printed line that matches, as soon as it is there."""

        def found() -> re.Match[str] | None:
            return next((match for line in self.lines if (match := re.search(pattern, line))), None)

        with self._news:
            match = self._news.wait_for(found, timeout=START)
        assert match, f"no line like {pattern!r} in:\n" + "\n".join(self.lines)
        return match

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command; again while the broker, which runs, does not answer in time."""
        command, end = [*SNAKEPIT, *arguments], time.monotonic() + PATIENCE
        while True:
            done = subprocess.run(
                command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
            if done.returncode != UNANSWERED or time.monotonic() > end:
                return done

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def demo_running(**environment: str) -> Iterator[Demo]:
    """The whole demo in a directory of its own, until the end of the block. `environment` is added to its own."""
    with tempfile.TemporaryDirectory(prefix="snakepit-up-", dir="/tmp") as home:
        running = Demo(Path(home), environment)
        try:
            running.line(r"^\s+curl ")
            yield running
        finally:
            running.interrupt()
