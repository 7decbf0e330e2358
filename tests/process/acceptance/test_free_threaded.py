"""The tests of calls and of faults once more, with every pool in the thread profile on an interpreter without a GIL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from snakepit.pools.cgroups import usable_cores
from tests.brokers import PATIENCE, RunningBroker, broker, overrun
from tests.interpreters import free_threaded
from tests.process.acceptance.test_calls import *  # noqa: F403
from tests.process.acceptance.test_faults import *  # noqa: F403

pytestmark = [pytest.mark.slow, pytest.mark.freethreaded, pytest.mark.timeout(300)]

# One slot, as the pools of these tests have in the process profile; pools of several say so themselves.
THREADS = {"profile": "thread", "threads": 1, "cancel_grace": 0.3}


@pytest.fixture(scope="module", autouse=True)
def pools_without_a_gil() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_POOL", json.dumps({**THREADS, "python": free_threaded()}))
        yield


@pytest.fixture(scope="module")
def node(pools_without_a_gil: None) -> Iterator[RunningBroker]:
    pools = {
        "one": {"size": 1, "max_buffer": 2**20, "cancel_grace": PATIENCE},
        "threads": {"size": 1, "threads": 2, "cancel_grace": PATIENCE},
        "paused": {"size": 1, "paused": True},
    }
    with broker(pools) as running:
        running.ready("one")
        running.ready("threads")
        running.ready("paused")
        assert {worker.gil for worker in running.status().workers} == {"off"}
        yield running


def test_workers_see_no_environment_but_what_is_allowed(node: RunningBroker) -> None:
    """In place of the one for processes, where BLAS has one thread: here slots times BLAS threads fit the cores."""
    cores = usable_cores()
    for pool, slots in (("one", 1), ("threads", 2)):
        seen = node.client.call(pool, "environment")
        assert not [name for name in seen if "SECRET" in name or "TOKEN" in name]
        assert seen["OMP_NUM_THREADS"] == seen["OPENBLAS_NUM_THREADS"] == str(max(1, cores // slots))


def test_lost_slots_are_shown_no_room_any_more_and_the_worker_drains_behind_its_successor(tmp_path: Path) -> None:
    pool = {"threads": 4, "size": 1, "cancel_grace": 0.3, "drain_timeout": 30.0, "args": {"recent": f"{tmp_path}/l"}}
    with broker({"t": pool}) as node:
        node.ready("t")
        (old,) = node.pids("t")
        neighbour = node.client.submit("t", "sleep", {"seconds": 4.0}, timeout=60)
        overrun(lambda timeout: node.client.call("t", "burn", {"seconds": 600.0}, timeout=timeout), 0.5)
        lost = node.until("slot.lost")
        assert "1 of 4 slots are lost" in lost["message"]
        node.ready("t", 2)  # the successor first
        assert neighbour.result(timeout=60) == 4.0  # what else it held was finished
        recycled = node.until("worker.recycled", reason="lost_slots")
        said = "recycled, lost_slots: 1 of 4 slots held by calls that did not stop; lived "
        assert recycled["message"].startswith(said)
        row = node.pool("t")
        assert (row.ready, row.free, row.lost) == (1, 4, 0)
        assert node.pids("t") != [old]
