"""Advice with real brokers and processes: the problem is made, the advice comes, it is followed, the problem is gone.

Nothing here depends on how fast the machine is: where a figure of it goes into the advice, the advice is followed until
there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Barrier
from typing import Any

from snakepit.pools.broker.errors import BrokerError, DeadlineExceeded
from snakepit.pools.broker.spec import spec_from
from snakepit.pools.broker.status import UsageStatus
from snakepit.pools.diagnostics.advice import Enough, Judgement
from snakepit.pools.diagnostics.recommendations import judge
from tests.brokers import RunningBroker, broker, eventually

# As little as a test can wait for; an operator's figures are of minutes.
SOON = Enough(calls=20, seconds=2.0, idle_seconds=2.0)
ROUNDS = 12  # of following; each doubles what it changes, or nearly so


@dataclass
class Advised:
    """A broker with one pool, its definition, and one rule's word on it."""

    node: RunningBroker
    rule: str
    fields: dict[str, Any]
    load_seconds: float = 0.0  # of a start, when the rule was asked last

    def judged(self) -> Judgement:
        status = self.node.status()
        self.load_seconds = status.pools[0].load_seconds or 0.0
        specs = {"p": spec_from({"adapter": "everything", **self.fields, "name": "p"})}
        return next(one for one in judge(status.pools, specs, status.workers, enough=SOON) if one.rule == self.rule)

    def word(self, work: Callable[[], None]) -> Judgement:
        """Work until there is enough evidence, and what is made of it then."""
        work()
        while (found := self.judged()).verdict == "not enough evidence":
            work()
        return found

    def follow(self, found: Judgement) -> None:
        assert found.advice, found
        self.fields |= found.advice.values
        self.node.define({"p": self.fields})
        self.node.client.apply()

    def until_fine(self, work: Callable[[], None]) -> list[Judgement]:
        """Follow until there is no advice; returns what was advised."""
        followed: list[Judgement] = []
        while (found := self.word(work)).advice:
            followed.append(found)
            assert len(followed) < ROUNDS, [one.evidence for one in followed]
            self.follow(found)
        assert found.verdict in ("fine", "does not apply"), found
        return followed

    def memory(self, workers: int) -> float:
        """The memory of so many workers together, once each was read."""

        def measured() -> float:
            self.node.client.sweep("test", 3600.0)
            found = [one.memory_mb for one in self.node.status("p").workers]
            return sum(found) if len(found) == workers and min(found) > 0 else 0.0

        return float(eventually(measured, "the memory of the workers"))

    @property
    def usage(self) -> UsageStatus:
        return self.node.pool("p").usage


@contextmanager
def advised(rule: str, **fields: Any) -> Iterator[Advised]:
    with broker({"p": fields}) as node:
        node.ready("p", fields.get("size", 1))
        yield Advised(node, rule, fields)


def test_a_leak_is_bounded_by_the_calls_that_are_advised() -> None:
    with advised("leak", size=1, min_lifetime=0.0, jitter=0.0) as pool:

        def leak() -> None:
            pool.node.client.call("p", "leaks", megabytes=1)

        def leak_measured() -> None:
            leak()
            pool.node.client.sweep("test", 3600.0)

        def served() -> dict[str, int]:
            return {one.id: one.served for one in pool.node.status("p").workers}

        found = pool.word(leak_measured)
        assert found.advice
        assert "in `leaks`: max_requests none to" in found.advice.sentence
        (grown,) = served()
        limit = found.advice.values["max_requests"]
        assert served()[grown] > 20
        pool.follow(found)
        while not pool.node.told("worker.recycled", worker=grown):
            leak()
        before = set(served())
        while not set(served()).isdisjoint(before):  # the next one, too, has its calls and no more
            leak()
        reasons = {one["worker"]: one["reason"] for one in pool.node.told("worker.recycled")}
        assert set(reasons.values()) == {"max_requests"}
        assert f"max_requests {limit:,} bounds it" in pool.judged().evidence


def test_a_queue_that_is_too_short_refuses_no_call_once_it_is_as_long_as_advised() -> None:
    with (
        advised("queue_limit", size=1, queue_limit=1, queue_timeout=20.0) as pool,
        ThreadPoolExecutor(8) as callers,
    ):

        def crowd() -> None:
            together = Barrier(8)

            def call(_: int) -> str:
                together.wait()
                try:
                    pool.node.client.call("p", "sleep", seconds=0.05)
                except BrokerError as error:
                    return error.code
                return ""

            told = set(callers.map(call, range(8)))
            assert told <= {"", "queue_full", "queue_timeout"}  # the last while the machine stops

        followed = pool.until_fine(crowd)
        assert "of the calls were refused by queue_limit 1" in followed[0].evidence
        assert pool.usage.refused == 0


def test_calls_that_overran_have_the_time_that_is_advised() -> None:
    with advised(
        "call_timeout", size=1, call_timeout=0.1, cancel_grace=0.0, queue_timeout=60.0, death_budget=1000
    ) as pool:

        def call() -> None:
            for command, arguments in [("sleep", {"seconds": 0.3}), *[("echo", {"value": 1})] * 4]:
                with suppress(DeadlineExceeded):
                    pool.node.client.call("p", command, arguments)

        followed = pool.until_fine(call)
        assert "of the calls did not end by their deadline" in followed[0].evidence
        assert pool.fields["call_timeout"] >= 0.4
        assert pool.usage.overran <= 0.05 * pool.usage.answered


def test_unneeded_workers_are_gone_and_no_call_waits_for_them() -> None:
    with advised("idle", size=5) as pool:

        def call() -> None:
            pool.node.client.call("p", "echo", value=1)
            pool.node.client.sweep("test", 3600.0)

        before = pool.memory(workers=5)
        followed = pool.until_fine(call)
        size = pool.fields["size"]
        assert size < 5
        assert "of 5 slots together" in followed[0].evidence
        pool.node.until("worker.recycled", 5 - size, pool="p")
        call()
        assert pool.node.pool("p").ready == size
        assert pool.memory(workers=size) < before


def test_workers_that_hardly_lived_live_longer_once_their_ttl_is_as_advised() -> None:
    with advised("ttl", size=1, ttl=1.0, min_lifetime=0.0) as pool:

        def call() -> None:
            pool.node.client.call("p", "echo", value=1)

        followed = pool.until_fine(call)
        assert "ttl 1 s, and a start takes" in followed[0].evidence
        assert pool.fields["ttl"] >= 20 * pool.load_seconds > 0


def test_copies_that_each_worker_held_are_shared_once_they_are_forked_as_advised() -> None:
    model = 60.0  # MiB
    fields = {"adapter": "heavy", "size": 4, "preload": "off"}
    with advised("preload", **fields) as pool:

        def look() -> None:
            pool.node.client.sweep("test", 3600.0)

        def measured(least: float) -> float:
            """The pool's memory, once four workers and their template were read after the model was loaded."""
            while True:
                look()
                status = pool.node.status("p")
                (row,), workers = status.pools, [one for one in status.workers if one.state == "ready"]
                found = [one.memory_mb for one in workers] + [row.template.memory_mb] * (row.template.state == "ready")
                if len(workers) == len(status.workers) == 4 and min(found) > least:
                    return row.memory_mb

        found = pool.word(look)
        assert found.advice, found
        before = measured(model)
        pool.follow(found)
        pool.node.until("worker.recycled", 4, pool="p")
        pool.node.ready("p", 8)
        after = measured(model / 5)  # what five processes share counts a fifth in each
        assert (pool.judged().verdict, pool.node.pool("p").template.state) == ("fine", "ready")
        assert after < before - model, "four copies have become one, and the template counts, too"
