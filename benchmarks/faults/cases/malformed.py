"""Malformed frames: by clients at the broker's socket, and by workers at their own."""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path

from benchmarks.faults.fault import CallCount, Fault, Findings
from benchmarks.faults.frames import attacks
from benchmarks.faults.lab import POOL, Lab, callers, laboratory
from snakepit.pools.broker.errors import BrokerError

GROWS = 48.0  # MiB that the broker may hold after a storm of broken connections


def unaffected(lab: Lab, counted: CallCount, sent: Counter[str]) -> Findings:
    counted.check(lab.found, "calls of others")
    lab.found.expect(counted.right == counted.asked, f"calls of others: {counted}")
    lab.found.expect(lab.node.process.poll() is None, "the broker has ended")
    lab.found.expect(lab.grown_mb() < GROWS, f"the broker grew by {lab.grown_mb():.1f} MiB")
    total = sum(sent.values())
    lab.found.expect(total > 0, "nothing was sent")
    lab.found.measured["sent"] = f"{total:,} ({', '.join(f'{n:,} {kind}' for kind, n in sorted(sent.items()))})"
    lab.found.measured["calls of others"] = str(counted)
    return lab.found


def by_clients(seconds: float) -> Findings:
    counted, sent = CallCount(), Counter[str]()
    with laboratory(2) as lab:
        path, token = lab.node.runtime / "broker.sock", Path(lab.node.runtime / "token").read_text().strip()

        def work(number: int, over: threading.Event) -> None:
            if number < 4:
                for kind in attacks(path, token, random.Random(number)):
                    sent[kind] += 1
                    if over.is_set():
                        return
            while not over.is_set():
                counted.call(lambda: lab.client.call(POOL, "double", number=number, timeout=60.0), 2 * number)

        lab.found.expect(callers(8, work, lambda over: over.wait(seconds)), "callers still wait")
        unaffected(lab, counted, sent)
    return lab.found


def by_workers(seconds: float) -> Findings:
    """A worker that sends what is no report is ended and replaced; another pool serves meanwhile."""
    counted, sent, ends = CallCount(), Counter[str](), Counter[str]()
    other = {"adapter": "target", "size": 2, "death_budget": 100_000, "queue_timeout": 60.0, "cancel_grace": 0.1}
    with laboratory(2, other=other) as lab:

        def work(number: int, over: threading.Event) -> None:
            chance = random.Random(number)
            while not over.is_set():
                if number:
                    counted.call(lambda: lab.client.call(POOL, "double", number=number, timeout=60.0), 2 * number)
                    continue
                kind = chance.choice(("bytes", "frames", "messages"))
                try:
                    lab.client.call("other", "corrupt", kind=kind, seed=chance.getrandbits(32), timeout=3.0)
                except BrokerError as error:
                    ends[error.code] += 1
                    sent[kind] += error.code != "pool_failed"
                else:
                    sent[kind] += 1

        lab.found.expect(callers(4, work, lambda over: over.wait(seconds)), "callers still wait")
        answer = lab.client.call("other", "double", number=21, timeout=60.0)
        lab.found.expect(answer == 42, "the pool of the malformed worker does not serve again")
        lab.found.measured["workers ended"] = f"{lab.node.pool('other').died}, {dict(ends)}"
        unaffected(lab, counted, sent)
    return lab.found


FAULTS = (
    Fault(
        "malformed-clients",
        "Clients send random bytes, HTTP/2 frames and messages to the socket of the broker",
        "The broker does not crash, its memory is bounded, and no call of others fails.",
        (
            "process/contract/test_service.py::test_what_is_no_message_ends_the_session_with_a_reason",
            "process/contract/test_service.py::test_a_message_of_impossible_size_is_refused_before_its_bytes_come",
            "process/contract/test_service.py::test_a_session_answers_bad_calls_one_by_one",
        ),
        by_clients,
        seconds=300.0,
    ),
    Fault(
        "malformed-workers",
        "Workers send random bytes, frames and messages on their link to the broker",
        "The worker is ended and replaced. The broker does not crash, and no call to another worker fails.",
        ("process/workers/test_message_stream.py",),
        by_workers,
        seconds=300.0,
    ),
)
