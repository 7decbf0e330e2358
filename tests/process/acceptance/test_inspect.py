"""A real broker's numbers: a pool made to queue is advised to grow, and what is advised ends the queue."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from snakepit.pools.broker.errors import QueueTimeout
from snakepit.pools.broker.spec import PoolSpec
from snakepit.pools.cli.inspect import ProjectFacts
from snakepit.pools.cli.main import run
from snakepit.pools.diagnostics.advice import Enough, Judgement
from snakepit.pools.diagnostics.recommendations import judge
from tests.brokers import RunningBroker, broker, eventually
from tests.demo import UNANSWERED

SOON = Enough(calls=20, seconds=3.0)  # as little as a test can wait for; ten minutes are the window
CALLERS = 6


def told_by(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0, error: str = "") -> str:
    """What a command prints, once the broker answers it in time."""

    def answered() -> bool:
        capsys.readouterr()
        last[:] = [run([*words])]
        return last != [UNANSWERED]

    last: list[int] = []
    eventually(answered, f"an answer to {words}")
    out, err = capsys.readouterr()
    assert last == [code], out + err
    assert error in err
    return out


def queue_judged(node: RunningBroker, size: int) -> Judgement:
    status = node.status()
    specs = {"p": PoolSpec(name="p", adapter="everything", size=size, queue_timeout=2.0)}
    return next(one for one in judge(status.pools, specs, status.workers, enough=SOON) if one.rule == "queue")


def test_a_pool_made_to_queue_is_advised_to_grow_and_then_does_not_queue() -> None:
    fields: dict[str, Any] = {"size": 1, "queue_timeout": 2.0, "max_surge": 1}
    with broker({"p": fields}) as node, ThreadPoolExecutor(CALLERS) as callers:
        node.ready("p")
        keep = True

        def call() -> None:
            while keep:
                with suppress(QueueTimeout):  # while the machine stops
                    node.client.call("p", "sleep", seconds=0.15)

        load = [callers.submit(call) for _ in range(CALLERS)]
        try:
            size = 1
            while (found := queue_judged(node, size)).verdict != "fine":
                with suppress(QueueTimeout):
                    node.client.call("p", "sleep", seconds=0.15)  # the next look is worth while when calls have ended
                if found.advice:
                    assert "queue wait p95" in found.advice.sentence
                    size = found.advice.values["size"]
                    assert size <= 16
                    node.define({"p": {**fields, "size": size}})
                    node.ready("p", size)
            row = node.pool("p")
        finally:
            keep = False
            for one in load:
                one.result()
        assert row.size == size > 1


def test_the_command_shows_known_figures_and_names_unknown_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    with broker({"p": {"size": 1}}) as node:
        node.ready("p")
        node.client.call("p", "echo", value=1)
        node.until_served("p", 1)
        monkeypatch.setenv("SNAKEPIT_ADDRESS", str(node.runtime / "broker.sock"))
        unknown = ProjectFacts(missing="no project here")
        monkeypatch.setattr("snakepit.pools.cli.inspect._project", lambda *_: unknown)
        told = told_by(capsys, "inspect", "--detailed", "--recommendations")
        assert "p: ready" in told
        assert "1 of 1 workers ready" in told
        assert "all pools" not in told, "there is one"
        assert "CPU           not known\n" in told
        assert "last day      not known" in told
        assert "advice are not known: no project here" in told
        worker = node.status().workers[0].id
        found = json.loads(told_by(capsys, "inspect", worker, "--json"))
        assert found["worker"] == worker
        [one] = found["pools"][0]["workers"]
        assert (one["id"], one["served"], one["mb_per_hour"], one["memory_limit_mb"]) == (worker, 1, None, None)
        told_by(capsys, "inspect", "unknown", code=1, error="Neither a pool nor a living worker is named 'unknown'")


def test_scaling_refuses_to_guess_and_names_the_pools_that_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with broker({"p": {"size": 1}}) as node:
        node.ready("p")
        node.client.call("p", "echo", value=1)
        monkeypatch.setenv("SNAKEPIT_ADDRESS", str(node.runtime / "broker.sock"))
        assert "p: not enough evidence: " in (told := told_by(capsys, "scaling", "p"))
        assert "needs 100" in told
        found = json.loads(told_by(capsys, "scaling", "p", "--json"))
        assert (found["pool"], found["binds"], found["facts"]["size"]) == ("p", None, 1)
        assert found["facts"]["cores"] > 0
        told_by(capsys, "scaling", "unknown", code=1, error="No pool is named 'unknown'. Known are: p.")
    assert run(["scaling", "p"]) == 3
