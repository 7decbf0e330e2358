"""Large values in shared memory while calls are cancelled or late, and workers and clients are killed."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

from benchmarks.faults.census import SETTLE, memory_files, until
from benchmarks.faults.fault import Fault, Findings
from benchmarks.faults.lab import PATIENCE, POOL, callers, laboratory
from benchmarks.faults.large_calls import LargeCaller
from snakepit.pools.client import Client

ROOT = Path(__file__).parents[3]
CALLS = 10_000
SECONDS = 60.0  # a shorter run makes fewer calls
CLIENTS, OWN = 2, 3  # client processes, and threads of this one
WORKER_EACH, CLIENT_EACH = 70, 300  # ended calls between two kills
EXPECTED = frozenset({"right", "cancelled", "deadline_exceeded", "worker_lost"})


class Ends:
    """Counts how calls ended, and wakes the thread that kills."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self._changed = threading.Condition()

    def count(self, end: str) -> None:
        with self._changed:
            self.counted[end] += 1
            self._changed.notify_all()

    def wait(self, calls: int) -> None:
        """Wait until so many calls have ended."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.counted.total() >= calls, PATIENCE):
                raise TimeoutError(f"no {calls} calls have ended: {dict(self.counted)}")

    def share(self, end: str) -> float:
        return self.counted[end] / self.counted.total()


class ClientProcess:
    """A LargeCaller of its own process."""

    def __init__(self, address: str, pool: str, seed: int, ends: Ends) -> None:
        words = [sys.executable, "-m", "benchmarks.faults.large_calls", address, pool, str(seed)]
        self.made_calls = threading.Event()
        self.left = -1  # memory files that it had when it ended; -1: it was killed
        self._ends = ends
        self._process = subprocess.Popen(words, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            word, _, number = line.strip().partition(" ")
            if word == "left":
                self.left = int(number)
            else:
                self._ends.count(word)
                self.made_calls.set()

    def kill(self) -> None:
        self._process.kill()
        self.stop()

    def stop(self) -> None:
        with suppress(BrokenPipeError), self._process:
            assert self._process.stdin
            self._process.stdin.close()  # the sign to end
            self._process.wait(PATIENCE * 2)
            self._reader.join(PATIENCE)


class Killer:
    """Kills workers and clients in turn until so many calls have ended."""

    def __init__(self, client: Client, pool: str, ends: Ends, calls: int) -> None:
        self.killed: Counter[str] = Counter()
        self.left: list[int] = []
        self._client, self._pool, self._ends, self._calls = client, pool, ends, calls
        self._seed = 0
        self._chance = random.Random(0)

    def __call__(self, over: threading.Event) -> None:
        running = [self._start() for _ in range(CLIENTS)]
        try:
            for calls in range(WORKER_EACH, self._calls, WORKER_EACH):
                self._ends.wait(calls)
                self._kill_worker()
                if calls // CLIENT_EACH > self.killed["clients"]:
                    running[0].made_calls.wait(PATIENCE)
                    running.pop(0).kill()
                    self.killed["clients"] += 1
                    running.append(self._start())
            self._ends.wait(self._calls)
        finally:
            for one in running:
                one.stop()
            self.left = [one.left for one in running]

    def _start(self) -> ClientProcess:
        self._seed += 1
        return ClientProcess(str(self._client.target.path), self._pool, self._seed, self._ends)

    def _kill_worker(self) -> None:
        ready = [worker.pid for worker in self._client.status(self._pool).workers if worker.state == "ready"]
        if ready:
            with suppress(ProcessLookupError):
                os.kill(self._chance.choice(ready), signal.SIGKILL)
                self.killed["workers"] += 1


def many_large_calls(
    client: Client, broker: int, pool: str, calls: int, cancelled: float = 0.0, late: float = 0.0
) -> Findings:
    """Make so many calls, kill workers and clients meanwhile, and enter what processes still hold.

    More than the shares `cancelled` and `late` have to end so. On a slow machine a call ends before it is cancelled.
    """
    found, ends = Findings(), Ends()
    before = memory_files(os.getpid())
    fault = Killer(client, pool, ends, calls)

    def call(number: int, over: threading.Event) -> None:
        LargeCaller(client, ends.count, -1 - number, pool).run(over)

    found.expect(callers(OWN, call, fault), "callers still wait")
    counted = ends.counted
    found.expect(set(counted) <= EXPECTED, f"calls ended as {dict(counted)}")
    found.measured |= {
        "calls": ", ".join(f"{number:,} {end}" for end, number in counted.most_common()),
        "killed": ", ".join(f"{number} {kind}" for kind, number in fault.killed.items()),
    }
    found.expect(not any(fault.left), f"clients end with memory files: {fault.left}")
    for end, least in (("cancelled", cancelled), ("deadline_exceeded", late)):
        found.expect(ends.share(end) > least, f"not more than {least:.0%} of the calls ended as {end}")

    def left() -> dict[str, int]:
        gc.collect()
        workers = [worker.pid for worker in client.status(pool).workers if worker.pid]
        pids = {"broker": broker} | {f"worker {pid}": pid for pid in workers}
        counts = {name: memory_files(pid) for name, pid in pids.items()}
        return {name: n for name, n in (counts | {"client": memory_files(os.getpid()) - before}).items() if n > 0}

    found.expect(until(lambda: not left(), SETTLE), f"memory files are left: {left()}")
    return found


def large_values(seconds: float) -> Findings:
    calls = int(CALLS * min(1.0, seconds / SECONDS))
    with laboratory(4, profile="thread", threads=2, death_budget=100_000) as lab:
        found = many_large_calls(lab.client, lab.broker, POOL, calls, cancelled=0.25, late=0.06)
        lab.found.measured |= found.measured
        lab.found.broken += found.broken
    return lab.found


FAULTS = (
    Fault(
        "large-values",
        "10,000 calls and streams with arrays of 100 kB to 4 MB: a third cancelled, a tenth late, SIGKILL to a worker "
        "after every 70 and to a client after every 300",
        "Every other call has its array or a typed error. No memory file is left in broker, worker or client.",
        (
            "process/acceptance/test_buffers.py::"
            "test_no_descriptor_is_left_where_calls_are_cancelled_and_late_and_workers_and_clients_are_killed",
            "process/acceptance/test_buffers.py::test_a_killed_client_leaves_no_descriptor",
        ),
        large_values,
        SECONDS,
    ),
)
