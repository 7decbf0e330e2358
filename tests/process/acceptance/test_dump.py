"""Stacks of live workers: in Python, in C code that holds the GIL, in many threads, without a GIL; and refusals."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest

from snakepit.pools.broker import errors
from snakepit.pools.broker.status import ThreadStack, WorkerDump
from tests.brokers import PATIENCE, RunningBroker, broker, eventually
from tests.process.acceptance.test_interpreters import environment_for, find_free_threaded


def functions(thread: ThreadStack) -> list[str]:
    return [frame.function for frame in thread.frames]


def dump_until(node: RunningBroker, worker: str, seen: Callable[[WorkerDump], bool]) -> WorkerDump:
    """Dump until the stacks show something. The place of a call has no event."""

    def look() -> WorkerDump | None:
        with suppress(errors.StacksUnavailable):
            found: WorkerDump = node.client.dump(worker)
            return found if seen(found) else None
        return None

    return cast("WorkerDump", eventually(look, f"stacks of {worker}"))


def is_in(function: str) -> Callable[[WorkerDump], bool]:
    return lambda found: any(function in functions(thread) for thread in found.threads)


def only_worker(node: RunningBroker, pool: str = "p") -> str:
    worker: str = node.status(pool).workers[0].id
    return worker


def test_c_code_that_holds_the_gil_is_seen() -> None:
    with broker({"p": {"size": 1}}) as node:
        node.ready("p")
        worker = only_worker(node)
        future = node.client.submit("p", "entangle", timeout=300)

        def all_answer(found: WorkerDump) -> bool:  # in time, as they do while the machine does not stop
            waits = any(thread.frames for thread in found.threads if thread.thread != found.pid)
            return is_in("fullmatch")(found) and found.threads[0].state == "R" and waits

        found = dump_until(node, worker, all_answer)
        main = found.threads[0]
        assert main.thread == found.pid
        assert functions(main).index("fullmatch") < functions(main).index("entangle")
        assert functions(main)[-1] == "_run_module_as_main"
        assert [call.command for call in found.calls] == ["entangle"]
        assert found.pool == "p"
        waiting_thread = next(thread for thread in found.threads if thread.thread != found.pid and thread.frames)
        assert not waiting_thread.note, "a thread that waits for the GIL answers too"
        assert dump_until(node, worker, lambda _: True).pid == found.pid, "the worker has survived it"
        future.cancel()


def test_every_thread_of_a_thread_profile_worker_is_shown_and_its_calls_go_on() -> None:
    with broker({"p": {"size": 1, "profile": "thread", "threads": 3}}) as node:
        node.ready("p")
        calls = [node.client.submit("p", "meet")]
        found = dump_until(node, only_worker(node), is_in("meet"))
        assert sum("meet" in functions(thread) for thread in found.threads) == 1
        assert len(found.threads) >= 4
        calls.append(node.client.submit("p", "meet"))
        assert {call.result(PATIENCE) for call in calls} == {2}


def test_many_dumps_at_once_harm_no_call() -> None:
    with broker({"p": {"size": 1}}) as node:
        node.ready("p")
        worker = only_worker(node)
        future = node.client.submit("p", "burn", seconds=1.0)
        dumps: list[WorkerDump] = []

        def ask() -> None:
            dumps.extend(dump_until(node, worker, lambda found: bool(found.threads[0].frames)) for _ in range(20))

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        assert len(dumps) == 80
        assert future.result(PATIENCE) > 0
        assert node.pool("p").died == 0


def test_actor_and_reason_are_recorded() -> None:
    with broker({"p": {"size": 1}}) as node:
        node.ready("p")
        with suppress(errors.StacksUnavailable):
            node.client.dump(only_worker(node), actor="ada", reason="it hangs")
        assert node.until("operator.acted")["data"] == {"actor": "ada", "action": "dump", "reason": "it hangs"}


def test_a_worker_that_still_loads_can_be_asked(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with broker({"p": {"size": 1, "adapter": "slow", "args": {"path": str(tmp_path / "pipe")}}}) as node:
        node.until("pool.applied")

        def seen() -> bool:
            with suppress(errors.StacksUnavailable, errors.WorkerUnknown, IndexError):
                return "make" in functions(node.client.dump(only_worker(node)).threads[0])
            return False

        eventually(seen, "a worker that loads")


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
        for seconds in (2.0, 10.0, 50.0):  # a machine may stop while they burn
            calls = [node.client.submit("p", "burn", seconds=seconds, timeout=3 * PATIENCE) for _ in range(4)]
            most = 0
            while not all(call.done() for call in calls):
                with suppress(errors.StacksUnavailable):
                    found = node.client.dump(worker)
                    most = max(most, sum("burn" in functions(thread) for thread in found.threads))
            assert all(call.result(PATIENCE) > 0 for call in calls)
            if most == 4:
                break
        assert most == 4
        assert node.pool("p").died == 0
