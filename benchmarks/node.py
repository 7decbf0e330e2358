"""A broker for the measurements, in a process of its own: `python -m benchmarks.node DIRECTORY WORKERS`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pools.adapters.node import NodeConfig, run_node
from pools.broker.events import Event
from pools.broker.ports import Definition, Loaded
from pools.broker.spec import PoolSpec
from pools.client import Client, connect

ROOT = Path(__file__).parents[1]


class Fixed:
    """One pool, always the same."""

    def __init__(self, workers: int) -> None:
        spec = PoolSpec(name="echo", adapter="echo", size=workers, queue_limit=1_000_000, queue_timeout=600.0)
        self._loaded = Loaded((Definition(spec, "benchmarks.work.Echo"),))

    def load(self) -> Loaded:
        return self._loaded


class Silent:
    def start(self) -> None: ...

    def record(self, at: float, event: Event) -> None: ...

    def observe(self, snapshot: dict[str, Any]) -> None: ...

    def stop(self) -> None: ...


@contextmanager
def running(workers: int) -> Iterator[Client]:
    """A client of a fresh broker whose workers are all ready."""
    with tempfile.TemporaryDirectory(prefix="snakepit-bench-") as home:
        directory = Path(home) / "run"
        command = [sys.executable, "-m", "benchmarks.node", str(directory), str(workers)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as broker:
            try:
                assert broker.stdout
                broker.stdout.readline()
                with connect(str(directory / "broker.sock")) as client:
                    while client.status()["pools"][0]["ready"] < workers:
                        client.call("echo", "echo", value="")
                    yield client
            finally:
                broker.terminate()


def main() -> None:
    directory, workers = Path(sys.argv[1]), int(sys.argv[2])
    config = NodeConfig(
        runtime=directory,
        definitions=Fixed(workers),
        recorder=Silent(),
        name="bench",
        worker_path=(str(ROOT),),
    )
    run_node(config, lambda broker: print("listening", flush=True))


if __name__ == "__main__":
    main()
