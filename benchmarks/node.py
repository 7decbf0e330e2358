"""A broker for the measurements, in a separate process: `python -m benchmarks.node DIRECTORY POOLS`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.usage import CpuMeter, children
from snakepit.pools.adapters.network.identity import CertificateRights
from snakepit.pools.adapters.network.listener import ListenConfig
from snakepit.pools.adapters.network.tls import TlsFiles
from snakepit.pools.adapters.node import NodeConfig, run_node
from snakepit.pools.broker.events import Event
from snakepit.pools.broker.ports import Definition, Loaded
from snakepit.pools.broker.spec import PoolSpec
from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.client import Client, connect

ROOT = Path(__file__).parents[1]
ENDLESS = {"queue_limit": 1_000_000, "queue_timeout": 600.0}


class Fixed:
    """A fixed set of pools. Each is a mapping of PoolSpec's fields, plus `path`, the adapter's dotted path."""

    def __init__(self, pools: Sequence[Mapping[str, Any]]) -> None:
        self._loaded = Loaded(tuple(self._definition(dict(pool)) for pool in pools))

    @staticmethod
    def _definition(fields: dict[str, Any]) -> Definition:
        path = fields.pop("path")
        return Definition(PoolSpec(adapter="bench", **fields), path)

    def load(self) -> Loaded:
        return self._loaded


class Silent:
    def start(self) -> None: ...

    def record(self, at: float, event: Event) -> None: ...

    def observe(self, status: BrokerStatus) -> None: ...

    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Node:
    client: Client
    broker: int

    def wait_until_ready(self, pool: str, workers: int) -> None:
        """Wait until this number of workers is ready. Polls every 10 ms, because polling takes CPU from the starts."""
        while not (found := self.client.status(pool).pool(pool)) or found.ready < workers:
            time.sleep(0.01)

    def workers(self, pool: str) -> list[int]:
        return [worker.pid for worker in self.client.status(pool).workers]

    def processes(self) -> list[int]:
        return [self.broker, *children(self.broker)]

    def meter(self, pool: str, client: int) -> CpuMeter:
        return CpuMeter({"client": [client], "broker": [self.broker], "workers": self.workers(pool)})


@contextmanager
def serving(
    pools: Sequence[Mapping[str, Any]],
    *,
    options: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Node]:
    """A new broker with these pools. It listens when this yields; its workers may still be starting.

    `options` are more fields of NodeConfig (`listen`: the files of TLS), `environment` more variables of the broker's.
    """
    with tempfile.TemporaryDirectory(prefix="snakepit-bench-") as home:
        directory = Path(home) / "run"
        arguments = json.dumps({"pools": list(pools), "options": dict(options or {})})
        command = [sys.executable, "-m", "benchmarks.node", str(directory), arguments]
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, **(environment or {})}
        ) as broker:
            try:
                assert broker.stdout
                broker.stdout.readline()
                with connect(str(directory / "broker.sock")) as client:
                    yield Node(client, broker.pid)
            finally:
                broker.terminate()


@contextmanager
def running(workers: int, environment: Mapping[str, str] | None = None) -> Iterator[Node]:
    """A broker with a pool `work` whose workers are all ready."""
    pools = [{"name": "work", "path": "benchmarks.work.Work", "size": workers, "max_buffer": 2**31, **ENDLESS}]
    with serving(pools, environment=environment) as node:
        node.wait_until_ready("work", workers)
        yield node


def listen(files: Mapping[str, str]) -> ListenConfig:
    """A listener on the loopback interface with mutual TLS, if there are files for it."""
    rights = {"localhost": CertificateRights(("run", "view"))}
    return ListenConfig(("127.0.0.1:0",), TlsFiles(**files), rights) if files else ListenConfig()


def main() -> None:
    directory, given = Path(sys.argv[1]), json.loads(sys.argv[2])
    config = NodeConfig(
        runtime=directory,
        definitions=Fixed(given["pools"]),
        recorder=Silent(),
        name="bench",
        worker_path=(str(ROOT),),
        listen=listen(given["options"].pop("listen", {})),
        **given["options"],
    )
    run_node(config, lambda broker: print("listening", flush=True))


if __name__ == "__main__":
    main()
