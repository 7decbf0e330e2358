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
from tests.brokers import ROOT, RunningBroker, broker

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
    assert run(["events", "--pool", "p", "--kind", "worker.*", "--json"]) == 0
    kinds = [json.loads(line)["kind"] for line in capsys.readouterr().out.splitlines()]
    assert "worker.started" in kinds
    assert all(kind.startswith("worker.") for kind in kinds)
    assert run(["events", "--pool", "q"]) == 1
    assert "pool_unknown" in capsys.readouterr().err
    assert run(["events", "--pool", "p", "--kind", "node.nothing"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "No such event is among those that the broker has in memory.\n")
    assert run(["events", "--limit", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


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
        assert follower.wait(60) == 0
    finally:
        follower.kill()
        follower.communicate()
    node.ready("p")


def test_names_are_completed(address: str) -> None:
    assert completion.complete_pool("") == ["p"]
    assert completion.complete_pool("x") == []
    assert all(name.startswith("p-") for name in completion.complete_worker("p-"))
    chosen: Any = SimpleNamespace(params={"pool": "p"})
    assert completion.complete_command(chosen, "ech") == ["echo"]


def test_completion_without_a_broker_is_silent(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("SNAKEPIT_ADDRESS", "/nowhere/broker.sock")
    assert completion.complete_pool("") == completion.complete_worker("") == []
    assert capsys.readouterr() == ("", "")
