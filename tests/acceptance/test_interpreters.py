"""The worker's own tests pass on the other interpreters that a pool may name, and the GIL stays off where it is off.

Each interpreter gets an environment of its own in the repository (`.venv-313`, `.venv-313t`), made once and made
again when what it needs changes. No Django, no pytest plugins: what a worker host has, and pytest.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from pools.broker import errors
from tests.brokers import broker
from tests.conftest import unavailable

ROOT = Path(__file__).resolve().parent.parent.parent
WORKER_TESTS = ROOT / "tests" / "unit" / "workers"
CONFIGURATION = WORKER_TESTS / "plain.ini"
# What the run prints besides pytest's own lines: which GIL there was at its very end.
RUN = """\
import sys, pytest
code = pytest.main(sys.argv[1:])
print("gil:", "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off")
sys.exit(code)
"""


def environment_for(python: str, name: str) -> Path:
    """The interpreter of a ready environment; pip runs only when the requirements or the interpreter changed."""
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = [*needs["worker"], *(line for line in needs["test"] if line.startswith("pytest>="))]
    home = ROOT / name
    stamp = home / "stamp"
    mark = hashlib.sha256("\n".join([os.path.realpath(python), *wanted]).encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != mark:
        shutil.rmtree(home, ignore_errors=True)
        run([python, "-m", "venv", str(home)])
        run([str(home / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted])
        stamp.write_text(mark)
    return home / "bin/python"


def run(command: list[str], **environment: str) -> str:
    # PYTHONPATH and the GIL switch of this run must not reach the other interpreter.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=ROOT, env=inherited | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def worker_tests_on(python: Path) -> str:
    options = ["-c", str(CONFIGURATION), "-p", "no:cacheprovider", "--confcutdir", str(WORKER_TESTS)]
    return run([str(python), "-c", RUN, *options, str(WORKER_TESTS)], PYTHONDONTWRITEBYTECODE="1")


def find_cpython_313() -> str:
    places = [os.environ.get("SNAKEPIT_PYTHON313", ""), *map(str, Path.home().glob(".pyenv/versions/3.13*/bin/python"))]
    # Last, because a shim of that name may be there without an interpreter behind it.
    places.append(shutil.which("python3.13") or "")
    for place in filter(None, places):
        asked = [place, "-c", "import sys; print(sys.version_info[:2], getattr(sys, '_is_gil_enabled', lambda: 1)())"]
        try:
            answer = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
        except OSError:
            continue
        if answer.returncode == 0 and answer.stdout.startswith("(3, 13)"):
            return place
    unavailable("no CPython 3.13 was found: looked at SNAKEPIT_PYTHON313, ~/.pyenv/versions/3.13*/bin/python and PATH")
    raise AssertionError("unreachable")


def find_free_threaded() -> str:
    named = os.environ.get("SNAKEPIT_FREE_THREADED_PYTHON")
    for place in (named, shutil.which("python3.14t"), shutil.which("python3.13t")):
        if place:
            return place
    unavailable("no free-threaded CPython: name one in SNAKEPIT_FREE_THREADED_PYTHON, or have python3.13t on PATH")
    raise AssertionError("unreachable")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_worker_passes_its_tests_on_cpython_313() -> None:
    printed = worker_tests_on(environment_for(find_cpython_313(), ".venv-313"))
    assert " passed" in printed, printed


@pytest.mark.slow
@pytest.mark.freethreaded
@pytest.mark.timeout(600)
def test_the_worker_passes_its_tests_without_a_gil_and_keeps_it_off() -> None:
    printed = worker_tests_on(environment_for(find_free_threaded(), ".venv-313t"))
    assert " passed" in printed, printed
    assert printed.rstrip().endswith("gil: off"), printed


def test_a_pool_without_a_fit_interpreter_is_failed_at_once_says_why_and_leaves_the_others_alone() -> None:
    with broker({"p": {"size": 2, "python": "3.99t"}, "fine": {"size": 1}}) as node:
        node.ready("fine")
        failed = node.until("pool.failed", pool="p", reason="interpreter")
        assert "no Python 3.99t is on this node" in failed["message"]
        row = node.pool("p")
        assert (row["state"], row["reason"]) == ("failed", failed["message"])
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
        assert any("3.99t" in problem for problem in node.status()["node"]["problems"])


@pytest.mark.slow
@pytest.mark.freethreaded
@pytest.mark.timeout(600)
def test_auto_gives_the_thread_profile_an_interpreter_without_a_gil(monkeypatch: pytest.MonkeyPatch) -> None:
    python = environment_for(find_free_threaded(), ".venv-313t")
    monkeypatch.setenv("TEST_VENVS", str(python.parent.parent))
    with broker({"p": {"profile": "thread", "threads": 2, "size": 1, "python": "auto"}}) as node:
        node.ready("p")
        (worker,) = node.status()["workers"]
        assert worker["gil"] == "off"
        assert node.pool("p")["interpreter"].startswith("auto: CPython 3.1")
        assert "free-threaded, GIL off" in node.pool("p")["interpreter"]
