"""Thread-profile pools on an interpreter without a GIL: that threads run at once, what ends that, and storms.

Also on this interpreter's own GIL, for what must be told there.
"""

from __future__ import annotations

import os
import platform
import random
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from snakepit.pools.broker import errors
from snakepit.pools.broker.status import PoolStatus
from snakepit.pools.cgroups import usable_cores
from tests.brokers import PATIENCE, RunningBroker, broker, eventually
from tests.conftest import unavailable
from tests.interpreters import free_threaded

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
SLOTS = 4
THREADS = {"profile": "thread", "threads": SLOTS, "size": 1, "cancel_grace": PATIENCE}
LONG = 60.0  # seconds; a call ends long before
TIMES = 20  # that a token comes to each of two calls

SOURCE = """\
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "%(name)s", 0, 0, 0};
PyMODINIT_FUNC PyInit_%(name)s(void) { return PyModule_Create(&module); }
"""


@pytest.fixture(scope="module")
def python() -> str:
    return free_threaded()


@pytest.fixture(scope="module")
def extension(python: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Builds an extension module that does not say that it can do without the GIL; gives its directory."""

    def build(name: str) -> str:
        if shutil.which("gcc") is None:
            unavailable("gcc builds the extension module of this test")
        home = tmp_path_factory.mktemp(name)
        ask = "import sysconfig as s; print(s.get_path('include')); print(s.get_config_var('EXT_SUFFIX'))"
        include, suffix = subprocess.check_output([python, "-c", ask], text=True).split()
        source = home / "source.c"
        source.write_text(SOURCE % {"name": name})
        target = home / f"{name}{suffix}"
        subprocess.run(["gcc", "-shared", "-fPIC", f"-I{include}", str(source), "-o", str(target)], check=True)
        return str(home)

    return build


def exchange(node: RunningBroker, pool: str, seconds: float, interval: float) -> int:
    """How often two calls of one worker handed a token to each other. `interval`: between two switches of a GIL."""
    with ThreadPoolExecutor(2) as callers:
        ask = {"times": TIMES, "seconds": seconds, "interval": interval}
        return sum(callers.map(lambda mine: node.client.call(pool, "exchange", mine=mine, **ask), range(2)))


@pytest.mark.freethreaded
def test_without_a_gil_the_calls_of_one_worker_run_at_the_same_time_and_the_pool_reports_it(python: str) -> None:
    with broker({"t": {**THREADS, "python": python}}) as node:
        node.ready("t")
        # A GIL would change hands once in the whole time: what follows is no matter of speed.
        assert exchange(node, "t", LONG, LONG) == 2 * TIMES
        row, (worker,) = node.pool("t"), node.status().workers
        assert (row.gil, row.gil_culprit, worker.gil) == ("off", "", "off")
        assert row.parallelism == worker.parallelism > 0
        cores = len(os.sched_getaffinity(0))
        assert row.parallel == f"{SLOTS} slots, {row.parallelism:.1f} x on {cores} cores"
        assert node.told("gil.enabled") == []


def test_with_a_gil_they_take_turns_and_the_pool_reports_why() -> None:
    with broker({"t": THREADS}) as node:
        node.ready("t")
        assert exchange(node, "t", 1.0, 0.25) <= 4 + 4
        row = node.pool("t")
        assert row.gil == "on"
        assert 0 < row.parallelism <= 1.05
        why = f"GIL on, Python {platform.python_version()} is not a free-threaded build"
        assert row.parallel == f"{SLOTS} slots, {row.parallelism:.1f} x: {why}"
        assert node.told("gil.enabled") == []  # nothing was switched on


@pytest.mark.freethreaded
def test_the_import_that_switches_the_gil_on_is_named_at_once_also_with_warnings_off(
    python: str, extension: Callable[[str], str]
) -> None:
    with broker({"t": {**THREADS, "python": python}}) as node:
        node.ready("t")
        assert node.client.call("t", "imports", name="_thread") is False
        assert node.client.call("t", "imports", name="undeclared", path=extension("undeclared")) is True
        told = node.until("gil.enabled", pool="t", reason="import")
        assert told["message"] == f"GIL on because of `undeclared`: its {SLOTS} threads take turns"
        assert told["data"]["culprit"] == "undeclared"
        row, (worker,) = node.pool("t"), node.status().workers
        assert (row.gil, row.gil_culprit) == (worker.gil, worker.gil_culprit) == ("on", "undeclared")
        assert row.parallelism == worker.parallelism <= 1.0  # what was measured at the start is no longer so
        assert row.parallel.endswith("x: GIL on because of `undeclared`")
        assert len(node.told("gil.enabled")) == 1


@pytest.mark.freethreaded
def test_a_gil_that_is_on_from_the_start_is_reported_with_its_reason(python: str) -> None:
    with broker({"t": {**THREADS, "python": python, "env": {"PYTHON_GIL": "1"}}}) as node:
        told = node.until("gil.enabled", pool="t", reason="environment")
        assert "PYTHON_GIL=1" in told["message"]
        assert "PYTHON_GIL=1" in node.pool("t").parallel


def test_slots_times_blas_threads_fit_the_cores() -> None:
    cores = usable_cores()
    thread = {"profile": "thread", "size": 1}
    pools = {"p": {"size": 1}, "one": {**thread, "threads": 1}, "two": {**thread, "threads": 2}}
    with broker({**pools, "said": {**thread, "threads": 2, "env": {"OPENBLAS_NUM_THREADS": "3"}}}) as node:
        used = {pool: node.client.call(pool, "blas", timeout=PATIENCE) for pool in (*pools, "said")}
    assert used == {"p": [1], "one": [cores], "two": [max(1, cores // 2)], "said": [min(3, cores)]}


# The race checker.


@pytest.mark.freethreaded
def test_with_checks_on_a_planted_race_is_reported_with_both_stacks_and_safe_patterns_are_not(python: str) -> None:
    pool = {**THREADS, "adapter": "patterns", "python": python, "thread_checks": True}
    with broker({"t": pool, "off": {**pool, "thread_checks": False}}) as node:
        node.ready("t")
        node.ready("off")
        with ThreadPoolExecutor(SLOTS) as callers:
            for name in ("words", "add"):
                list(callers.map(lambda n, name=name: node.client.call("t", name, text=f"safe {n}"), range(40)))
            list(callers.map(lambda _: node.client.call("t", "top"), range(8)))
            assert node.told("thread.race") == []
            assert node.pool("t").races == ()
            list(callers.map(lambda n: node.client.call("off", "add_carelessly", text="text"), range(8)))
            for _ in range(200):  # until two of the slots have had one: which slot takes a call is not said
                list(callers.map(lambda n: node.client.call("t", "add_carelessly", text="text"), range(SLOTS)))
                if len(node.told("thread.race")) >= 2:
                    break
        told = {event["data"]["attribute"]: event for event in node.told("thread.race")}
        assert set(told) == {"texts", "counts[...]"}
        data = told["texts"]["data"]
        assert data["first"]["thread"] != data["second"]["thread"]
        # The write before it held the lock, which is no help when this one did not.
        assert data["first"]["stack"].endswith("self.texts += 1")
        assert data["second"]["stack"].endswith("in Words.add_carelessly\n  self.texts += 1")
        assert all(data[side]["thread"].startswith("slot-") for side in ("first", "second"))
        row = node.pool("t")
        assert sorted(row.races) == ["counts[...]", "texts"]
        (warning,) = [one for one in row.warnings if one.startswith("unlocked writes from two threads to ")]
        assert {"`texts`", "`counts[...]`"} <= set(warning.replace(",", "").replace(";", "").split())
        assert node.told("thread.race", pool="off") == []


# Storms.


@pytest.mark.chaos
@pytest.mark.freethreaded
def test_every_call_ends_once_while_free_threaded_workers_are_killed(python: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("SNAKEPIT_SEED", random.randrange(10**6)))
    print(f"SNAKEPIT_SEED={seed}")
    rng = random.Random(seed)
    pool = {**THREADS, "size": 2, "python": python, "death_budget": 1000, "retry_budget": 1.0, "queue_timeout": 120.0}
    with broker({"t": pool}) as node:
        node.ready("t", 2)
        stop = threading.Event()
        with ThreadPoolExecutor(9) as callers:
            ends = [callers.submit(call_until, node, stop, number) for number in range(8)]
            try:
                for deaths in range(1, 7):
                    ready = [worker for worker in node.status().workers if worker.state == "ready"]
                    os.kill(rng.choice(ready).pid, signal.SIGKILL)
                    node.until("worker.died", deaths)
                    node.ready("t", 2 + deaths)
            finally:
                stop.set()
        wrong = [one for end in ends for one in end.result() if one is not None]
        assert wrong == []
        check_whole(node, "t", workers=2)


def call_until(node: RunningBroker, stop: threading.Event, number: int) -> list[str | None]:
    """One call after the other: the right answer, or, of what may not run twice, the error that says so."""
    ends: list[str | None] = []
    while not stop.is_set():
        value = [number, len(ends)]
        try:
            answer = node.client.call("t", "echo", value=value, timeout=120)
            ends.append(None if answer == value else f"{value} became {answer}")
            node.client.call("t", "pid", timeout=120)
            ends.append(None)
        except errors.WorkerLost:
            ends.append(None)
        except errors.BrokerError as error:
            ends.append(repr(error))
    return ends


@pytest.mark.chaos
@pytest.mark.freethreaded
def test_calls_that_are_cancelled_in_a_storm_give_their_slots_back(python: str) -> None:
    rng = random.Random(7)
    with broker({"t": {**THREADS, "python": python}}) as node:
        node.ready("t")
        pids = node.pids("t")
        for _ in range(40):
            calls: list[Any] = []
            for _ in range(rng.randrange(1, 2 * SLOTS)):
                if rng.random() < 0.5:
                    calls.append(node.client.submit("t", "obedient"))
                else:
                    calls.append(node.client.submit("t", "echo", value=1))
            rng.shuffle(calls)
            for call in calls:
                call.cancel()
        # As many as there are slots, all inside at once: every slot came back.
        assert [node.client.call("t", "echo", value=number) for number in range(20)] == list(range(20))
        check_whole(node, "t", workers=1)
        assert node.pids("t") == pids
        assert node.told("slot.lost") == node.told("worker.killed") == []


def check_whole(node: RunningBroker, pool: str, workers: int) -> None:
    """After a storm: as many workers as are wanted, every slot free, no call waits."""

    def whole() -> PoolStatus | None:  # calls that were cancelled end without an event
        row = node.pool(pool)
        return row if (row.ready, row.free, row.slots) == (workers, workers * SLOTS, workers * SLOTS) else None

    row: PoolStatus = eventually(whole, "free slots")
    assert (row.slots, row.busy, row.waiting, row.lost) == (workers * SLOTS, 0, 0, 0)
    assert len(node.pids(pool)) == workers
