"""A run of the tests: nothing outlives it, however it ends, and it does not depend on how it is started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import guardian
from tests.brokers import PATIENCE, ROOT, wait_gone
from tests.conftest import unavailable
from tests.process.browser import chromium

LINUX = sys.platform.startswith("linux")
DYING = Path(__file__).with_name("dying_run.py")
IGNORING = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
    signal.signal(number, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[1:]])
"""
NEEDS_SIGINT = "tests/process/contract/test_client.py::test_an_interrupt_cancels_the_call_that_waits"


def descendants(pid: int) -> dict[int, str]:
    """All processes below one, with their names."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            name = Path(f"/proc/{child}/comm").read_text().strip()
            found |= {int(child): name, **descendants(int(child))}
    return found


def of_run(token: str, directory: str, pid: int) -> dict[int, str]:
    """All processes of a run: its own, and the workers below, which get another environment."""
    found = descendants(pid)
    for member in guardian.members(token, directory):
        found |= {member: Path(f"/proc/{member}/comm").read_text().strip(), **descendants(member)}
    return found


@pytest.mark.postgres
@pytest.mark.browser
@pytest.mark.skipif(not LINUX, reason="the guardian needs /proc and pidfds")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSEGV], ids=lambda end: end.name)
def test_a_run_that_is_killed_leaves_no_server_browser_or_demo(end: signal.Signals) -> None:
    try:
        chromium.program()
    except chromium.Missing as missing:
        unavailable(str(missing))
    with tempfile.TemporaryDirectory(prefix="run-", dir="/tmp") as home:
        command = [sys.executable, "-X", "faulthandler", "-m", "pytest", "-s", "-q", "-p", "no:cacheprovider"]
        with (Path(home) / "errors").open("wb") as errors:
            run = subprocess.Popen(
                [*command, str(DYING)], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                text=True, start_new_session=True, env={**os.environ, "TMPDIR": home},
            )  # fmt: skip
        assert run.stdout
        try:
            lines = iter(run.stdout)
            words = next((line.split() for line in lines if "token " in line), [])
            assert words, (Path(home) / "errors").read_text()
            directory = Path(words[-1])
            started = of_run(words[-2], words[-1], run.pid)
        finally:
            run.send_signal(end)
            run.wait(PATIENCE)
            run.stdout.close()
        for name in ("postgres", "valkey-server", "chrom", "python"):
            assert name in " ".join(started.values()), started
        left = {pid: name for pid, name in started.items() if not wait_gone(pid, PATIENCE)}
        assert left == {}
        assert not directory.exists()


def test_a_run_whose_starter_ignores_signals_passes() -> None:
    # As in `nohup make test &`, in a background job of a script, and on some CI runners.
    command = [sys.executable, "-c", IGNORING, "-q", "-p", "no:cacheprovider", NEEDS_SIGINT]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
