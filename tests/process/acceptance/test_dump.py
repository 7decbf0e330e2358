"""Stacks of live workers: in Python, in C code that holds the GIL, in many threads, without a GIL; and refusals."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from snakepit.pools.broker import errors
from snakepit.pools.broker.status import ThreadStack, WorkerDump
from tests.brokers import RunningBroker, broker
from tests.process.acceptance.test_interpreters import environment_for, find_free_threaded


def functions(thread: ThreadStack) -> list[str]:
    return [frame.function for frame in thread.frames]


def dump_until(node: RunningBroker, worker: str, function: str) -> WorkerDump:
    """Ask until a thread is in a function: between a call's submission and its first line is no event."""
    for _ in range(1000):
        found = node.client.dump(worker)
        if any(function in functions(thread) for thread in found.threads):
            return found
    raise AssertionError(f"no thread came into {function}: {found}")


def only_worker(node: RunningBroker, pool: str = "p") -> str:
    worker: str = node.status(pool).workers[0].id
    return worker


def test_c_code_that_holds_the_gil_is_seen() -> None:
    with broker({"p": {"size": 1}}) as node:
        node.ready("p")
        worker = only_worker(node)
        future = node.client.submit("p", "entangle", timeout=120)
        found = dump_until(node, worker, "entangle")
        main = found.threads[0]
        assert (main.thread, main.state) == (found.pid, "R")
        assert functions(main).index("fullmatch") < functions(main).index("entangle")
        assert functions(main)[-1] == "_run_module_as_main"
        assert [call.command for call in found.calls] == ["entangle"]
        assert found.pool == "p"
        waiting_thread = next(thread for thread in found.threads if thread.thread != found.pid and thread.frames)
        assert not waiting_thread.note, "a thread that waits for the GIL answers too"
        assert node.client.dump(worker).pid == found.pid, "the worker has survived it"
        future.cancel()


def test_every_thread_of_a_thread_profile_worker_is_shown_and_its_calls_go_on() -> None:
    with broker({"p": {"size": 1, "profile": "thread", "threads": 3}}) as node:
        node.ready("p")
        calls = [node.client.submit("p", "meet")]
        found = dump_until(node, only_worker(node), "meet")
        assert sum("meet" in functions(thread) for thread in found.threads) == 1
        assert len(found.threads) >= 4
        calls.append(node.client.submit("p", "meet"))
        assert {call.result(30) for call in calls} == {2}


def test_many_dumps_at_once_harm_no_call() -> None:
    with broker({"p": {"size": 1}}) as node:
        node.ready("p")
        worker = only_worker(node)
        future = node.client.submit("p", "burn", seconds=1.0)
        dumps: list[WorkerDump] = []
        askers = [
            threading.Thread(target=lambda: dumps.extend(node.client.dump(worker) for _ in range(20))) for _ in range(4)
        ]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        assert len(dumps) == 80
        assert all(one.threads[0].frames for one in dumps)
        assert future.result(60) > 0
        assert node.pool("p").died == 0


def test_actor_and_reason_are_recorded() -> None:
    with broker({"p": {"size": 1}}) as node:
        node.ready("p")
        node.client.dump(only_worker(node), actor="ada", reason="it hangs")
        assert node.until("operator.acted")["data"] == {"actor": "ada", "action": "dump", "reason": "it hangs"}


def test_a_worker_that_still_loads_can_be_asked(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with broker({"p": {"size": 1, "adapter": "slow", "args": {"path": str(tmp_path / "pipe")}}}) as node:
        node.until("pool.applied")
        for _ in range(1000):
            try:
                found = node.client.dump(only_worker(node))
            except (errors.StacksUnavailable, errors.WorkerUnknown, IndexError):
                continue
            if "make" in functions(found.threads[0]):
                return
        raise AssertionError("the worker was never seen while it loads")


def test_strangers_and_workers_that_gave_the_signal_away_are_refused() -> None:
    with broker({"p": {"size": 1}}) as node:
        node.ready("p")
        with pytest.raises(errors.WorkerUnknown, match="Node test has no worker 'p-0000-9'"):
            node.client.dump("p-0000-9")
        node.client.call("p", "deafens")
        with pytest.raises(errors.StacksUnavailable, match="handles the signal itself"):
            node.client.dump(only_worker(node))
        assert node.client.call("p", "echo", value=1) == 1


@pytest.mark.slow
@pytest.mark.freethreaded
def test_without_a_gil_every_running_thread_is_shown_and_lives_on() -> None:
    python = environment_for(find_free_threaded(), ".venv-313t")
    fields = {"size": 1, "profile": "thread", "threads": 4, "python": str(python)}
    with broker({"p": fields}) as node:
        node.ready("p")
        worker = only_worker(node)
        calls = [node.client.submit("p", "burn", seconds=2.0) for _ in range(4)]
        most = 0
        while not all(call.done() for call in calls):
            found = node.client.dump(worker)
            most = max(most, sum("burn" in functions(thread) for thread in found.threads))
        assert most == 4
        assert all(call.result(60) > 0 for call in calls)
        assert node.pool("p").died == 0
