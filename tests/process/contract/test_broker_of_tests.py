"""The broker that tests start must not outlive them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.brokers import PATIENCE, ROOT, wait_gone

LINUX = sys.platform.startswith("linux")
ABORTED = """
import os, signal
from tests.brokers import broker
with broker({"pool": {"size": 1}}) as node:
    node.ready("pool")
    print(node.process.pid, *node.pids(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not LINUX, reason="only Linux ties a process's life to its parent's")
def test_a_killed_run_of_the_tests_leaves_no_broker_and_no_worker() -> None:
    aborted = subprocess.run(
        [sys.executable, "-c", ABORTED], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert aborted.returncode == -signal.SIGKILL, aborted.stderr
    pids = [int(pid) for pid in aborted.stdout.split()]
    assert len(pids) == 2
    left = [pid for pid in pids if not wait_gone(pid, PATIENCE)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left
