"""The standard library's process pools: in the caller's own process tree, no broker, pickle on a pipe."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.pool import Pool

from benchmarks.work import echo


@contextmanager
def executor(workers: int) -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(workers) as pool:
        # It forks when it is first used. Now, that is, before this process has threads, which no fork should meet.
        for _ in pool.map(echo, [""] * workers):
            pass
        yield pool


@contextmanager
def pool(workers: int) -> Iterator[Pool]:
    with multiprocessing.Pool(workers) as started:
        yield started
