"""Callers of one process, on a host without a broker: `python -m benchmarks.cluster.caller COUNT SECONDS FILE`.

Each thread calls, rests and calls again. Of ten callers, seven call an idempotent command, two another one, and one
calls the placed pool. FILE.begun is made after the first call. FILE.over ends the callers, at the latest SECONDS do.
FILE then gets one line for each call, as JSON.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import django

REST = 1.5  # seconds between two calls of one caller, on average
SHORT = 0.25  # seconds that a call takes at most
IDEMPOTENT, OTHER, PLACED = "idempotent", "other", "placed"
KINDS = (IDEMPOTENT,) * 7 + (OTHER,) * 2 + (PLACED,)
# A lost host is noticed 8 seconds after its last bytes. An idempotent call needs more, so that it can run elsewhere.
DEADLINES = {IDEMPOTENT: 20.0, OTHER: 4.0, PLACED: 4.0}


class Call(NamedTuple):
    """A call and its end. `code`: empty if it was right, `wrong`, the code of an error, or `untyped: ...`."""

    kind: str
    began: float  # on the clock of the machine, which all hosts share
    took: float
    node: str
    code: str


def begun_of(file: str) -> Path:
    return Path(f"{file}.begun")


def over_of(file: str) -> Path:
    return Path(f"{file}.over")


def make(client: Any, kind: str, number: int) -> Call:
    """Make one call."""
    from snakepit.pools.broker.errors import BrokerError

    pool, command = ("gpu" if kind == PLACED else "work"), ("once" if kind == OTHER else "double")
    began, clock, node = time.time(), time.monotonic(), ""
    seconds = random.uniform(0.0, SHORT)
    try:
        found, node = client.call(pool, command, number=number, seconds=seconds, timeout=DEADLINES[kind])
        code = "" if found == 2 * number else "wrong"
    except BrokerError as error:
        code = error.code
    except Exception as error:  # the find: a caller may expect typed errors alone
        code = f"untyped: {type(error).__name__}: {error}"[:300]
    return Call(kind, began, time.monotonic() - clock, node, code)


def main(count: int, seconds: float, file: str) -> None:
    django.setup()
    from snakepit import connect

    client, over, calls = connect(), threading.Event(), []
    begun, ends = begun_of(file), over_of(file)

    def work(number: int) -> None:
        kind = KINDS[number % len(KINDS)]
        while not over.wait(random.uniform(0.0, 2 * REST)):
            calls.append(make(client, kind, random.randrange(10**9)))
            begun.touch()

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    while not ends.exists() and time.monotonic() < end:
        time.sleep(0.1)
    over.set()
    end = time.monotonic() + 2 * max(DEADLINES.values())
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    stuck = sum(thread.is_alive() for thread in threads)
    calls += [Call(IDEMPOTENT, time.time(), 2 * max(DEADLINES.values()), "", "no answer")] * stuck
    Path(file).write_text("".join(json.dumps(call) + "\n" for call in calls))
    client.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
