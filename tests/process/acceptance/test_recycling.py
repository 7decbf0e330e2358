"""Workers are replaced under a steady load without anybody noticing: by count, by age, and because they leak."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import PATIENCE, RunningBroker, broker, eventually

pytestmark = pytest.mark.slow
BASE = {"size": 4, "min_lifetime": 0.0, "queue_timeout": 120.0}
A_SECOND = 100
IN_FLIGHT = 200  # calls at most
REPLACED = 8  # twice the pool


@pytest.mark.parametrize(
    ("reason", "policy", "command", "arguments"),
    [
        ("max_requests", {"max_requests": 50}, "echo", {"value": 1}),
        ("ttl", {"ttl": 2.0, "jitter": 0.5}, "echo", {"value": 1}),
        ("memory_soft", {"memory_soft_mb": 100.0}, "leaks", {"megabytes": 1}),
    ],
)
def test_no_call_fails_and_no_worker_is_missing_while_all_are_replaced(
    reason: str, policy: dict[str, Any], command: str, arguments: dict[str, Any]
) -> None:
    with broker({"p": {**BASE, **policy}}, interval=1.0) as node:
        node.ready("p", 4)
        load = Load(node, command, arguments)
        with load:
            recycled = node.until("worker.recycled", REPLACED, patience=3 * PATIENCE, reason=reason)
        assert not load.errors
        assert load.sent > A_SECOND
        assert recycled["data"]["served"] > 0
        assert any(character.isdigit() for character in recycled["message"]), "the event has no numbers"
        fewest, most = extremes(node.events)
        assert fewest >= 4, "a worker was missing"
        assert most <= 5, "more workers than size and surge"


class Load:
    """Calls at a steady pace, but no more in flight than the queue takes of a slow pool; every answer is looked at."""

    def __init__(self, node: RunningBroker, command: str, arguments: dict[str, Any]) -> None:
        self._node, self._command, self._arguments = node, command, arguments
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sent = 0
        self.errors: list[BaseException] = []

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        began, calls = time.monotonic(), list[Future[Any]]()
        while not self._stop.wait(1 / A_SECOND):
            room = IN_FLIGHT - sum(not call.done() for call in calls[-IN_FLIGHT:])
            for _ in range(min(room, int((time.monotonic() - began) * A_SECOND) - self.sent)):
                calls.append(self._node.client.submit("p", self._command, self._arguments))
                self.sent += 1
        self.errors = [error for call in calls if (error := call.exception(timeout=PATIENCE))]


def extremes(events: list[dict[str, Any]]) -> tuple[int, int]:
    """The fewest and the most ready workers since all were ready for the first time, read off the events."""
    counts = ready_counts(events)
    return min(counts[counts.index(4) :]), max(counts)


def ready_counts(events: list[dict[str, Any]]) -> list[int]:
    """How many workers were ready after each event."""
    ready, counts = 0, []
    for event in events:
        if event["kind"] == "worker.started":
            ready += 1
        elif event["kind"] in ("worker.draining", "worker.died"):
            ready -= 1
        counts.append(ready)
    return counts


def test_a_leak_is_named_in_status_metrics_and_event() -> None:
    with broker({"p": {**BASE, "size": 1, "memory_soft_mb": 250.0}}, interval=3600.0) as node:
        node.ready("p")
        assert node.client.call("p", "leaks", megabytes=2) == 2  # what the first call loads is left out
        served = 1
        node.until_served("p", served)
        node.client.sweep("test", 3600.0)
        eventually(lambda: node.status("p").workers[0].memory_mb > 0, "a sample")
        turn = 0
        while not node.told("worker.draining"):
            turn += 1
            calls = [node.client.submit("p", "leaks", {"megabytes": 2}) for _ in range(1 + turn % 5)]
            calls += [node.client.submit("p", "echo", {"value": 1}) for _ in range(10 * (turn % 3))]
            assert all(call.exception(timeout=PATIENCE) is None for call in calls)
            served += len(calls)
            # The broker looks at its memory by itself, too: it may leave at any time, and its count with it.
            eventually(lambda all_=served: node.told("worker.draining") or counted(node) >= all_, "the count of calls")
            samples = node.pool("p").growth.samples
            node.client.sweep("test", 3600.0)
            # No call runs while it is sampled: the figure is exact but for what others share with the worker.
            eventually(
                lambda before=samples: node.pool("p").growth.samples != before or node.told("worker.draining"),
                "a sample",
            )
        found = node.pool("p").growth
        assert (found.verdict, found.mostly) == ("measured", "leaks")
        leaks = found.commands[0]
        assert (leaks.command, leaks.verdict) == ("leaks", "measured")
        assert leaks.error < 100
        assert abs(leaks.mb_per_1000_calls - 2000) < 50 + 3 * leaks.error
        assert 'snakepit_command_growth_bytes_per_call{command="leaks",pool="p"}' in node.client.metrics()
        drained = node.until("worker.draining", reason="memory_soft")
        assert "MiB per 1,000 calls, mostly `leaks`" in drained["message"]


def counted(node: RunningBroker) -> int:
    return sum(worker.served for worker in node.status("p").workers)


def test_a_worker_that_exits_runs_at_a_lower_priority(tmp_path: Path) -> None:
    recent = tmp_path / "recent"
    with broker({"p": {"size": 1, "args": {"recent": str(recent)}}}) as node:
        node.ready("p")
        own = node.client.call("p", "notes_its_end")
        for recycled in range(1, 6):
            node.client.recycle("p")
            node.until("worker.recycled", recycled)
            if recent.exists():
                break
            assert len(node.told("worker.killed")) == recycled, "it had its time for the exit"  # or the machine stopped
            assert node.client.call("p", "notes_its_end") == own
        assert recent.read_text() == f"nice {max(own, 10)}\n"
        assert node.client.call("p", "notes_its_end") == own


def test_slow_workers_of_the_same_age_do_not_leave_together_and_the_first_is_not_late() -> None:
    # A successor begins earlier than its worker is due by the time that a start takes. A machine that stops for longer
    # makes it late: then with longer times.
    assert any(replace_slow_workers(seconds) for seconds in (3.0, 6.0, 12.0))


def replace_slow_workers(seconds: float) -> bool:
    """Whether the first successor began before its worker was due."""
    ttl = 10.0 / 3.0 * seconds
    policy = {**BASE, "adapter": "loads", "args": {"seconds": seconds}, "size": 8, "ttl": ttl, "jitter": 0.0}
    with broker({"p": policy}, interval=3.0) as node:
        node.ready("p", 8)
        first = node.until("worker.draining", reason="ttl", patience=PATIENCE)
        assert node.pool("p").load_seconds > seconds
        node.until("worker.recycled", 3, patience=2 * PATIENCE, reason="ttl")
        counts = ready_counts(node.events)
        assert 8 <= max(counts) <= 9
        assert min(counts[counts.index(8) :]) == 8, "a worker was missing"
        drained = [event["at"] for event in node.told("worker.draining")]
        started = [event["at"] for event in node.told("worker.started")]
        assert all(successor < leaver for successor, leaver in zip(started[8:], drained, strict=False))
        assert drained[2] - drained[0] > 2 * seconds, "each of them waits for a successor that loads for so long"
        # Its successor began before it was due: `lived` is counted from the moment at which it was ready.
        begun = node.told("worker.starting", reason="ttl")[0]
        assert begun["data"]["replaces"] == first["worker"]
        return bool(begun["at"] < started[0] + ttl)
