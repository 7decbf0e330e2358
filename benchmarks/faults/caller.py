"""A client for the soak: `python -m benchmarks.faults.caller ADDRESS` calls until its standard input closes."""

from __future__ import annotations

import sys
import threading

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.client import connect

POOL = "p"
CALLERS = 4


def main() -> None:
    client = connect(sys.argv[1])
    over = threading.Event()

    def call() -> None:
        number = 0
        while not over.wait(0.02):
            number += 1
            try:
                assert client.call(POOL, "double", number=number, timeout=60.0) == 2 * number
                assert len(list(client.stream(POOL, "count", to=20, size=100, timeout=60.0))) == 20
                future = client.submit(POOL, "obey", seconds=30.0)
                over.wait(0.01)
                future.cancel()
            except BrokerError:
                continue

    threads = [threading.Thread(target=call) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()
    client.close()


if __name__ == "__main__":
    main()
