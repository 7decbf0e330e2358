"""Cold starts."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context

from benchmarks import stack
from benchmarks.node import Node, serving
from benchmarks.peers import celery
from benchmarks.row import Contestants, Measured, Row
from benchmarks.timing import Call, seconds
from benchmarks.work import echo

ROUNDS = 5


def _turns(ours: Call, peer: Call, rounds: int = ROUNDS) -> tuple[float, float]:
    """The medians of both, in seconds, from alternating rounds."""
    found = [(seconds(ours), seconds(peer)) for _ in range(rounds)]
    return statistics.median(one for one, _ in found), statistics.median(other for _, other in found)


def _replace(node: Node) -> None:
    """Kill the only worker and wait for a result of the next one."""
    os.kill(node.workers("work")[0], signal.SIGKILL)
    node.client.call("work", "echo", value="")


def _spawned() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        executor.submit(echo, "").result()


def _worker(contestants: Contestants) -> Measured:
    pool = {"name": "work", "path": "benchmarks.work.Work", "size": 1, "death_budget": 1000, "queue_timeout": 60.0}
    with serving([pool]) as node:
        node.wait_until_ready("work", 1)
        return Measured(*_turns(lambda: _replace(node), _spawned))


def _up(contestants: Contestants) -> Measured:
    def ours() -> None:
        with ExitStack() as opened:
            opened.enter_context(stack.running())
            done.append(opened.pop_all())

    def peer() -> None:
        with ExitStack() as opened:
            opened.enter_context(celery.apart(2))
            done.append(opened.pop_all())

    done: list[ExitStack] = []
    try:
        return Measured(*_turns(ours, peer, rounds=1))
    finally:
        for opened in done:
            opened.close()


def _status(contestants: Contestants) -> Measured:
    with stack.running() as site:

        def ours() -> None:
            command = [sys.executable, "-m", "snakepit.pools.cli", "status", "--json"]
            subprocess.run(command, cwd=stack.ROOT, env=site.environment, check=True, stdout=subprocess.DEVNULL)

        def peer() -> None:
            command = [sys.executable, "manage.py", "version"]
            subprocess.run(command, cwd=stack.ROOT, env=site.environment, check=True, stdout=subprocess.DEVNULL)

        return Measured(*_turns(ours, peer))


ROWS = (
    Row(
        "cold-worker",
        "first result after a worker's kill",
        "ProcessPoolExecutor, spawn, first result",
        "s",
        _worker,
    ),
    Row(
        "cold-up", "`snakepit up`, complete, to its first result", "celery worker and Valkey to first result", "s", _up
    ),
    Row("cold-status", "`snakepit status`", "`manage.py version`", "s", _status),
)
