"""Faults on purpose: after each, every call has one answer, no slot is leaked, no process is left."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from snakepit.pools.broker import errors
from snakepit.pools.broker.status import PoolStatus, WorkerStatus
from snakepit.pools.client.streams import WINDOW, WINDOW_BYTES
from tests.brokers import PATIENCE, RunningBroker, broker, eventually, freeze, overrun, wait_gone

TRIES = 5  # of what a machine that stops for a second makes fail


def test_a_killed_worker_fails_its_call_typed_and_the_pool_comes_back(tmp_path: Path) -> None:
    recent = tmp_path / "recent"
    with broker({"p": {"size": 2, "args": {"recent": str(recent)}}}) as node:
        node.ready("p", 2)
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        running = node.client.submit("p", "hold", path=str(pipe))
        os.kill(_holder(node, recent).pid, signal.SIGKILL)
        with pytest.raises(errors.WorkerLost) as caught:
            running.result(timeout=PATIENCE)
        assert caught.value.outcome == "unknown"
        node.ready("p", 3)
        row = node.pool("p")
        assert (row.ready, row.free, row.died) == (2, 2, 1)


def _holder(node: RunningBroker, recent: Path | None = None) -> WorkerStatus:
    """The worker that holds a call; with a recent: that has begun to run it."""

    def holder() -> WorkerStatus | None:
        begun = recent is None or (recent.exists() and "holding" in recent.read_text())
        return next((worker for worker in node.status("p").workers if worker.calls and begun), None)

    found: WorkerStatus = eventually(holder, "a worker that holds the call")
    return found


def _held(node: RunningBroker, tmp_path: Path) -> tuple[Path, Future[Any]]:
    """A call that runs until its pipe is opened for writing."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    call = node.client.submit("p", "hold", path=str(pipe))
    assert _holder(node)
    return pipe, call


def test_an_idempotent_call_survives_the_death_of_its_worker(tmp_path: Path) -> None:
    recent = tmp_path / "recent"
    with broker({"p": {"size": 2, "args": {"recent": str(recent)}}}) as node:
        node.ready("p", 2)
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        running = node.client.submit("p", "hold_again", {"path": str(pipe)}, timeout=60)
        victim = _holder(node, recent)
        os.kill(victim.pid, signal.SIGKILL)
        retried = node.until("call.retried")
        assert "idempotent" in retried["message"]
        with open(pipe, "wb"):
            pass
        assert running.result(timeout=PATIENCE) != victim.pid


def test_sigkill_of_the_broker_ends_workers_and_their_children() -> None:
    with broker({"p": {"size": 2}, "t": {"profile": "thread", "threads": 2, "size": 1}}) as node:
        node.ready("p", 2)
        node.ready("t")
        children = [node.client.call(pool, "begets", detached=detached) for pool in "pt" for detached in (True, False)]
        pids = node.pids() + children
        assert len(pids) == 7
        node.process.kill()
        for pid in pids:
            assert wait_gone(pid, PATIENCE), f"{pid} outlived the broker"
        for name in ("broker.sock", "token"):
            _until_missing(node.runtime / name)


def _until_missing(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while path.exists():
        assert time.monotonic() < deadline, f"{path} is still there"
        threading.Event().wait(0.01)


def test_the_children_of_a_dead_worker_do_not_outlive_it() -> None:
    with broker({"p": {"size": 1}}) as node:
        node.ready("p")
        children = [node.client.call("p", "begets", detached=detached) for detached in (True, False)]
        os.kill(node.pids("p")[0], signal.SIGKILL)
        for child in children:
            assert wait_gone(child, PATIENCE)


def test_a_deaf_call_ends_at_its_deadline_and_its_process_after_the_grace() -> None:
    with broker({"p": {"size": 1, "cancel_grace": 0.5}}) as node:
        for kills in range(1, TRIES + 1):
            node.ready("p", kills)
            (pid,) = node.pids("p")
            overrun(lambda timeout: node.client.call("p", "burn", {"seconds": 600.0}, timeout=timeout), 1.0)
            assert wait_gone(pid, PATIENCE), "it would burn for ten minutes"
            node.ready("p", kills + 1)
            assert node.pool("p").free == 1
            assert node.client.call("p", "echo", value=1) == 1
            assert "overrun" in node.until("worker.killed", kills)["message"]
            if tells_where_it_was(node.until("worker.recycled", kills)["data"]["stacks"]):
                return
    raise AssertionError("no stacks were read before a kill")


def tells_where_it_was(stacks: str) -> bool:
    """Whether the stacks show the call. A kill waits half a second for them, which a machine may lose."""
    if stacks.startswith("not read: "):
        return False
    assert "burn  " in stacks
    assert "everything.py:" in stacks
    return True


def test_in_the_thread_profile_a_deaf_call_loses_its_slot_and_the_process_is_rolled_over() -> None:
    pool = {"profile": "thread", "threads": 2, "size": 1, "cancel_grace": 0.3, "drain_timeout": 5.0}
    with broker({"t": pool}) as node:
        for kills in range(1, TRIES + 1):
            node.ready("t", kills)
            (pid,) = node.pids("t")
            overrun(lambda timeout: node.client.call("t", "burn", {"seconds": 600.0}, timeout=timeout), 0.5)
            lost = node.until("slot.lost", kills)
            assert "1 of 2 slots are lost" in lost["message"]
            stacks = node.until("worker.recycled", kills, reason="lost_slots")["data"]["stacks"]
            node.ready("t", kills + 1)
            assert wait_gone(pid, PATIENCE)
            row = node.pool("t")
            assert (row.ready, row.free, row.lost) == (1, 2, 0)
            if tells_where_it_was(stacks):
                return
    raise AssertionError("no stacks were read before a kill")


def test_closing_a_stream_early_stops_the_generator(tmp_path: Path) -> None:
    recent = tmp_path / "recent"
    # A grace that no busy machine needs: the generator must end by itself.
    with broker({"p": {"size": 1, "cancel_grace": PATIENCE, "args": {"recent": str(recent)}}}) as node:
        node.ready("p")
        chunks = node.client.stream("p", "count", to=1_000_000)
        assert [next(chunks) for _ in range(3)] == [0, 1, 2]
        chunks.close()
        assert node.client.call("p", "echo", value=1, timeout=PATIENCE) == 1  # the slot is free again
        lines = recent.read_text().splitlines()
        assert lines[-1] == "closed"
        assert len(lines) < 200, "the generator ran far ahead of its reader"


def test_a_reader_that_stops_stops_the_generator_after_exactly_its_credit(tmp_path: Path) -> None:
    recent = tmp_path / "recent"
    with broker({"p": {"size": 1, "args": {"recent": str(recent)}}}) as node:
        node.ready("p")
        chunks = node.client.stream("p", "count", to=1_000_000, size=1000)
        next(chunks)
        made = WINDOW + 1  # the one that waits for credit is made already

        def lines() -> int:
            node.status()  # a round trip: this neither sleeps nor spins
            return len(recent.read_text().splitlines())

        while lines() < made:
            pass
        assert {lines() for _ in range(50)} == {made}
        for _ in range(WINDOW // 2 - 1):
            next(chunks)
        while lines() < made + WINDOW // 2:
            pass
        assert {lines() for _ in range(50)} == {made + WINDOW // 2}
        chunks.close()


def test_large_chunks_stop_the_generator_after_exactly_their_bytes(tmp_path: Path) -> None:
    recent, size = tmp_path / "recent", 100_000
    ahead = math.ceil(WINDOW_BYTES / (size + 2))  # with their quotes; the last of them passes the bound
    half = math.ceil(WINDOW_BYTES // 2 / (size + 2))
    with broker({"p": {"size": 1, "args": {"recent": str(recent)}}}) as node:
        node.ready("p")
        chunks = node.client.stream("p", "count", to=100, size=size)

        def made() -> int:
            node.status()
            return recent.read_text().count("made")

        next(chunks)
        while made() < ahead + 1:  # the one that waits is made already
            pass
        assert {made() for _ in range(50)} == {ahead + 1}
        for _ in range(half - 1):
            next(chunks)
        while made() < ahead + half + 1:
            pass
        assert {made() for _ in range(50)} == {ahead + half + 1}
        assert sum(1 for _ in chunks) == 100 - half


def test_a_full_queue_refuses_immediately_with_a_retry_time(tmp_path: Path) -> None:
    with broker({"p": {"size": 1, "queue_limit": 2}}) as node:
        node.ready("p")
        pipe, held = _held(node, tmp_path)
        waiting = [node.client.submit("p", "echo", value=n) for n in range(2)]
        with pytest.raises(errors.QueueFull) as caught:
            node.client.call("p", "echo", value=3)
        assert caught.value.http_status == 429
        assert caught.value.outcome == "not_started"
        assert caught.value.retry_after > 0
        node.until("pool.saturated")
        with open(pipe, "wb"):
            pass
        assert held.result(timeout=PATIENCE) == 1
        assert [future.result(timeout=PATIENCE) for future in waiting] == [0, 1]


def test_a_call_that_waits_too_long_fails_with_queue_timeout(tmp_path: Path) -> None:
    with broker({"p": {"size": 1, "queue_timeout": 0.3}}) as node:
        node.ready("p")
        pipe, held = _held(node, tmp_path)
        with pytest.raises(errors.QueueTimeout, match="1 of 1 slots busy"):
            node.client.call("p", "echo", value=1)
        with open(pipe, "wb"):
            pass
        held.result(timeout=PATIENCE)


@pytest.mark.parametrize(("adapter", "words"), [("fails", "model file is missing"), ("missing", "no_such_module")])
def test_a_pool_whose_adapter_cannot_load_fails_and_its_callers_get_the_reason(adapter: str, words: str) -> None:
    with broker({"p": {"adapter": adapter, "size": 2, "boot_budget": 2}, "fine": {"size": 1}}) as node:
        node.ready("fine")
        asked = node.client.submit("p", "ping")
        failed = node.until("pool.failed")
        assert words in failed["message"]
        with pytest.raises(errors.PoolFailed, match=words):
            asked.result(timeout=PATIENCE)
        with pytest.raises(errors.PoolFailed, match=words):
            node.client.call("p", "ping")
        row = node.pool("p")
        assert row.state == "failed"
        assert words in row.reason
        assert node.client.call("fine", "echo", value=1) == 1


def test_a_failed_pool_recovers_when_its_adapter_loads_again(tmp_path: Path) -> None:
    path = tmp_path / "model"
    pool = {"adapter": "fails_once", "size": 1, "boot_budget": 1, "args": {"path": str(path)}}
    with broker({"p": pool}) as node:
        node.until("pool.failed")
        path.touch()
        node.until("pool.recovered")
        assert node.client.call("p", "ping") == "pong"


def test_a_stuck_rollout_is_degraded_with_its_reason_until_a_worker_starts(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with broker({"p": {"size": 1}}) as node:
        node.ready("p")
        node.define({"p": {"adapter": "fails_once", "size": 1, "boot_budget": 1000, "args": {"path": str(path)}}})
        node.until("worker.died", 2, reason="boot_failure")
        row = node.pool("p")
        assert (row.state, row.ready) == ("degraded", 1)
        assert "RuntimeError" in row.reason
        assert "model is not there yet" in row.reason
        assert "1 worker of an older definition serves" in row.reason
        path.touch()
        node.until("worker.recycled", reason="definition")
        assert (node.pool("p").state, node.pool("p").reason) == ("ready", "")


def test_an_adapter_that_takes_for_ever_to_load_is_ended(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    pool = {"adapter": "slow", "size": 1, "startup_timeout": 1.0, "boot_budget": 1, "args": {"path": str(pipe)}}
    with broker({"p": pool}) as node:
        failed = node.until("pool.failed")
        assert "not ready within 1 s" in failed["message"]


def test_an_adapter_that_is_not_thread_safe_is_refused_in_the_thread_profile() -> None:
    with broker({"p": {"adapter": "unsafe", "profile": "thread", "size": 1, "boot_budget": 1}}) as node:
        assert "thread_safe" in node.until("pool.failed")["message"]


def test_a_new_definition_is_rolled_out_with_the_successor_first() -> None:
    with broker({"p": {"size": 2, "min_lifetime": 0.0}}) as node:
        node.ready("p", 2)
        old = set(node.pids("p"))
        with pytest.raises(errors.CommandUnknown):
            node.client.call("p", "version")
        node.define({"p": {"size": 2, "min_lifetime": 0.0, "adapter": "new"}})
        node.until("pool.applied", 2)
        node.until("worker.recycled", 2, reason="definition")
        assert not old & set(node.pids("p"))
        assert node.client.call("p", "version") == 2
        assert _fewest_ready(node.events, "p", before="pool.applied") >= 2


def _fewest_ready(events: list[dict[str, object]], pool: str, before: str) -> int:
    """The smallest number of serving workers after the last `before` event, read off the events."""
    ready, fewest, seen = 0, 10**6, 0
    for event in events:
        if event["pool"] != pool:
            continue
        if event["kind"] == "worker.started":
            ready += 1
        elif event["kind"] in ("worker.draining", "worker.died"):
            ready -= 1
        elif event["kind"] == before:
            seen += 1
        if seen > 1:
            fewest = min(fewest, ready)
    return fewest


def test_pools_come_go_grow_and_shrink_with_their_definitions() -> None:
    with broker({"a": {"size": 1}}) as node:
        node.ready("a")
        node.define({"a": {"size": 3}, "b": {"size": 1}})
        node.ready("a", 3)
        node.ready("b")
        node.define({"a": {"size": 1}})
        node.until("pool.removed", pool="b")
        node.until("worker.recycled", 2, pool="a", reason="scale")
        assert node.pool("a").ready == 1
        with pytest.raises(errors.PoolUnknown):
            node.client.call("b", "echo")


def test_an_impossible_definition_is_refused_and_the_one_before_stays() -> None:
    with broker({"a": {"size": 1}}) as node:
        node.ready("a")
        node.define({"a": {"size": 0, "queue_limit": -1}})
        problem = node.until("pool.invalid")
        assert "size: 0 is outside 1 to 1000" in problem["message"]
        assert "queue_limit: -1" in problem["message"]
        assert node.client.call("a", "echo", value=1) == 1
        assert any("size: 0" in line for line in node.status().node.problems)


def test_workers_are_recycled_by_count_without_a_failed_call() -> None:
    pool = {"size": 2, "max_requests": 20, "min_lifetime": 0.0, "jitter": 0.0}
    with broker({"p": pool}) as node:
        node.ready("p", 2)
        assert list(node.client.map("p", "echo", ({"value": n} for n in range(3000)))) == list(range(3000))
        recycled = node.until("worker.recycled", 3, reason="max_requests")
        assert recycled["data"]["served"] >= 20
        assert node.pool("p").failed == 0


def test_memory_over_the_hard_line_is_ended_and_over_the_soft_line_replaced() -> None:
    pools = {
        "hard": {"size": 1, "memory_hard_mb": 200.0},
        "soft": {"size": 1, "memory_soft_mb": 200.0, "memory_samples": 1, "min_lifetime": 0.0},
    }
    with broker(pools) as node:
        for pool in pools:
            node.ready(pool)
        # The broker reads the memory of a busy worker once a second: it may end the call before its answer.
        with contextlib.suppress(errors.WorkerLost):
            assert node.client.call("hard", "leaks", megabytes=300, timeout=PATIENCE) == 300
        assert node.client.call("soft", "leaks", megabytes=300, timeout=PATIENCE) == 300
        node.client.sweep("test", 60.0)
        killed = node.until("worker.killed", pool="hard")
        assert "memory_hard" in killed["message"]
        soft = node.until("worker.recycled", pool="soft")
        assert soft["reason"] == "memory_soft"


def test_sigterm_lets_running_calls_finish_and_leaves_nothing(tmp_path: Path) -> None:
    with broker({"p": {"size": 1}}, env={**os.environ, "STOP_GRACE": str(PATIENCE)}) as node:
        node.ready("p")
        pipe, running = _held(node, tmp_path)
        node.process.send_signal(signal.SIGTERM)
        node.until("node.stopping")
        with pytest.raises(errors.ShuttingDown):
            node.client.call("p", "echo", value=1)
        with open(pipe, "wb"):
            pass
        assert running.result(timeout=PATIENCE) == 1
        assert node.process.wait(PATIENCE) == 0
        assert not list(node.runtime.iterdir())


def test_a_second_sigterm_is_not_patient(tmp_path: Path) -> None:
    with broker({"p": {"size": 1}}) as node:
        node.ready("p")
        _, running = _held(node, tmp_path)
        node.process.send_signal(signal.SIGTERM)
        node.until("node.stopping")
        node.process.send_signal(signal.SIGTERM)
        with pytest.raises(errors.BrokerError):
            running.result(timeout=PATIENCE)
        assert node.process.wait(PATIENCE) == 0


def test_a_frozen_idle_worker_is_replaced_and_a_frozen_busy_one_ended_at_its_deadline(tmp_path: Path) -> None:
    # The worker has to be found silent before the deadline of its call: on a slow machine, try a longer one.
    assert any(freeze_idle_and_busy(tmp_path / f"{deadline}", deadline) for deadline in (15.0, 40.0, 120.0))


def freeze_idle_and_busy(home: Path, deadline: float) -> bool:
    """False if the deadline of the call came before its worker was found silent."""
    home.mkdir()
    recent, pipe = home / "recent", home / "pipe"
    os.mkfifo(pipe)
    pool = {"size": 2, "cancel_grace": 0.5, "args": {"recent": str(recent)}}
    with broker({"p": pool}, interval=3600.0) as node:
        node.ready("p", 2)
        # Idempotent, so that it would run again if its worker's end were taken for a death.
        running = node.client.submit("p", "hold_again", {"path": str(pipe)}, timeout=deadline)
        busy = _holder(node, recent)
        (idle,) = [worker for worker in node.status("p").workers if worker.id != busy.id]
        for worker in (busy, idle):
            freeze(worker.pid)
        _sweep_until(node, worker=idle.id, reason="event_loop")
        found = {"kind": "worker.health_check_failed", "worker": busy.id, "reason": "busy"}
        while not (told := node.told(**found)):
            if running.done():
                return False
            node.client.sweep("test", 1.0)
        assert "not killed" in told[0]["message"]
        assert wait_gone(idle.pid, PATIENCE)
        node.ready("p", 3)
        with pytest.raises(errors.DeadlineExceeded) as caught:
            running.result(timeout=PATIENCE + deadline)
        assert caught.value.outcome == "unknown"
        assert wait_gone(busy.pid, PATIENCE)
        node.ready("p", 4)
        killed = {event["worker"]: event["reason"] for event in node.told("worker.killed")}
        assert killed == {idle.id: "health", busy.id: "overrun"}
        assert not node.told("call.retried")
        row = node.pool("p")
        assert (row.ready, row.free, row.failed) == (2, 2, 1)
        assert len(recent.read_text().splitlines()) == 1
        return True


def test_calls_to_a_frozen_idle_worker_run_elsewhere_and_it_is_replaced_without_beat() -> None:
    with broker({"p": {"size": 2}}, interval=3600.0) as node:
        node.ready("p", 2)
        frozen, other = node.pids("p")
        freeze(frozen)
        calls = [node.client.submit("p", "pid") for _ in range(4)]
        assert {call.result(timeout=PATIENCE) for call in calls} == {other}
        assert node.until("worker.killed", patience=PATIENCE)["reason"] == "health"
        assert wait_gone(frozen, PATIENCE)
        node.ready("p", 3)
        row = node.pool("p")
        assert (row.ready, row.free, row.finished, row.failed, row.retried) == (2, 2, 4, 0, 0)


def test_a_frozen_worker_that_wakes_up_gets_calls_again() -> None:
    with broker({"p": {"size": 1}}, interval=3600.0) as node:
        node.ready("p")
        (pid,) = node.pids("p")
        freeze(pid)
        call = node.client.submit("p", "pid")

        def revoked() -> PoolStatus | None:
            return row if (row := node.pool("p")).waiting else None

        assert eventually(revoked, "the call that has not begun to be revoked").free == 0
        with contextlib.suppress(ProcessLookupError):  # silent for so long that it was replaced
            os.kill(pid, signal.SIGCONT)
        assert call.result(timeout=PATIENCE) in node.pids("p")
        node.until_served("p", 1)  # a caller has its result before the broker has counted it
        assert node.pool("p").free == 1


@pytest.mark.parametrize("limit", ["memory_hard_mb", "memory_soft_mb"])
def test_a_leak_is_stopped_near_its_limit_without_beat(limit: str) -> None:
    """The overshoot is what the worker allocates in some seconds, here 100 MB each, however rare the sweeps are."""
    with broker({"p": {"size": 1, "min_lifetime": 0.0, limit: 200}}, interval=3600.0) as node:
        node.ready("p")
        reason, end = limit.removesuffix("_mb"), time.monotonic() + PATIENCE
        # Over the soft limit it serves until its successor is there: how long that takes is not how late it is found.
        while not (node.told("worker.starting", reason=reason) or node.told("worker.recycled")):
            assert time.monotonic() < end, "no worker was replaced"
            with contextlib.suppress(errors.WorkerLost):
                node.client.call("p", "leaks", megabytes=5)
                node.client.call("p", "sleep", seconds=0.05)  # the rate of the leak
        told = node.until("worker.recycled")
        assert told["reason"] == reason
        assert 200 < told["data"]["memory_mb"] < 900


def test_a_frozen_busy_worker_that_wakes_up_in_time_gives_its_answer_and_stays(tmp_path: Path) -> None:
    recent, pipe = tmp_path / "recent", tmp_path / "pipe"
    os.mkfifo(pipe)
    with broker({"p": {"size": 1, "args": {"recent": str(recent)}}}, interval=3600.0) as node:
        node.ready("p")
        running = node.client.submit("p", "hold", {"path": str(pipe)}, timeout=3 * PATIENCE)
        (pid,) = node.pids("p")
        _holder(node, recent)
        freeze(pid)
        _sweep_until(node, reason="busy")
        os.kill(pid, signal.SIGCONT)
        with open(pipe, "wb"):
            pass
        assert running.result(timeout=PATIENCE) == 1
        assert node.client.call("p", "pid") == pid


def _sweep_until(node: RunningBroker, **fields: Any) -> dict[str, Any]:
    """Send sweeps, each of which asks every worker for a sign of life, until silence is told."""
    end = time.monotonic() + PATIENCE
    while not (told := node.told("worker.health_check_failed", **fields)):
        assert time.monotonic() < end, f"no worker was found silent: {fields}"
        node.client.sweep("test", 1.0)
    return told[0]
