"""The demo's real data through real workers: 1,797 scanned digits, and the same while workers are being killed."""

from __future__ import annotations

import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from snakepit.examples.digits import reference_model, scans
from snakepit.pools.broker import errors
from tests.brokers import RunningBroker, broker, eventually


@pytest.fixture(scope="module")
def answers() -> list[int]:
    """What the same model says in this process."""
    rows, _ = scans()
    return [int(answer) for answer in reference_model().predict(rows)]


@pytest.fixture(scope="module")
def pixels() -> list[list[float]]:
    rows, _ = scans()
    return [list(map(float, row)) for row in rows]


def test_all_digits_through_map_are_exactly_the_answers_of_the_model_in_process(
    pixels: list[list[float]], answers: list[int]
) -> None:
    with broker({"digits": {"adapter": "digits", "size": 2}}) as node:
        node.ready("digits", 2)

        def both_served() -> bool:  # all calls go to one while the machine has stopped the other
            assert list(node.client.map("digits", "classify", ({"pixels": row} for row in pixels))) == answers
            served = [worker.served for worker in node.status().workers]
            assert len(served) == 2
            return min(served) > 0

        eventually(both_served, "calls in both workers")


@pytest.mark.chaos
def test_eight_callers_get_every_answer_while_a_worker_is_killed_every_half_second(
    pixels: list[list[float]], answers: list[int], request: pytest.FixtureRequest
) -> None:
    seed = int(os.environ.get("SNAKEPIT_SEED", random.randrange(10**6)))
    print(f"SNAKEPIT_SEED={seed}")
    # A worker takes seconds to load its model, and the storm kills faster than that: callers have to be patient.
    pool = {"adapter": "digits", "size": 2, "queue_timeout": 120.0, "call_timeout": 120.0, "death_budget": 1000}
    pool["retry_budget"] = 1.0  # a machine that stops answers few calls between two kills
    with broker({"digits": pool, "plain": {"size": 2, "death_budget": 1000, "queue_timeout": 120.0}}) as node:
        node.ready("digits", 2)
        node.ready("plain", 2)
        with killing(node, random.Random(seed), every=0.5), ThreadPoolExecutor(8) as callers:
            wrong = [pair for pair in callers.map(lambda n: classify(node, pixels, answers, n), range(1797)) if pair]
            lost = list(callers.map(lambda n: run_once(node, n), range(400)))
        assert not wrong
        assert all(isinstance(end, int | errors.WorkerLost) for end in lost)
        assert {end.outcome for end in lost if isinstance(end, errors.WorkerLost)} <= {"unknown"}
        assert sum(isinstance(end, int) for end in lost) > 300
        check_invariants(node)


def classify(node: RunningBroker, pixels: list[list[float]], answers: list[int], number: int) -> object:
    """An idempotent call: it must end in the right answer, whatever dies meanwhile."""
    try:
        answer = node.client.call("digits", "classify", pixels=pixels[number])
    except errors.BrokerError as error:
        return number, repr(error)
    return None if answer == answers[number] else (number, answer)


def run_once(node: RunningBroker, number: int) -> object:
    """A call that is not idempotent: the right answer, or an error that says that it may have run."""
    try:
        return node.client.call("plain", "once", mark=str(number))
    except errors.WorkerLost as error:
        return error


class killing:
    """Kills a random ready worker again and again, until the block ends."""

    def __init__(self, node: RunningBroker, rng: random.Random, every: float) -> None:
        self._node, self._rng, self._every = node, rng, every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.killed = 0

    def __enter__(self) -> killing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self.killed, "no process was killed: the test proved nothing"

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            workers = [worker for worker in self._node.status().workers if worker.state == "ready" and worker.pid]
            if workers:
                try:
                    os.kill(self._rng.choice(workers).pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self.killed += 1


def check_invariants(node: RunningBroker) -> None:
    """After the storm: pools at their size, no slot leaked, no call waits, one process a worker."""
    eventually(lambda: is_whole(node), "the pools to come back to their size")
    assert len(set(node.pids())) == 4


def is_whole(node: RunningBroker) -> bool:
    status = node.status()  # the broker may not have seen the last death
    if len([worker for worker in status.workers if worker.pid]) != 4:
        return False
    return all(
        (row.busy, row.waiting, row.lost, row.ready, row.free) == (0, 0, 0, row.size, row.slots) for row in status.pools
    )
