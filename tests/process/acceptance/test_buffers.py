"""Large values between a client and real workers: they do not pass through the broker, and no descriptor is left."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snakepit.pools.broker.errors import BrokerError, ResultTooLarge
from snakepit.pools.client import Json
from tests.brokers import PATIENCE, RunningBroker, broker
from tests.large import memory_files

np = pytest.importorskip("numpy")
MIB = 2**20
LARGE = {"adapter": "large", "max_buffer": 2**27}


@pytest.fixture(scope="module")
def node() -> Iterator[RunningBroker]:
    pools = {"one": {**LARGE, "size": 1}, "threads": {**LARGE, "size": 2, "profile": "thread", "threads": 2}}
    with broker({**pools, "small": {**LARGE, "size": 1, "max_buffer": 0}}) as running:
        for name in ("one", "threads", "small"):
            running.ready(name)
        yield running


def eventually(question: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE
    while not question():
        assert time.monotonic() < ends
        time.sleep(0.01)


def ready(node: RunningBroker) -> list[int]:
    return [one.pid for one in node.client.status("threads").workers if one.state == "ready"]


def rss(pid: int) -> int:
    """KiB of a process's own memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@pytest.mark.parametrize("size", [100_000, MIB, 50 * MIB])
@pytest.mark.parametrize("pool", ["one", "threads"])
def test_a_large_result_arrives_past_the_broker(node: RunningBroker, pool: str, size: int) -> None:
    before = rss(node.process.pid)
    for _ in range(2):
        found = node.client.call(pool, "ones", size=size)
        assert found.nbytes == size // 8 * 8
        assert found.sum() == size // 8
        found[0] = 2
    assert node.client.call(pool, "bytes_of", size=size) == b"x" * size
    assert rss(node.process.pid) - before < 5 * 1024
    eventually(lambda: node.client.call(pool, "descriptors") == 0)


def test_a_result_computed_in_place_arrives_and_stays_as_it_was(node: RunningBroker) -> None:
    found = node.client.call("one", "placed", size=8 * MIB, keep=True)
    assert found["shared"]
    assert node.client.call("one", "write_kept") == 5.0
    assert (found["out"] == 1).all()
    node.client.call("one", "placed", size=80, keep=True)  # the adapter drops the first one


def test_many_large_results_in_flight_arrive(node: RunningBroker) -> None:
    sizes = [200_000 + 8 * number for number in range(60)]
    found = list(node.client.map("threads", "ones", ({"size": size} for size in sizes), window=32))
    assert [one.nbytes for one in found] == sizes


def test_the_limit_of_the_pool_holds(node: RunningBroker) -> None:
    with pytest.raises(ResultTooLarge, match="max_buffer is 134,217,728"):
        node.client.call("one", "too_much", size=2**27 + 1)
    with pytest.raises(ResultTooLarge, match="max_buffer is 0; raise max_buffer"):
        node.client.call("small", "ones", size=MIB)


def test_a_caller_of_json_gets_bytes_in_frames(node: RunningBroker) -> None:
    assert node.client.call("one", "bytes_of", Json(size=200_000)) == b"x" * 200_000
    with pytest.raises(ResultTooLarge, match="max_payload"):
        node.client.call("one", "bytes_of", Json(size=2 * MIB))


def test_long_text_arrives_past_the_broker(node: RunningBroker) -> None:
    assert node.client.call("one", "text", size=900_000) == ["x" * 1000] * 900


def test_the_metrics_count_buffers(node: RunningBroker) -> None:
    node.client.call("one", "ones", size=MIB)
    eventually(lambda: 'snakepit_buffers_total{of="result",pool="one"}' in node.client.metrics())
    assert 'snakepit_buffer_bytes_total{of="result",pool="one"}' in node.client.metrics()


def test_no_descriptor_is_left_where_calls_are_cancelled_and_late_and_workers_are_killed(node: RunningBroker) -> None:
    gc.collect()
    before = memory_files(os.getpid())
    killed = threading.Event()

    def kill() -> None:
        for _ in range(3):
            eventually(lambda: bool(ready(node)))
            for pid in ready(node)[:1]:
                os.kill(pid, signal.SIGKILL)
                eventually(lambda gone=pid: gone not in node.pids("threads"))  # type: ignore[misc]
        killed.set()

    thread = threading.Thread(target=kill)
    thread.start()
    outcomes = {"ok": 0, "cancelled": 0, "failed": 0}
    for turn in range(300):
        futures = [
            node.client.submit("threads", "slow", size=200_000, seconds=0.0, timeout=0.002 if at == 0 else 30)
            for at in range(10)
        ]
        for future in futures[1 + turn % 3 :: 3]:
            outcomes["cancelled"] += future.cancel()
        for future in futures:
            if not future.cancelled():
                outcomes["failed" if isinstance(future.exception(), BrokerError) else "ok"] += 1
        if killed.is_set() and turn > 100:
            break
    thread.join()
    del futures, future
    assert min(outcomes.values()) > 0, outcomes
    eventually(lambda: memory_files(os.getpid()) == before)
    assert memory_files(node.process.pid) == 0
    eventually(lambda: all(memory_files(one.pid) == 0 for one in node.client.status("threads").workers if one.pid))
