"""A caller of large values, of which a third is cancelled and a tenth is late. A sixth are streams.

    python -m benchmarks.faults.large_calls ADDRESS POOL SEED

It calls until its standard input closes, and prints how each call ended. Its last line is what it still holds.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.client import Client, connect

THREADS = 3
LATE_ONES = frozenset({1, 11, 22})  # of each 30 calls; those divisible by 3 are cancelled
LATE = 0.001  # seconds
TAKES = 0.02  # seconds that a call takes which is cancelled or late
STREAMS = frozenset({4, 14, 19, 26, 29})  # of each 30 calls; most readers leave before the end
CHUNKS = 4
SIZES = (100_000, 200_000, 1_000_000, 4_000_000)  # bytes: beside the message, and in files


class LargeCaller:
    """Makes calls one after the other. `count` gets how each ended: right, wrong, cancelled, or an error's code."""

    def __init__(self, client: Client, count: Callable[[str], None], seed: int, pool: str) -> None:
        self._client, self._count, self._pool = client, count, pool
        self._chance = random.Random(seed)

    def run(self, over: threading.Event) -> None:
        number = self._chance.randrange(30)
        while not over.is_set():
            number += 1
            self._count(self.call(number))

    def call(self, number: int) -> str:
        """Make one call and return how it ended."""
        chance, expected = self._chance, float(number % 1000)
        value = np.full(chance.choice(SIZES) // 8, expected)
        arguments = {"value": value, "placed": bool(number % 2), "seconds": 0.0}
        try:
            if number % 30 in STREAMS:
                return self._stream(value, bool(number % 2))
            if number % 3 == 0:
                arguments["seconds"] = TAKES
                future = self._client.submit(self._pool, "mirror", arguments, timeout=60.0)
                threading.Event().wait(chance.random() / 60)
                if future.cancel():
                    return "cancelled"
                found = future.result()
            else:
                is_late = number % 30 in LATE_ONES
                arguments["seconds"] = TAKES if is_late else 0.0
                found = self._client.call(self._pool, "mirror", arguments, timeout=LATE if is_late else 60.0)
        except BrokerError as error:
            return error.code
        return "right" if found.shape == value.shape and (found == expected).all() else "wrong"

    def _stream(self, value: Any, placed: bool) -> str:
        arguments = {"value": value, "placed": placed, "count": CHUNKS}
        with self._client.stream(self._pool, "mirrors", arguments, timeout=60.0) as stream:
            read = [found for _, found in zip(range(self._chance.randint(1, CHUNKS)), stream, strict=False)]
        return "right" if read and all(np.array_equal(found, value) for found in read) else "wrong"


def main() -> None:
    client, over, lock = connect(sys.argv[1]), threading.Event(), threading.Lock()

    def count(end: str) -> None:
        with lock:
            print(end, flush=True)

    pool, seed = sys.argv[2], int(sys.argv[3]) * THREADS
    callers = [LargeCaller(client, count, seed + number, pool) for number in range(THREADS)]
    threads = [threading.Thread(target=one.run, args=(over,)) for one in callers]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()
    from benchmarks.faults.census import memory_files, until

    gc.collect()
    until(lambda: memory_files(os.getpid()) == 0, 30.0)
    print(f"left {memory_files(os.getpid())}", flush=True)
    client.close()


if __name__ == "__main__":
    main()
