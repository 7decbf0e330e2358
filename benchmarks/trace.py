"""Which of our files a call, a sweep and a job pass, in each process: `python -m benchmarks.trace [--call]`.

A real broker with one warm worker is asked once, and every call of one of our functions is noted in all three
processes (`tracing/sitecustomize.py`). A hop is a call in another file than the one before. The goal for a lone call:
at most 30 different files, at most 10 of them in the broker's process. The exit code is 1 if it is not met. `--call`
traces nothing else.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from benchmarks.node import ENDLESS, Fixed, Silent
from benchmarks.tracing.sitecustomize import start
from benchmarks.work import SMALL
from snakepit.pools.adapters.node import NodeConfig, run_node
from snakepit.pools.broker import broker as broker_core
from snakepit.pools.broker import watch
from snakepit.pools.client import Client, connect

ROOT = Path(__file__).parents[1]
TRACING = Path(__file__).with_name("tracing")
POOL = {"name": "work", "path": "benchmarks.work.Work", "size": 1, "preload": "off", **ENDLESS}
ROUNDS = 5  # of which the one with the fewest calls counts: the others met housekeeping
QUIET = 0.3  # seconds after the answer for what the broker does behind it
MOST_FILES, MOST_BROKER_FILES = 30, 10  # of a lone call: different ones, and all in the broker's process
HOUR = 3600.0  # seconds
ROLES = ("client", "broker", "worker")


@dataclass(slots=True)
class Passed:
    """What one process ran."""

    calls: list[tuple[str, str]] = field(default_factory=list)  # file and function, in order

    @property
    def files(self) -> dict[str, list[str]]:
        """Its files in the order in which they were first passed, each with its functions."""
        files: dict[str, list[str]] = {}
        for file, function in self.calls:
            if function not in files.setdefault(file, []):
                files[file].append(function)
        return files

    @property
    def hops(self) -> int:
        return sum(before != after for (before, _), (after, _) in pairwise(self.calls))


def read(directory: Path, begin: int, end: int) -> dict[str, Passed]:
    """What every process ran between two moments."""
    passed = {role: Passed() for role in ROLES}
    for log in directory.iterdir():
        for line in log.read_text().splitlines():
            at, file, function = line.split(" ", 2)
            if begin <= int(at) <= end:
                passed[log.name.partition("-")[0]].calls.append((file, function))
    return passed


def trace(directory: Path, action: Callable[[], object]) -> dict[str, Passed]:
    """Run an action several times; what the quietest round passed."""
    rounds = []
    for _ in range(ROUNDS):
        begin = time.monotonic_ns()
        action()
        answered = time.monotonic_ns()
        time.sleep(QUIET)
        found = read(directory, begin, time.monotonic_ns())
        found["client"] = read(directory, begin, answered)["client"]
        rounds.append(found)
    return min(rounds, key=lambda found: sum(len(passed.calls) for passed in found.values()))


def different(found: dict[str, Passed]) -> int:
    """How many different files all processes passed."""
    return len({file for passed in found.values() for file in passed.files})


def judge(call: dict[str, Passed]) -> bool:
    """Print whether a lone call passes no more files than it may."""
    files, of_broker = different(call), len(call["broker"].files)
    is_met = files <= MOST_FILES and of_broker <= MOST_BROKER_FILES
    print(f"\nA lone call: {files} different files, at most {MOST_FILES}; ", end="")
    print(f"{of_broker} of them in the broker, at most {MOST_BROKER_FILES}: {'met' if is_met else 'not met'}.")
    return is_met


def show(title: str, found: dict[str, Passed]) -> None:
    print(f"\n{title}")
    for role, passed in found.items():
        print(f"  {role}: {len(passed.files)} files, {passed.hops} hops")
        for file, functions in passed.files.items():
            print(f"    {file}: {', '.join(functions)}")
    files = sum(len(passed.files) for passed in found.values())
    called = sum(len(passed.calls) for passed in found.values())
    hops = sum(passed.hops for passed in found.values())
    print(f"  all: {files} files ({different(found)} different ones), {hops} hops, {called} functions called")


@contextmanager
def serving(home: Path) -> Iterator[Client]:
    """A traced broker whose worker has answered a call."""
    command = [sys.executable, "-m", "benchmarks.trace", "--broker", str(home / "run")]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{TRACING}{os.pathsep}{ROOT}",
        "SNAKEPIT_TRACE": str(home / "trace"),
        "SNAKEPIT_EVENT_LOOP": "asyncio",
    }
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as broker:
        try:
            assert broker.stdout
            broker.stdout.readline()
            with connect(str(home / "run" / "broker.sock")) as client:
                for _ in range(20):
                    client.call("work", "echo", {"value": SMALL})
                yield client
        finally:
            broker.terminate()


def job_body(home: Path) -> Callable[[], object]:
    """The body of the Celery task for a new job each time, with a project's settings and a database of its own."""
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "benchmarks.site.settings",
        "SNAKEPIT_STATE_DIR": str(home / "state"),
        "SNAKEPIT_RUNTIME_DIR": str(home / "run"),
        "SNAKEPIT_CELERY_URL": "memory://",
    }
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from snakepit.pools.jobs import runner, submission

    waiting = [str(submission.submit("work", "echo", {"value": SMALL}).pk) for _ in range(ROUNDS + 1)]
    runner.run_one(waiting.pop())
    return lambda: runner.run_one(waiting.pop())


def main(*, call_only: bool) -> bool:
    with tempfile.TemporaryDirectory(prefix="snakepit-trace-") as name:
        home, directory = Path(name), Path(name, "trace")
        directory.mkdir()
        start(str(directory))
        with serving(home) as client:
            call = trace(directory, lambda: client.call("work", "echo", {"value": SMALL}))
            show("A lone call", call)
            if not call_only:
                show("A sweep", trace(directory, lambda: client.sweep("beat", 15.0)))
                show("A job (from the task's body on)", trace(directory, job_body(home)))
        sys.setprofile(None)
    return judge(call)


def broker(directory: str) -> None:
    # What the broker does by its own clock would count for the call beside it.
    broker_core.APPLY_EVERY = watch.CHECK_EVERY = HOUR
    config = NodeConfig(
        runtime=Path(directory),
        definitions=Fixed([POOL]),
        recorder=Silent(),
        name="trace",
        worker_path=(str(TRACING), str(ROOT)),
        worker_env=("SNAKEPIT_TRACE",),
    )
    run_node(config, lambda broker: print("listening", flush=True))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--broker"]:
        broker(sys.argv[2])
    else:
        sys.exit(not main(call_only="--call" in sys.argv))
