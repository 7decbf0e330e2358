"""A run of pytest that starts all kinds of servers and then waits to be killed; see test_runs.py."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from pathlib import Path

from tests import guardian, services
from tests.brokers import broker
from tests.demo import Demo
from tests.process.browser.chromium import program


def test_all_that_a_run_starts() -> None:
    # `snakepit up` is still starting its own servers when the run is killed.
    Demo(Path(tempfile.mkdtemp(prefix="up-", dir=guardian.directory())))
    browser = [program(), "--headless", "--no-sandbox", "--disable-gpu", "about:blank"]
    subprocess.Popen(browser, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with services.postgres(), services.valkey(), broker({"pool": {"size": 1}}) as node:
        node.ready("pool")
        print("token", os.environ[guardian.VARIABLE], guardian.directory(), flush=True)
        signal.pause()
        os._exit(1)
