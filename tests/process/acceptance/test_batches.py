"""Batches through real workers: many callers, and a call that kills its worker."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from snakepit.pools.broker import errors
from tests.brokers import RunningBroker, broker

POOL = {"adapter": "batching", "size": 1, "death_budget": 100, "queue_timeout": 120.0, "call_timeout": 120.0}


@pytest.fixture(scope="module")
def node() -> Iterator[RunningBroker]:
    threads = {**POOL, "profile": "thread", "threads": 2}
    with broker({"process": POOL, "thread": threads}) as running:
        running.ready("process", 1)
        running.ready("thread", 1)
        yield running


def test_many_calls_of_threads_are_answered_in_their_order(node: RunningBroker) -> None:
    assert list(node.client.map("thread", "double", ({"number": one} for one in range(200)))) == [*range(0, 400, 2)]


def test_a_call_that_kills_its_worker_fails_alone(node: RunningBroker) -> None:
    numbers = [*range(20), -1, *range(20, 40)]
    answers = list(node.client.map("process", "double", ({"number": one} for one in numbers), return_errors=True))
    assert isinstance(answers[20], errors.WorkerLost)
    assert [answer for answer in answers if answer is not answers[20]] == [2 * one for one in numbers if one >= 0]


def test_calls_of_many_callers_are_one_batch_and_the_status_shows_it(node: RunningBroker, tmp_path: Path) -> None:
    gates = [str(tmp_path / name) for name in ("first", "second")]
    for gate in gates:
        os.mkfifo(gate)
    with ThreadPoolExecutor(9) as callers:
        first = callers.submit(call, node, gates[0])
        node.client.call("thread", "double", number=1)  # the broker is alive
        until(lambda: node.pool("process").busy == 1)
        others = [callers.submit(call, node, gates[1]) for _ in range(8)]
        until(lambda: node.pool("process").waiting == 8)
        for gate in gates:
            with open(gate, "wb"):
                pass
        assert first.result(60) == 1
        assert [one.result(60) for one in others] == [8] * 8
    (status,) = [one for one in node.pool("process").batches if one.command == "hold"]
    assert (status.limit, status.batches, status.calls, status.size) == (16, 1, 8, 8.0)
    assert str(status).startswith("batches of 8")


def call(node: RunningBroker, gate: str) -> Any:
    return node.client.call("process", "hold", path=gate)


def until(happened: Any) -> None:
    for _ in range(6000):
        if happened():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not happen within a minute")
