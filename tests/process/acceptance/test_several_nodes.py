"""Two nodes of one project: brokers with runtime directories of their own, one database, one settings file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import PATIENCE, ROOT

DRIVER = Path(__file__).with_name("cluster_driver.py")


class Cluster:
    def __init__(self, home: Path) -> None:
        self.home = home

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

    def run(self, *words: str, node: str = "n1") -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=self.environment(node), text=True, capture_output=True,
            timeout=3 * PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

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
