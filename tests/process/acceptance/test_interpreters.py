"""The worker's own tests pass on the other interpreters that a pool may name, and the GIL stays off where it is off.

And a pool's `python`: what becomes of one that cannot be had, and what `auto` gives.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from snakepit.pools.broker import errors
from tests.brokers import broker
from tests.interpreters import ROOT, environment_for, find_cpython_313, find_free_threaded, run

TESTS = ROOT / "tests"
WORKER_TESTS = (str(TESTS / "unit" / "workers"), str(TESTS / "process" / "workers"))
CONFIGURATION = TESTS / "unit" / "workers" / "plain.ini"
# What the run prints besides pytest's own lines: which GIL there was at its very end.
RUN = """\
import sys, pytest
code = pytest.main(sys.argv[1:])
print("gil:", "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off")
sys.exit(code)
"""


def worker_tests_on(python: Path) -> str:
    options = ["-c", str(CONFIGURATION), "-p", "no:cacheprovider", "--confcutdir", str(TESTS)]
    return run([str(python), "-c", RUN, *options, *WORKER_TESTS], PYTHONDONTWRITEBYTECODE="1")


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_the_worker_passes_its_tests_on_cpython_313() -> None:
    printed = worker_tests_on(environment_for(find_cpython_313(), ".venv-313"))
    assert " passed" in printed, printed


@pytest.mark.slow
@pytest.mark.freethreaded
@pytest.mark.timeout(1000)
def test_the_worker_passes_its_tests_without_a_gil_and_keeps_it_off() -> None:
    printed = worker_tests_on(environment_for(find_free_threaded(), ".venv-313t"))
    assert " passed" in printed, printed
    assert printed.rstrip().endswith("gil: off"), printed


def test_a_pool_without_a_fit_interpreter_fails_immediately_with_the_reason_and_alone() -> None:
    with broker({"p": {"size": 2, "python": "3.99t"}, "fine": {"size": 1}}) as node:
        node.ready("fine")
        failed = node.until("pool.failed", pool="p", reason="interpreter")
        assert "no Python 3.99t is on this node" in failed["message"]
        row = node.pool("p")
        assert (row.state, row.reason) == ("failed", failed["message"])
        with pytest.raises(errors.PoolFailed, match=r"no Python 3\.99t"):
            node.client.call("p", "echo", value=1)
        assert node.told("worker.died") == []  # not even one start was tried
        node.define({"p": {"size": 1}, "fine": {"size": 1}})
        node.ready("p")
        assert node.client.call("p", "echo", value=1) == 1


def test_a_running_pool_keeps_its_workers_when_its_new_interpreter_cannot_be_had() -> None:
    with broker({"p": {"size": 1}}) as node:
        node.ready("p")
        pids = node.pids("p")
        node.define({"p": {"size": 1, "python": "3.99t"}})
        assert "no Python 3.99t" in node.until("pool.invalid", pool="p")["message"]
        assert node.client.call("p", "pid") == pids[0]
        assert any("3.99t" in problem for problem in node.status().node.problems)


@pytest.mark.slow
@pytest.mark.freethreaded
@pytest.mark.timeout(1000)
def test_auto_gives_the_thread_profile_an_interpreter_without_a_gil(monkeypatch: pytest.MonkeyPatch) -> None:
    python = environment_for(find_free_threaded(), ".venv-313t")
    monkeypatch.setenv("TEST_VENVS", str(python.parent.parent))
    with broker({"p": {"profile": "thread", "threads": 2, "size": 1, "python": "auto"}}) as node:
        node.ready("p")
        (worker,) = node.status().workers
        assert worker.gil == "off"
        assert node.pool("p").interpreter.startswith("auto: CPython 3.1")
        assert "free-threaded, GIL off" in node.pool("p").interpreter
