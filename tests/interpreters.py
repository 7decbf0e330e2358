"""Other interpreters of this machine that tests run on, each with an environment in the repository.

`.venv-313` and `.venv-313t` are made once, and again when their requirements change. They have what a worker needs, and
pytest without plugins; they have no Django.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

from tests.conftest import unavailable

ROOT = Path(__file__).resolve().parent.parent


def environment_for(python: str, name: str) -> Path:
    """The interpreter of a ready environment. pip runs only after the requirements or the interpreter changed."""
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = [*needs["worker"], *(line for line in needs["test"] if line.startswith("pytest>="))]
    home = ROOT / name
    stamp = home / "stamp"
    mark = hashlib.sha256("\n".join([os.path.realpath(python), *wanted]).encode()).hexdigest()
    with open(ROOT / f"{name}.lock", "w") as lock:  # the processes of one run share it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != mark:
            shutil.rmtree(home, ignore_errors=True)
            run([python, "-m", "venv", str(home)])
            run([str(home / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted])
            stamp.write_text(mark)
    return home / "bin/python"


def run(command: list[str], **environment: str) -> str:
    # PYTHONPATH and the GIL switch of this run are not for the other interpreter.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=ROOT, env=inherited | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def find_cpython_313() -> str:
    places = [os.environ.get("SNAKEPIT_PYTHON313", ""), *map(str, Path.home().glob(".pyenv/versions/3.13*/bin/python"))]
    # Last, because a shim of that name may exist without an interpreter.
    places.append(shutil.which("python3.13") or "")
    for place in filter(None, places):
        asked = [place, "-c", "import sys; print(sys.version_info[:2], getattr(sys, '_is_gil_enabled', lambda: 1)())"]
        try:
            answer = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=False)
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


def free_threaded() -> str:
    """The interpreter of an environment without a GIL that can run workers."""
    return str(environment_for(find_free_threaded(), ".venv-313t"))
