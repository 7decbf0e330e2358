"""Run a broker whose workers are Ray actors, and print what holds: `python -m benchmarks.ray_workers`.

It needs ray (`pip install ray`), and is no part of the suite.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import platform
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.network import certificate
from benchmarks.node import ENDLESS, ROOT, Fixed, Silent
from benchmarks.ray_workers.launcher import RayLauncher
from benchmarks.work import SMALL
from snakepit.pools.adapters.grpc.link import GrpcLinker
from snakepit.pools.adapters.grpc.service import make_server
from snakepit.pools.adapters.node import SystemClock
from snakepit.pools.adapters.records.metrics import Metrics
from snakepit.pools.adapters.records.recent_events import RecentEvents
from snakepit.pools.broker.broker import Broker
from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.node import NodeFacts
from snakepit.pools.broker.ports import Ports
from snakepit.pools.broker.spec import Preload, Profile
from snakepit.pools.client import Client, connect
from snakepit.workers.transport import DIRECT_REPLY

CALLS = int(os.environ.get("CALLS", "300"))
TOKEN = "token-of-this-run"
PATIENCE = 180.0
POOLS: list[dict[str, Any]] = [
    {"name": "work", "size": 2, "profile": Profile.THREAD, "threads": 4},
    {"name": "scarce", "size": 2, "startup_timeout": 600.0},
]
RESOURCES = {"scarce": {"resources": {"accelerator": 1}}}  # the cluster has one


def until(question: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if answer := question():
            return answer
        time.sleep(0.05)
    raise SystemExit(f"{what}: not within {PATIENCE:g} s")


def p50(call: Callable[[], object]) -> float:
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def ready(client: Client, pool: str) -> int:
    found = client.status(pool).pool(pool)
    return found.ready if found else 0


def outcome(future: Any) -> str:
    error = future.exception(PATIENCE)
    return "right" if error is None else f"{error.code}, {error.outcome}" if isinstance(error, BrokerError) else "?"


def scenario(ray: Any, launcher: RayLauncher, address: str) -> None:
    echo = ray.remote(num_cpus=0)(Echo).remote()
    ray.get(echo.echo.remote(SMALL))
    print(f"a Ray actor alone: p50 {p50(lambda: ray.get(echo.echo.remote(SMALL))):.0f} µs")
    with connect(address, TOKEN) as client:
        began = time.monotonic()
        until(lambda: ready(client, "work") == 2, "two workers on Ray")
        print(f"two workers on Ray are ready {time.monotonic() - began:.1f} s later")
        print(f"a call to them: p50 {p50(lambda: client.call('work', 'echo', value=SMALL)):.0f} µs")
        print(f"a stream: {len(list(client.stream('work', 'chunks', count=500)))} chunks of 500")
        until(lambda: all(one.memory_mb > 0 for one in client.status("work").workers), "a report of memory")
        print(
            "memory:", [round(one.memory_mb) for one in client.status("work").workers], "MiB, as the helpers measure it"
        )

        until(lambda: ready(client, "scarce") == 1, "the worker that has its resource")
        states = sorted(one.state for one in client.status("scarce").workers)
        print(f"the pool of two that need one accelerator each, where there is one: {states}")

        worker = client.status("work").workers[0]
        running = [client.submit("work", "rest", seconds=3.0) for _ in range(6)]
        until(lambda: sum(one.load for one in client.status("work").workers) >= 6, "running calls")
        client.kill(worker.id)
        print("six idempotent calls, one worker killed:", sorted({outcome(one) for one in running}))
        until(lambda: ready(client, "work") == 2, "a new worker")

        gone = client.status("work").workers[0]
        running = [client.submit("work", "rest", seconds=3.0) for _ in range(6)]
        until(lambda: sum(one.load for one in client.status("work").workers) >= 6, "running calls")
        ray.kill(launcher.workers[gone.id].actor, no_restart=True)
        print("six idempotent calls, one actor lost:", sorted({outcome(one) for one in running}))
        until(lambda: ready(client, "work") == 2, "a new worker")
        print("two workers are ready again")
        try:
            client.dump(client.status("work").workers[0].id)
        except BrokerError as error:
            print("dump:", error.message)


class Echo:
    def echo(self, value: str) -> str:
        return value


async def serve(ray: Any, home: Path) -> None:
    launcher = RayLauncher(home, certificate(home), RESOURCES, (str(ROOT),))
    await launcher.start()
    pools = [{"path": "benchmarks.work.Work", "preload": Preload.OFF, **ENDLESS, **pool} for pool in POOLS]
    metrics = Metrics(Silent())
    recent = RecentEvents(metrics, metrics)
    facts = NodeFacts("ray", "0", os.getpid(), str(home / "broker.sock"), platform.python_version(), "ray")
    broker = Broker(facts, Ports(launcher, GrpcLinker(), SystemClock(), Fixed(pools), recent, recent), random.Random())
    server = make_server(broker, TOKEN, recent)
    await broker.start()
    await server.start(path=facts.address)
    done = asyncio.Event()
    loop, failed = asyncio.get_running_loop(), []

    def run() -> None:
        try:
            scenario(ray, launcher, facts.address)
        except BaseException as error:
            failed.append(error)
        finally:
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run).start()
    await done.wait()
    await broker.stop(1.0)
    await launcher.close()
    server.close()
    if failed:
        raise failed[0]


def main() -> None:
    os.environ[DIRECT_REPLY] = "0"  # a worker on another host does not reach the socket of a caller here
    ray = importlib.import_module("ray")
    environment = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    ray.init(
        num_cpus=2, resources={"accelerator": 1}, include_dashboard=False, log_to_driver=False,
        object_store_memory=80_000_000, runtime_env=environment,
    )  # fmt: skip
    try:
        with tempfile.TemporaryDirectory(prefix="sp-ray-", dir="/tmp") as home:
            asyncio.run(serve(ray, Path(home)))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
