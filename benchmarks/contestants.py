"""Contestants: each starts when a row first needs it, and stops after the last row that does.

Even idle contestants use CPU (heartbeats of Ray and Celery), so none runs longer than needed.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

from benchmarks import node
from benchmarks.peers import celery, executors, litserve, memfd, ray

WORKERS = 2


def _dirty() -> AbstractContextManager[Any]:
    from benchmarks.peers import dirty  # gunicorn comes with the bench extra

    return dirty.running(WORKERS)


STARTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "ours": lambda: node.running(WORKERS),
    "executor": lambda: executors.executor(WORKERS),
    "pool": lambda: executors.pool(WORKERS),
    "celery": lambda: celery.running(WORKERS),
    "dirty": _dirty,
    "memfd": memfd.running,
    "litserve": litserve.running,
    "ray": lambda: ray.running(WORKERS),
}


class RunningContestants:
    def __init__(self) -> None:
        self._on: dict[str, tuple[AbstractContextManager[Any], Any]] = {}

    def get(self, name: str) -> Any:
        if name not in self._on:
            context = STARTS[name]()
            self._on[name] = (context, context.__enter__())
        return self._on[name][1]

    def keep(self, names: Iterable[str]) -> None:
        """Stop all contestants except the named ones."""
        for name in self._on.keys() - set(names):
            context, _ = self._on.pop(name)
            try:
                context.__exit__(None, None, None)
            except Exception:  # its measurement is complete, so the error must not affect the next rows
                traceback.print_exc()

    def __enter__(self) -> RunningContestants:
        return self

    def __exit__(self, *_: object) -> None:
        self.keep(())
