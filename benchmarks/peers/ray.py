"""Ray actors, where Ray is installed: one warm actor a worker, called in turn."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import cycle
from typing import Any

from benchmarks import work

INSTALLED = find_spec("ray") is not None


class Echo:
    def echo(self, value: str) -> str:
        return work.echo(value)


class Actors:
    def __init__(self, ray: Any, workers: int) -> None:
        self._ray = ray
        self._actors = [ray.remote(Echo).options(num_cpus=0).remote() for _ in range(workers)]
        ray.get([actor.echo.remote("") for actor in self._actors])

    def echo(self, value: str) -> object:
        return self._ray.get(self._actors[0].echo.remote(value))

    def many(self, count: int) -> None:
        turn = cycle(self._actors)
        self._ray.get([next(turn).echo.remote(work.SMALL) for _ in range(count)])


@contextmanager
def running(workers: int) -> Iterator[Actors]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no telemetry
    import ray

    ray.init(
        _node_ip_address="127.0.0.1",
        num_cpus=workers,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield Actors(ray, workers)
    finally:
        ray.shutdown()
