"""Operators' orders with a real broker: the preview, the recycle that follows it, and who did it and why."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snakepit.pools.broker import errors
from tests.brokers import PATIENCE, ROOT, assert_nothing_left, broker, eventually
from tests.demo import UNANSWERED

SNAKEPIT = [sys.executable, "-m", "snakepit.pools.cli"]


def test_a_recycle_does_what_its_preview_showed_and_records_actor_and_reason() -> None:
    fields = {"size": 2, "min_lifetime": 0.0, "ttl": 3600.0, "jitter": 0.0, "max_requests": 100}
    with broker({"p": fields}) as node:
        node.ready("p", 2)
        node.client.call("p", "echo", value=1)
        node.until_served("p", 1)
        plan = node.client.plan("p")
        assert (plan.pool, plan.at_once, plan.max_surge) == ("p", 1, 1)
        assert [one.in_turn for one in plan.workers] == [1, 2]
        assert sorted(one.calls_until_max for one in plan.workers) == [99, 100]
        assert all(3500 < one.seconds_until_ttl <= 3600 for one in plan.workers)
        assert not node.told("worker.draining"), "the preview has replaced a worker"
        assert node.client.recycle("p", actor="ada", reason="release 42") == 2
        node.until("worker.recycled", 2, reason="operator")
        drained = [event["worker"] for event in node.told("worker.draining")]
        assert drained == [one.id for one in plan.workers]
        acted = node.until("operator.acted")
        assert acted["data"] == {"actor": "ada", "action": "recycle", "reason": "release 42"}
        assert node.events.index(acted) < node.events.index(node.told("worker.draining")[0])


def test_a_preview_of_one_worker_and_of_strangers() -> None:
    with broker({"p": {"size": 2}}) as node:
        node.ready("p", 2)
        first, second = (worker.id for worker in node.status("p").workers)
        plan = {one.id: one.in_turn for one in node.client.plan("p", second).workers}
        assert plan == {first: 0, second: 1}
        assert node.client.plan("p").workers[0].seconds_until_ttl is None
        for pool, worker, error in [("q", "", errors.PoolUnknown), ("p", "p-0000-9", errors.WorkerUnknown)]:
            with pytest.raises(error):
                node.client.plan(pool, worker)
            with pytest.raises(error):
                node.client.recycle(pool, worker)
        assert not node.told("operator.acted")


def test_a_drained_node_finishes_what_it_holds_refuses_the_rest_and_serves_again(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with broker({"p": {"size": 1}, "q": {"size": 1}}) as node:
        node.ready("p")
        node.ready("q")
        running = node.client.submit("p", "hold", path=str(pipe))
        eventually(lambda: node.pool("p").busy, "the call to run")
        node.client.drain(actor="ada", reason="a new disk")
        for pool in ("p", "q"):
            with pytest.raises(errors.NodeDraining, match="is drained by ada: a new disk"):
                node.client.call(pool, "echo", value=1)
        found = node.client.status()
        assert (found.node.draining, found.node.drain_reason) == (True, "a new disk")
        with pipe.open("wb"):
            pass
        assert running.result(timeout=PATIENCE) is not None
        assert [pool.ready for pool in node.client.status().pools] == [1, 1], "the workers stay warm"
        node.client.resume(actor="ada")
        assert node.client.call("q", "echo", value=2) == 2
        node.until("operator.acted", 2)
        told = [event["data"]["action"] for event in node.told("operator.acted")]
        assert told == [f"drain node {found.node.name}", f"resume node {found.node.name}"]


class Project:
    """`snakepit broker` on a database of its own, and the commands of an operator beside it."""

    def __init__(self, home: Path) -> None:
        (home / "operated.py").write_text(SETTINGS)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SNAKEPIT_", "DJANGO_"))}
        self.runtime = home / "run"
        self.environment = {
            **kept,
            "DJANGO_SETTINGS_MODULE": "operated",
            "PYTHONPATH": f"{home}{os.pathsep}{ROOT}",
            "SNAKEPIT_STATE_DIR": str(home / "state"),
            "SNAKEPIT_RUNTIME_DIR": str(self.runtime),
            "NO_COLOR": "1",
        }
        subprocess.run([sys.executable, "manage.py", "migrate", "-v", "0"], cwd=ROOT, env=self.environment, check=True)
        self.log = (home / "log").open("ab")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [*SNAKEPIT, "broker"], cwd=ROOT, env=self.environment, stdout=self.log, stderr=self.log
        )
        self.until(lambda: self.run("status").returncode == 0, "the broker")
        self.until(lambda: self.pool()["ready"] == self.pool()["size"], "its workers")
        self.instance = json.loads((self.runtime / "instance").read_text())["instance"]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0
        assert_nothing_left(self.instance)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*SNAKEPIT, *words], cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=PATIENCE,
            check=False,
        )  # fmt: skip

    def answered(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command, once the broker, which runs, answers it in time."""
        end = time.monotonic() + PATIENCE
        while (done := self.run(*words)).returncode == UNANSWERED and time.monotonic() < end:
            pass
        return done

    def said(self, *words: str) -> dict[str, Any]:
        done = self.answered(*words, "--json")
        assert done.returncode == 0, done.stderr + done.stdout
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def pool(self) -> dict[str, Any]:
        found: dict[str, Any] = self.said("status")["pools"][0]
        return found

    def workers(self) -> list[str]:
        return [worker["id"] for worker in self.said("status")["workers"]]

    def until(self, question: Any, what: str, patience: float = PATIENCE) -> None:
        """Ask again and again, within bounds: another process's state gives no other sign."""
        end = time.monotonic() + patience
        while not question():
            assert time.monotonic() < end, f"waited in vain for {what}"
            assert self.process.poll() is None, f"the broker ended: {Path(self.log.name).read_text()[-3000:]}"
            time.sleep(0.1)


SETTINGS = """
from snakepit.site.settings import *

SNAKEPIT = {
    **SNAKEPIT,
    "CELERY_APP": "snakepit.site.celery",
    "ADAPTERS": {"everything": "tests.everything.Everything"},
    "POOLS": {"digits": {"adapter": "everything", "size": 1, "min_lifetime": 0.0, "queue_timeout": 60.0}},
}
"""


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    with tempfile.TemporaryDirectory(prefix="snakepit-op-", dir="/tmp") as home:
        running = Project(Path(home))
        try:
            yield running
        finally:
            running.stop()
            running.log.close()


def in_force(project: Project, *order: str) -> dict[str, Any]:
    """The answer to an order, which is given again while a broker that stopped for a moment does not follow at once.

    `changed` is of the first time.
    """
    first = last = project.said(*order)
    end = time.monotonic() + PATIENCE
    while not last["in_force"] and time.monotonic() < end:
        last = project.said(*order)
    return {**last, "changed": first["changed"]}


@pytest.mark.slow
def test_the_orders_of_the_command_line_are_in_force_at_once_and_kept_as_they_say(
    project: Project, tmp_path: Path
) -> None:
    scaled = in_force(project, "scale", "digits", "2", "--reason", "more load")
    assert (scaled["size"], scaled["changed"], scaled["in_force"]) == (2, True, True)
    assert "apply again when the broker restarts" in scaled["note"]
    assert project.pool()["size"] == 2
    project.until(lambda: project.pool()["ready"] == 2, "the second worker")

    paused = in_force(project, "pause", "digits")
    assert (paused["paused"], paused["in_force"], paused["note"]) == (True, True, "")
    refused = project.answered("call", "digits", "echo", '{"value": 1}')
    assert (refused.returncode, "pool_paused" in refused.stderr) == (1, True)
    project.stop()
    project.start()
    assert (project.pool()["state"], project.pool()["size"]) == ("paused", 1)
    assert in_force(project, "resume", "digits")["paused"] is False
    assert project.answered("call", "digits", "echo", '{"value": 1}').stdout == "1\n"

    wrong = project.answered("scale", "digits", "0")
    assert (wrong.returncode, "size: 0 is outside 1 to 1000" in wrong.stderr) == (1, True)
    assert project.run("scale", "digits", "many").returncode == 2
    assert project.answered("pause", "nope").returncode == 1


@pytest.mark.slow
def test_a_worker_is_drained_by_its_id_alone(project: Project) -> None:
    (old,) = project.workers()
    plan = project.said("recycle", old, "--preview")
    assert [one["id"] for one in plan["workers"] if one["in_turn"]] == [old]
    assert "1 would be replaced, 0 of them busy" in project.answered("recycle", "digits", "--preview").stdout
    assert project.workers() == [old]
    drained = project.said("drain", old, "--reason", "it is odd")
    assert [one["planned"] for one in drained.pop("nodes")] == [1]
    assert drained == {"pool": "digits", "worker": old, "planned": 1}
    project.until(lambda: len(project.workers()) == 1 and project.workers() != [old], "the successor")
    gone = project.answered("recycle", old)
    assert (gone.returncode, "worker_unknown" in gone.stderr) == (1, True)


@pytest.mark.slow
def test_a_pool_is_drained_when_its_last_call_has_ended(project: Project, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    held = threading.Thread(target=project.run, args=("call", "digits", "hold", json.dumps({"path": str(pipe)})))
    held.start()
    try:
        project.until(lambda: project.pool()["busy"] == 1, "the call")
        late = project.answered("drain", "digits", "--timeout", "0.2")
        assert late.returncode == 1
        assert "1 calls run and 0 wait; it stays paused" in late.stderr
        assert project.pool()["state"] == "paused"
    finally:
        with pipe.open("wb"):
            pass
        held.join()
    drained = project.said("drain", "digits")
    assert (drained["running"], drained["waiting"], drained["drained"], drained["changed"]) == (0, 0, True, False)
    assert project.pool()["ready"] == 1
    project.said("resume", "digits")
