"""What a worker started and left: it ends with its worker, and no process stays a zombie."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.brokers import PATIENCE, RunningBroker, broker, eventually, wait_gone


def parent_of(pid: int) -> int:
    """0 if the process is not there any more, not even as a zombie."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):  # the second: it ends while it is read
        return 0


def beget_one_each(node: RunningBroker, **how: bool) -> dict[int, int]:
    """A child of each of two workers, by the worker's pid."""
    children: dict[int, int] = {}
    while len(children) < 2:
        child = node.client.call("p", "begets", detached=True, **how)
        children[parent_of(child)] = child
    return children


@pytest.mark.parametrize("template", [False, True], ids=["spawned", "forked"])
def test_a_child_in_its_own_session_with_an_empty_environment_ends_with_its_worker(template: bool) -> None:
    pool = {"adapter": "preloading", "preload": "on"} if template else {}
    with broker({"p": {"size": 2, **pool}}) as node:
        node.ready("p", 2)
        (dead, ended), (living, _) = beget_one_each(node).items()
        os.kill(dead, signal.SIGKILL)
        assert wait_gone(ended, PATIENCE)  # so the broker has looked for orphans, and has seen the other worker
        node.ready("p", 3)
        child = beget_one_each(node, nameless=True)[living]
        os.kill(living, signal.SIGKILL)
        assert wait_gone(child, PATIENCE)


def test_such_a_child_ends_when_the_broker_stops() -> None:
    with broker({"p": {"size": 1}}) as node:
        node.ready("p")
        child = node.client.call("p", "begets", detached=True, nameless=True)
        node.process.terminate()
        node.process.wait(PATIENCE)
        assert wait_gone(child, PATIENCE)


def test_a_child_of_a_living_worker_is_left_alone_when_another_worker_ends() -> None:
    with broker({"p": {"size": 2}}) as node:
        node.ready("p", 2)
        (dead, ended), (living, left) = beget_one_each(node).items()
        os.kill(dead, signal.SIGKILL)
        assert wait_gone(ended, PATIENCE)  # so the broker has looked for orphans
        os.kill(left, 0)  # raises if it does not run
        os.kill(living, signal.SIGKILL)
        assert wait_gone(left, PATIENCE)


def test_orphans_are_reaped_as_they_end() -> None:
    with broker({"p": {"size": 1, "death_budget": 100_000}}) as node:
        for deaths in range(10):
            node.ready("p", deaths + 1)
            (pid,) = node.pids("p")
            children = [node.client.call("p", "begets") for _ in range(5)]
            os.kill(pid, signal.SIGKILL)
            for child in children:
                assert wait_gone(child, PATIENCE)
            eventually(lambda left=children: all(parent_of(child) != node.process.pid for child in left), "no zombie")
