"""Imports a pool's adapter with the pool's interpreter, in a process of its own with a time limit.

Never in this process: the import runs the adapter's module, which may do anything. The child has the environment of
a worker, but no socket; it creates no adapter object and writes no byte code.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import snakepit
from snakepit.pools.adapters.processes.launcher import ENVIRONMENT
from snakepit.pools.diagnostics.facts import AdapterFacts

PATIENCE = 30.0  # seconds for one answer; importing a model library takes long
MOST_OUTPUT = 256 * 1024  # bytes that are read of an answer
# Only this package, from this installation: other packages may be compiled for another interpreter.
DESCRIBE = """\
import importlib.util, json, os, sys
place, path = sys.argv[1:]
spec = importlib.util.spec_from_file_location("snakepit", os.path.join(place, "__init__.py"),
                                              submodule_search_locations=[place])
module = sys.modules["snakepit"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from snakepit.workers.schema.describe import describe
try:
    found = describe(path)
    answer = {"thread_safe": found["thread_safe"], "commands": len(found["commands"])}
except BaseException as error:
    answer = {"error": f"{type(error).__name__}: {error}"}
print("\\n" + json.dumps(answer), flush=True)
os._exit(0)
"""


class NoAnswer(Exception):
    """The child gave no answer; the message has the reason."""


def adapter(
    python: str, path: str, place: tuple[str, ...], env: Mapping[str, str], more: tuple[str, ...]
) -> AdapterFacts:
    """Import an adapter as a worker would; `place` is the workers' sys.path, `more` are variables that may pass."""
    package = str(Path(snakepit.__file__).parent)
    try:
        found = ask(python or sys.executable, DESCRIBE, (package, path), place=place, env=env, more=more)
    except NoAnswer as why:
        return AdapterFacts(path=path, error=str(why))
    if "error" in found:
        return AdapterFacts(path=path, error=str(found["error"])[:2000])
    return AdapterFacts(path=path, thread_safe=bool(found["thread_safe"]), commands=int(found["commands"]))


def ask(
    python: str, script: str, words: tuple[str, ...], *, place: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None, more: tuple[str, ...] = (), patience: float = PATIENCE,
) -> Any:  # fmt: skip
    """Run a script in an interpreter and read the JSON on its last line. Raises NoAnswer."""
    names = (*ENVIRONMENT, *more)
    passed = {key: value for key, value in os.environ.items() if any(fnmatchcase(key, name) for name in names)}
    passed |= {"PYTHONPATH": os.pathsep.join(place), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"} | dict(
        env or {}
    )
    try:
        child = subprocess.Popen(
            [python, "-c", script, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=passed,
            cwd=place[0] if place else None,
            start_new_session=True,
        )
    except OSError as error:
        raise NoAnswer(f"cannot be run: {error.strerror}") from error
    try:
        output, _ = child.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"no answer within {patience:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)  # and all processes that an import has started
        child.communicate()
    lines = output[-MOST_OUTPUT:].decode("utf-8", "replace").strip().splitlines()
    with contextlib.suppress(ValueError, IndexError):
        return json.loads(lines[-1])
    ended = f"signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
    raise NoAnswer(f"{ended}: {lines[-1] if lines else 'nothing was printed'}")
