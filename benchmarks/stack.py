"""A whole project started by `snakepit up`, with the site of the benchmarks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import usage

ROOT = Path(__file__).parents[1]
PROGRAMS = {"broker": b"snakepit.pools.cli", "beat": b"beat", "celery": b"celery", "web": b"uvicorn"}
MAKE_KEY = """
from django.contrib.auth import get_user_model
from snakepit.pools.models import ApiKey
owner = get_user_model().objects.create_superuser("bench")
print(ApiKey.create(name="bench", owner=owner, scopes=("run", "view", "operate", "jobs", "configure"))[1])
"""


@dataclass(frozen=True, slots=True)
class Stack:
    port: int
    environment: Mapping[str, str]
    pid: int  # of `snakepit up`
    log: Path  # warnings and errors of all programs

    def programs(self) -> dict[str, list[int]]:
        """The processes of each program, by name; workers are descendants of the broker."""
        found: dict[str, list[int]] = {}
        for child in usage.children(self.pid, deep=False):
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            name = next((name for name, word in PROGRAMS.items() if word in words), "messages")
            found[name] = [child]
            if name == "broker":
                found["workers"] = usage.children(child)
        return found

    def key(self) -> str:
        """The secret of a new API key."""
        command = [sys.executable, "manage.py", "shell", "-v", "0", "-c", MAKE_KEY]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, check=True, capture_output=True, text=True)
        return done.stdout.strip().splitlines()[-1]


@contextmanager
def running(more: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """A stack whose pool has responded over HTTP. `more`: variables of its environment."""
    with tempfile.TemporaryDirectory(prefix="snakepit-bench-") as home, socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("SNAKEPIT_", "DJANGO_"))},
            "DJANGO_SETTINGS_MODULE": "benchmarks.site.settings",
            "SNAKEPIT_STATE_DIR": f"{home}/state",
            "SNAKEPIT_RUNTIME_DIR": f"{home}/run",
            "SNAKEPIT_LOG_LEVEL": "warning",
            **(more or {}),
        }
        command = [sys.executable, "-m", "snakepit.pools.cli", "up", "--port", str(port), "--log-level", "warning"]
        log = Path(home, "log")
        with log.open("wb") as out, subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out) as up:
            try:
                _wait_until_ready(up, port)
                yield Stack(port, environment, up.pid, log)
            finally:
                up.terminate()


def _wait_until_ready(up: subprocess.Popen[bytes], port: int) -> None:
    while up.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/ready", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise RuntimeError("`snakepit up` ended before it was ready")
