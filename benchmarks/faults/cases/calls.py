"""Faults that callers make: cancelled calls, floods, streams that stop."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter

from benchmarks.faults.fault import CallCount, Fault, Findings
from benchmarks.faults.lab import POOL, callers, laboratory
from snakepit.pools.broker.errors import BrokerError

TYPED = "Every call ends with its result or one typed error. Slots, descriptors and threads are free afterwards."


def cancel_storm(seconds: float) -> Findings:
    """16 threads and 16 tasks cancel calls at random moments and leave streams early."""
    cancelled: Counter[str] = Counter()
    lock = threading.Lock()
    with laboratory(4, profile="thread", threads=4, queue_limit=10_000) as lab:

        def leave(number: int, over: threading.Event) -> None:
            chance = random.Random(number)
            while not over.is_set():
                if number % 2:
                    kind = "streams"
                    stream = lab.client.stream(POOL, "count", to=10_000)
                    for _ in range(chance.randrange(20)):
                        next(stream)
                    stream.close()
                else:
                    kind = "calls"
                    future = lab.client.submit(POOL, "obey", seconds=30.0)
                    over.wait(chance.random() / 50)
                    future.cancel()
                with lock:
                    cancelled[kind] += 1

        async def tasks() -> None:
            end, chance = time.monotonic() + seconds, random.Random(0)

            async def one() -> None:
                while time.monotonic() < end:
                    task = asyncio.ensure_future(lab.client.acall(POOL, "obey", seconds=30.0))
                    await asyncio.sleep(chance.random() / 50)
                    task.cancel()
                    await asyncio.wait([task])
                    cancelled["tasks"] += 1

            await asyncio.gather(*[one() for _ in range(16)])

        lab.found.expect(callers(16, leave, lambda over: asyncio.run(tasks())), "callers still wait")
        lab.found.expect(sum(cancelled.values()) > 10 * seconds, f"only {cancelled} were cancelled")
        lab.found.measured["cancelled"] = ", ".join(f"{n:,} {kind}" for kind, n in sorted(cancelled.items()))
    return lab.found


def flood(seconds: float) -> Findings:
    """500 callers without a pause, on a pool that may queue 50 calls."""
    counted, hints, asked, slowest = CallCount(), Counter[bool](), 0, 0.0
    with laboratory(2, queue_limit=50) as lab:

        def call(number: int, over: threading.Event) -> None:
            def run() -> int:
                try:
                    return int(lab.client.call(POOL, "double", number=number, seconds=0.01, timeout=60.0))
                except BrokerError as error:
                    hints[bool(error.retry_after)] += 1
                    over.wait(0.05)
                    raise

            while not over.is_set():
                counted.call(run, 2 * number)

        def ask(over: threading.Event) -> None:
            nonlocal asked, slowest
            end = time.monotonic() + seconds
            while (began := time.monotonic()) < end:
                lab.client.status()
                asked, slowest = asked + 1, max(slowest, time.monotonic() - began)
                over.wait(0.1)

        lab.found.expect(callers(500, call, ask), "callers still wait")
        counted.check(lab.found, "calls")
        lab.found.expect(set(counted.errors) <= {"queue_full"}, f"other errors than queue_full: {counted.errors}")
        lab.found.expect(not hints[False], f"{hints[False]} refusals have no retry time")
        lab.found.measured |= {"calls": str(counted), "slowest of the status": f"{slowest:.2f} s of {asked}"}
    return lab.found


def log_flood(seconds: float) -> Findings:
    """A worker prints without end, text and bytes, with and without line ends, beside calls of others."""
    counted, shouted = CallCount(), 0
    size, lines = 100_000, 50
    with laboratory(2) as lab:

        def call(number: int, over: threading.Event) -> None:
            nonlocal shouted
            while not over.is_set():
                if number == 0:
                    lab.client.call(POOL, "shout", lines=lines, size=size, timeout=60.0)
                    shouted += (lines + 1) * size
                else:
                    counted.call(lambda: lab.client.call(POOL, "double", number=number, timeout=60.0), 2 * number)

        lab.found.expect(callers(4, call, lambda over: over.wait(seconds)), "callers still wait")
        counted.check(lab.found, "calls of others")
        lab.found.expect(counted.right == counted.asked, f"calls of others: {counted}")
        lab.found.expect(lab.grown_mb() < 32, f"the broker grew by {lab.grown_mb():.1f} MiB")
        lab.found.measured |= {"printed": f"{shouted / 1e6:,.0f} MB", "calls of others": str(counted)}
    return lab.found


FAULTS = (
    Fault(
        "cancel-storm",
        "32 callers cancel calls at random moments and leave streams early",
        TYPED,
        (
            "process/acceptance/test_faults.py::test_closing_a_stream_early_stops_the_generator",
            "process/contract/test_client.py::test_an_interrupt_cancels_the_call_that_waits",
        ),
        cancel_storm,
    ),
    Fault(
        "flood",
        "500 callers without a pause, on a queue of 50 calls",
        "What exceeds the queue gets `queue_full` immediately, with a retry time. The status answers meanwhile.",
        ("process/acceptance/test_faults.py::test_a_full_queue_refuses_immediately_with_a_retry_time",),
        flood,
    ),
    Fault(
        "log-flood",
        "A worker prints without end: long lines, bytes that are no text, no line ends",
        "No call of others fails. The memory of the broker is bounded.",
        ("unit/broker/test_runner.py",),
        log_flood,
    ),
)
