"""Signals that the program which starts a broker ignores or blocks, and streams that it closes, do no harm.

A script's background job ignores SIGINT, `nohup` ignores SIGHUP, some supervisors block signals or close the standard
streams. All of it would pass through exec() to the broker, to its workers, and to what a command starts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from snakepit.pools.broker.errors import BrokerUnreachable
from snakepit.pools.client import connect
from tests.brokers import PATIENCE, ROOT, assert_nothing_left

SETTINGS = """
from snakepit.site.settings import *
SNAKEPIT = {
    "RUNTIME_DIR": {runtime!r},
    "WORKER_PATH": [{home!r}],
    "ADAPTERS": {"looks": "looks.Looks"},
    "POOLS": {"looks": {"adapter": "looks", "size": 1, "queue_timeout": 120.0}},
}
"""
ADAPTER = """
import os, subprocess
from snakepit import Adapter, command

class Looks(Adapter):
    @command
    def signals(self) -> dict[str, str]:
        with open("/proc/self/status") as own:
            child = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True)
            return {"worker": own.read(), "child": child.stdout, "broker": open(f"/proc/{os.getppid()}/status").read()}
"""
START = """
import os, signal, sys
for number in {ignored!r}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {blocked!r})
for descriptor in {closed!r}:
    os.close(descriptor)
os.execv(sys.executable, [sys.executable, "-m", "snakepit.pools.cli", *sys.argv[1:]])
"""
IGNORED = [signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGALRM]
BLOCKED = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1]
OF_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}  # every Python process ignores these two
# glibc keeps 32 and 33 for its threads: no program can change them through it, and some supervisors pass 32 on ignored.
OF_C_LIBRARY = {32, 33}
BROKER = ("broker",)
UP = ("up", "--no-web", "--no-celery")


@dataclass
class Site:
    """A project with one pool, and its broker's client."""

    home: Path
    environment: dict[str, str]
    instance: str = ""

    @property
    def runtime(self) -> Path:
        return self.home / "run"

    @contextmanager
    def started(self, *command: str, **inherited: Any) -> Iterator[subprocess.Popen[bytes]]:
        """A command of ours as another program starts it; at the end of the block it must be gone, and all of it."""
        given = {name: [int(one) for one in inherited.get(name, ())] for name in ("ignored", "blocked", "closed")}
        script = START.format(**given)
        with (self.home / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", script, *command],
                cwd=self.home, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE)
        assert_nothing_left(self.instance)

    def signals(self, process: subprocess.Popen[bytes]) -> dict[str, str]:
        """What the command sees. A broker gives no other sign of readiness, so this asks again and again."""
        client = connect(str(self.runtime / "broker.sock"))
        end = time.monotonic() + PATIENCE
        try:
            while True:
                try:
                    found: dict[str, str] = client.call("looks", "signals", timeout=PATIENCE)
                    self.instance = json.loads((self.runtime / "instance").read_text())["instance"]
                    return found
                except BrokerUnreachable:
                    assert process.poll() is None, (self.home / "log").read_text()
                    assert time.monotonic() < end, (self.home / "log").read_text()
                    time.sleep(0.05)
        finally:
            client.close()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as short:  # the path of a socket has to be short
        home = Path(short)
        text = SETTINGS.replace("{runtime!r}", repr(str(home / "run"))).replace("{home!r}", repr(str(home)))
        (home / "looked.py").write_text(text)
        (home / "looks.py").write_text(ADAPTER)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SNAKEPIT_", "DJANGO_"))}
        environment = {
            **kept, "PYTHONPATH": f"{home}:{ROOT}", "DJANGO_SETTINGS_MODULE": "looked",
            "SNAKEPIT_STATE_DIR": str(home / "state"), "SNAKEPIT_DEMO": "0",
        }  # fmt: skip
        migrate = [sys.executable, "-m", "django", "migrate", "-v", "0"]
        subprocess.run(migrate, cwd=home, env=environment, check=True, timeout=120, capture_output=True)
        yield Site(home, environment)


def numbers(status: str, field: str) -> set[int]:
    """The signals in one mask of a /proc/PID/status."""
    mask = int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{field}:")), 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def assert_clean(found: dict[str, str]) -> None:
    for name in ("broker", "worker"):
        assert numbers(found[name], "SigIgn") - OF_C_LIBRARY <= OF_PYTHON, name
    assert numbers(found["child"], "SigIgn") - OF_C_LIBRARY == set()
    for name, status in found.items():
        assert numbers(status, "SigBlk") - OF_C_LIBRARY == set(), name


@pytest.mark.parametrize("command", [BROKER, UP], ids=["broker", "up"])
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("how", ["ignored", "blocked"])
def test_signals_are_at_their_defaults_whatever_is_inherited(
    site: Site, command: tuple[str, ...], end: int, how: str
) -> None:
    inherited = {"ignored": IGNORED} if how == "ignored" else {"blocked": BLOCKED}
    with site.started(*command, **inherited) as process:
        assert_clean(site.signals(process))
        process.send_signal(end)
        assert process.wait(PATIENCE) == 0, (site.home / "log").read_text()


@pytest.mark.parametrize("command", [BROKER, UP], ids=["broker", "up"])
def test_a_terminal_that_hangs_up_does_not_end_what_nohup_started(site: Site, command: tuple[str, ...]) -> None:
    with site.started(*command, ignored=[signal.SIGHUP]) as process:
        assert_clean(site.signals(process))
        process.send_signal(signal.SIGHUP)
        assert_clean(site.signals(process))
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, (site.home / "log").read_text()


@pytest.mark.parametrize("command", [BROKER, UP], ids=["broker", "up"])
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_closed_standard_streams_do_not_end_a_broker(
    site: Site, command: tuple[str, ...], closed: tuple[int, ...]
) -> None:
    with site.started(*command, closed=closed) as process:
        assert_clean(site.signals(process))
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, (site.home / "log").read_text()


def test_signals_that_daemons_get_do_not_end_a_broker_and_a_hang_up_stops_it(site: Site) -> None:
    with site.started(*BROKER) as process:
        site.signals(process)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGWINCH):
            process.send_signal(number)
        assert_clean(site.signals(process))
        process.send_signal(signal.SIGHUP)
        assert process.wait(PATIENCE) == 0
        log = (site.home / "log").read_text()
        assert log.count("Stack (most recent call first)") + log.count("Current thread") >= 1, log
        assert "stops; calls have" in log
