"""`snakepit events` and the completion of names, beside a real broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from snakepit.pools.cli import completion
from snakepit.pools.cli.main import run
from tests.brokers import PATIENCE, ROOT, RunningBroker, broker, eventually
from tests.demo import UNANSWERED

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def node() -> Iterator[RunningBroker]:
    with broker({"p": {"adapter": "everything", "size": 1, "preload": "off"}}) as running:
        running.ready("p")
        yield running


@pytest.fixture
def address(node: RunningBroker, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SNAKEPIT_ADDRESS", str(node.client.target))
    return str(node.client.target)


def test_events_are_filtered_by_pool_and_kind(address: str, capsys: Captured) -> None:
    code, out, _ = told(capsys, "events", "--pool", "p", "--kind", "worker.*", "--json")
    assert code == 0
    kinds = [json.loads(line)["kind"] for line in out.splitlines()]
    assert "worker.started" in kinds
    assert all(kind.startswith("worker.") for kind in kinds)
    code, _, err = told(capsys, "events", "--pool", "q")
    assert (code, "pool_unknown" in err) == (1, True)
    nothing = "No such event is among those that the broker has in memory.\n"
    assert told(capsys, "events", "--pool", "p", "--kind", "node.nothing") == (0, "", nothing)
    code, out, _ = told(capsys, "events", "--limit", "1")
    assert (code, len(out.splitlines())) == (0, 1)


def told(capsys: Captured, *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command, once the broker answers it in time."""

    def answered() -> bool:
        capsys.readouterr()
        codes.append(run([*words]))
        return codes[-1] != UNANSWERED

    codes: list[int] = []
    eventually(answered, f"an answer to {words}")
    return codes[-1], *capsys.readouterr()


def test_follow_goes_on_with_what_happens(node: RunningBroker, address: str) -> None:
    command = [sys.executable, "-m", "snakepit.pools.cli", "events", "--follow", "--kind", "worker.*", "--json"]
    follower = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "SNAKEPIT_ADDRESS": address}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert follower.stdout
        json.loads(follower.stdout.readline())  # it has asked once
        (pid,) = node.pids("p")
        os.kill(pid, signal.SIGKILL)
        for line in follower.stdout:
            if json.loads(line)["kind"] == "worker.died":
                break
        else:
            pytest.fail("the output ended without the death")
        follower.send_signal(signal.SIGINT)
        assert follower.wait(PATIENCE) == 0
    finally:
        follower.kill()
        follower.communicate()
    node.ready("p", 2)


def test_names_are_completed(address: str) -> None:
    # Nothing, while the broker does not answer in half a second.
    assert eventually(lambda: completion.complete_pool("")) == ["p"]
    assert completion.complete_pool("x") == []
    assert all(name.startswith("p-") for name in completion.complete_worker("p-"))
    chosen: Any = SimpleNamespace(params={"pool": "p"})
    assert eventually(lambda: completion.complete_command(chosen, "ech")) == ["echo"]


def test_completion_without_a_broker_is_silent(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("SNAKEPIT_ADDRESS", "/nowhere/broker.sock")
    assert completion.complete_pool("") == completion.complete_worker("") == []
    assert capsys.readouterr() == ("", "")
