"""Calls that are handed ahead, with real processes: never behind a long call, never run twice, never lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from snakepit.pools.broker import errors
from tests.brokers import PATIENCE, RunningBroker, broker, eventually

KNOWN = 16  # runs after which a command's time is known


def visits(recent: Path) -> list[str]:
    return [line.split()[1] for line in recent.read_text().splitlines() if line.startswith("visit")]


def learn(node: RunningBroker) -> None:
    for _ in range(KNOWN):
        node.client.call("p", "visit", mark="lesson")


def kill_one(node: RunningBroker, choice: random.Random) -> None:
    def killed() -> bool:
        pid = choice.choice([worker.pid for worker in node.status("p").workers if worker.pid] or [0])
        try:
            if pid:
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # the status had one that ended before
            return False
        return bool(pid)

    eventually(killed, "a worker to kill")


@pytest.mark.parametrize("deaf", [False, True], ids=["listening", "holding the GIL"])
def test_calls_behind_one_that_turns_out_long_are_run_by_another_worker(tmp_path: Path, deaf: bool) -> None:
    recent, pipe = tmp_path / "recent", tmp_path / "pipe"
    os.mkfifo(pipe)
    fields = {"args": {"recent": str(recent)}, "size": 1}
    with broker({"p": fields}) as node:
        node.ready("p")
        learn(node)
        long = node.client.submit("p", "visit", mark="long", path=str(pipe), deaf=deaf)
        writer = os.open(pipe, os.O_WRONLY)  # returns when the command reads
        short = [node.client.submit("p", "visit", mark=f"short{number}") for number in range(5)]
        eventually(lambda: (node.pool("p").waiting, node.pool("p").prefetched) == (5, 0))
        node.define({"p": {**fields, "size": 2}})
        pids = {call.result(timeout=PATIENCE) for call in short}
        assert not long.done()
        os.write(writer, b"x")
        os.close(writer)
        assert long.result(timeout=PATIENCE) not in pids
        assert sorted(visits(recent)[KNOWN:]) == ["long", *(f"short{number}" for number in range(5))]
        assert node.told("call.retried") == []


def test_a_killed_worker_takes_only_the_call_with_it_that_it_had_begun(tmp_path: Path) -> None:
    recent = tmp_path / "recent"
    kills, calls = 6, 300
    with broker({"p": {"args": {"recent": str(recent)}, "size": 2, "death_budget": 100}}) as node:
        node.ready("p", 2)
        learn(node)
        choice, answers, errors_seen = random.Random(7), {}, []
        for kill in range(kills):
            futures = {f"m{kill}-{n}": node.client.submit("p", "visit", mark=f"m{kill}-{n}") for n in range(calls)}
            next(iter(futures.values())).result(timeout=PATIENCE)
            kill_one(node, choice)
            for mark, future in futures.items():
                try:
                    answers[mark] = future.result(timeout=PATIENCE)
                except errors.WorkerLost as lost:
                    errors_seen.append(lost.outcome)
        seen = visits(recent)[KNOWN:]
        assert len(seen) == len(set(seen)), "a call ran twice"
        assert set(answers) <= set(seen)
        assert len(answers) + len(errors_seen) == kills * calls
        assert errors_seen.count("unknown") == len(errors_seen) <= kills
        row = node.pool("p")
        assert (row.waiting, row.prefetched) == (0, 0)


def test_a_cancelled_call_in_a_workers_hands_never_runs(tmp_path: Path) -> None:
    recent, pipe = tmp_path / "recent", tmp_path / "pipe"
    os.mkfifo(pipe)
    with broker({"p": {"args": {"recent": str(recent)}, "size": 1, "cancel_grace": 0.05}}) as node:
        node.ready("p")
        learn(node)
        long = node.client.submit("p", "visit", mark="long", path=str(pipe), deaf=True)
        writer = os.open(pipe, os.O_WRONLY)
        prefetched = [node.client.submit("p", "visit", mark="unwanted") for _ in range(5)]
        assert all(call.cancel() for call in prefetched)
        eventually(lambda: node.pool("p").waiting == 0)
        os.write(writer, b"x")
        os.close(writer)
        assert long.result(timeout=PATIENCE)
        assert node.client.call("p", "visit", mark="after")
        assert visits(recent)[KNOWN:] == ["long", "after"]
        assert node.told("worker.killed") == []


def test_workers_are_recycled_under_calls_in_their_hands_without_a_failed_one(tmp_path: Path) -> None:
    recent = tmp_path / "recent"
    with broker({"p": {"args": {"recent": str(recent)}, "size": 2}}) as node:
        node.ready("p", 2)
        learn(node)
        futures = [node.client.submit("p", "visit", mark=str(number)) for number in range(400)]
        node.client.recycle("p")
        futures += [node.client.submit("p", "visit", mark=str(number)) for number in range(400, 800)]
        for future in futures:
            future.result(timeout=PATIENCE)
        node.until("worker.recycled", 2)
        assert sorted(visits(recent)[KNOWN:], key=int) == [str(number) for number in range(800)]


def test_cancels_and_kills_among_calls_that_travel_together_leave_each_one_answer(tmp_path: Path) -> None:
    recent = tmp_path / "recent"
    rounds, calls = 6, 300
    with broker({"p": {"args": {"recent": str(recent)}, "size": 2, "death_budget": 100}}) as node:
        node.ready("p", 2)
        learn(node)
        choice, answered, lost, cancelled = random.Random(11), 0, 0, 0

        async def storm(number: int) -> list[object]:
            tasks = [
                asyncio.ensure_future(node.client.acall("p", "visit", mark=f"m{number}-{call}"))
                for call in range(calls)
            ]
            await tasks[0]
            kill_one(node, choice)
            for task in choice.sample(tasks, calls // 3):
                task.cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

        for number in range(rounds):
            for outcome in asyncio.run(storm(number)):
                if isinstance(outcome, int):
                    answered += 1
                elif isinstance(outcome, errors.WorkerLost):
                    lost += 1
                    assert outcome.outcome == "unknown"
                else:
                    assert isinstance(outcome, asyncio.CancelledError), outcome
                    cancelled += 1
        seen = visits(recent)[KNOWN:]
        assert len(seen) == len(set(seen)), "a call ran twice"
        assert answered <= len(seen)
        assert answered + lost + cancelled == rounds * calls
        assert lost <= rounds, "a worker took more with it than the call that it ran"
        eventually(lambda: node.pool("p").free == 2, "both slots to be free")
        after = node.client.map("p", "visit", ({"mark": f"after{n}"} for n in range(50)), window=50)
        assert len(list(after)) == 50
        row = node.pool("p")
        assert (row.waiting, row.prefetched) == (0, 0)
