"""Two nodes of one project: brokers with runtime directories of their own, one database, one settings file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import PATIENCE, ROOT

TRIES = 20  # of a question to all nodes
DRIVER = Path(__file__).with_name("cluster_driver.py")


class Cluster:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.brokers: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, node: str, labels: str = "") -> dict[str, str]:
        (self.home / "state").mkdir(exist_ok=True)
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.cluster_settings",
            "PYTHONPATH": str(ROOT),
            "SNAKEPIT_STATE_DIR": str(self.home / "state"),
            "SNAKEPIT_RUNTIME_DIR": str(self.home / node),
            "SNAKEPIT_NODE_NAME": node,
            "SNAKEPIT_NODE_LABELS": labels,
        }

    def run(self, *words: str, node: str = "n1", code: int = 0) -> str:
        done = self._done(*words, node=node)
        assert done.returncode == code, done.stderr
        return done.stdout

    def _done(self, *words: str, node: str = "n1") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=self.environment(node), text=True, capture_output=True,
            timeout=3 * PATIENCE, check=False,
        )  # fmt: skip

    def shell(self, *words: str, code: int = 0) -> Any:
        """A command of the shell beside n1, after both nodes are ready."""
        self.drive("wait")
        for _ in range(TRIES):  # a node that stops for a moment does not answer in time
            done = self._done("-m", "snakepit.pools.cli", *words, "--json")
            if done.returncode == code:
                return json.loads(done.stdout)
        raise AssertionError(f"{words}: {done.returncode} {done.stdout} {done.stderr}")

    def of_all(self, *words: str, answer: Collection[str]) -> list[Any]:
        """What a command prints with --all-nodes, once these nodes answer: on a busy machine each may need its second.

        The exit code is 1 unless both do.
        """
        command = ("-m", "snakepit.pools.cli", *words, "--all-nodes", "--json")
        for _ in range(TRIES):
            done = self._done(*command)
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            if words[0] == "status":
                found = {one["name"] for one in lines[0]["nodes"] if one["state"] != "not answering"}
            else:
                found = {one["node"] for one in lines}
            if (found, done.returncode) == (set(answer), int(len(answer) < 2)):
                return lines
        raise AssertionError(f"{found} answered: {done.stderr}")

    def drive(self, *words: str, node: str = "n1") -> Any:
        return json.loads(self.run(str(DRIVER), *words, node=node).splitlines()[-1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="snakepit-", dir="/tmp") as home, ExitStack() as ends:
        made = Cluster(Path(home))
        made.run("manage.py", "migrate", "--verbosity", "0")
        for node, labels in (("n1", ""), ("n2", "gpu=yes")):
            log = ends.enter_context((made.home / f"{node}.log").open("wb"))
            words = [sys.executable, "-m", "snakepit.pools.cli", "broker"]
            process = subprocess.Popen(words, cwd=ROOT, env=made.environment(node, labels), stdout=log, stderr=log)
            made.brokers[node] = process
            ends.callback(lambda one=process: (one.terminate(), one.wait(PATIENCE)))
        yield made


def test_calls_stay_on_their_host_unless_it_is_drained_or_has_not_the_pool(cluster: Cluster) -> None:
    found = cluster.drive()
    assert found["calls"] == {"pool": ["n1"], "gpu": ["n2"]}
    assert found["drained"] == {"pool": ["n2"], "gpu": ["n2"]}
    assert found["orders"] == ["n2", True, "node_draining", True, False]
    assert found["audit"] == [["drain", "n2", "done"], ["resume", "n2", "done"]]
    assert found["clocks"] == [["n1", "beat"], ["n2", "beat"]]


def test_a_host_without_a_broker_uses_all_nodes(cluster: Cluster) -> None:
    assert cluster.drive("stranger", node="n3") == {"calls": {"pool": ["n1", "n2"], "gpu": ["n2"]}}


def test_the_shell_shows_all_nodes_and_one_that_hangs_as_not_answering(cluster: Cluster) -> None:
    cluster.drive("wait")
    (found,) = cluster.of_all("status", answer=("n1", "n2"))
    assert [(one["name"], one["state"], one["own"]) for one in found["nodes"]] == [
        ("n1", "live", True), ("n2", "live", False),
    ]  # fmt: skip
    sizes = {one["name"]: (one["size"], [part["node"] for part in one["nodes"]]) for one in found["pools"]}
    assert sizes == {"pool": (2, ["n1", "n2"]), "gpu": (1, ["n2"])}
    assert cluster.shell("status", "--node", "n2")["node"]["name"] == "n2"
    assert cluster.shell("inspect", "gpu", "--node", "n2")["node"] == "n2"
    events = ("events", "--kind", "worker.started")
    started = cluster.of_all(*events, answer=("n1", "n2"))
    assert [one["at"] for one in started] == sorted(one["at"] for one in started)
    cluster.brokers["n2"].send_signal(signal.SIGSTOP)
    try:
        (found,) = cluster.of_all("status", answer=("n1",))
        assert cluster.of_all(*events, answer=("n1",))
    finally:
        cluster.brokers["n2"].send_signal(signal.SIGCONT)
    assert [(one["name"], one["state"]) for one in found["nodes"]] == [("n1", "live"), ("n2", "not answering")]
    assert found["nodes"][1]["reason"]
    assert found["nodes"][1]["seen_at"] > 0
    assert [(one["name"], one["size"]) for one in found["pools"]] == [("pool", 1)]


def test_the_shell_recycles_a_pool_on_the_nodes_that_host_it_and_dumps_a_worker_of_another_node(
    cluster: Cluster,
) -> None:
    cluster.drive("wait")
    (found,) = cluster.of_all("status", "--pool", "gpu", answer=("n1", "n2"))
    (worker,) = [one["worker"]["id"] for one in found["workers"]]
    assert cluster.shell("dump", worker)["worker"] == worker
    found = cluster.shell("recycle", "gpu")
    assert (found["planned"], found["nodes"]) == (1, [{"node": "n2", "planned": 1, "error": ""}])
    found = cluster.shell("recycle", "pool", "--node", "n1")
    assert found["nodes"] == [{"node": "n1", "planned": 1, "error": ""}]


def test_a_call_of_the_shell_finds_the_node_of_its_pool(cluster: Cluster) -> None:
    found = [cluster.shell("call", pool, "echo", f'{{"value": "{pool}"}}') for pool in ("pool", "gpu")]
    assert found == ["pool", "gpu"]  # gpu lives on n2 alone
    assert cluster.shell("call", "gpus", "echo", code=1)["error"]["code"] == "pool_unknown"
