"""Sequential calls: the overhead of a call."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from benchmarks.row import Contestants, Measured, Row
from benchmarks.timing import medians, rates
from benchmarks.work import LARGE, SMALL, burn, echo
from snakepit.pools.client import connect

Peer = Callable[[Contestants], Callable[[], object]]


def _beside(count: int, command: str, arguments: dict[str, Any], peer: Peer) -> Callable[[Contestants], Measured]:
    def measure(contestants: Contestants) -> Measured:
        ours = contestants.get("ours")
        other = peer(contestants)
        client = connect(ours.client.target.path)
        meter = ours.meter("work", os.getpid())
        medians_of = medians(lambda: client.call("work", command, arguments), other, count)
        cpu = meter.per_call(count)
        del cpu["client"]  # it made the peer's calls too
        return Measured(*medians_of, cpu=cpu)

    return measure


def _executor(function: Callable[..., object], argument: object) -> Peer:
    def peer(contestants: Contestants) -> Callable[[], object]:
        executor = contestants.get("executor")
        return lambda: executor.submit(function, argument).result()

    return peer


def _pool(contestants: Contestants) -> Callable[[], object]:
    pool = contestants.get("pool")
    return lambda: pool.apply(echo, (SMALL,))


def _celery(contestants: Contestants) -> Callable[[], object]:
    contestants.get("celery")
    from benchmarks.peers.celery import echo as task

    return lambda: task.delay(SMALL).get(timeout=60)


def _dirty(contestants: Contestants) -> Callable[[], object]:
    dirty = contestants.get("dirty")
    return lambda: dirty.echo(SMALL)


def _ray(contestants: Contestants) -> Callable[[], object]:
    actors = contestants.get("ray")
    return lambda: actors.echo(SMALL)


def _stream(contestants: Contestants) -> Measured:
    ours, dirty = contestants.get("ours"), contestants.get("dirty")

    def read(count: int) -> None:
        for _ in ours.client.stream("work", "chunks", count=count):
            pass

    def read_peer(count: int) -> None:
        for _ in dirty.chunks(count):
            pass

    return Measured(*rates(read, read_peer, 10_000, 2_000))


def _stream_target(contestants: Contestants) -> Measured:
    ours = contestants.get("ours")

    def read(count: int) -> None:
        for _ in ours.client.stream("work", "chunks", count=count):
            pass

    return Measured(rates(read, lambda count: None, 10_000, 1)[0], 20_000, note="the peer's column is the bar")


ECHO = {"value": SMALL}


def _echo(name: str, peer: str, count: int, contestant: str, theirs: Peer, target: float | None = None) -> Row:
    what, measure = "echo of 100 bytes, one after the other", _beside(count, "echo", ECHO, theirs)
    return Row(name, what, peer, "µs p50", measure, (contestant, "ours"), target)


ROWS = (
    _echo("overhead-executor", "ProcessPoolExecutor", 2000, "executor", _executor(echo, SMALL), 2.5),
    _echo("overhead-pool", "multiprocessing.Pool", 2000, "pool", _pool),
    Row(
        "echo-100kB",
        "echo of 100 kB, one after the other",
        "ProcessPoolExecutor",
        "µs p50",
        _beside(400, "echo", {"value": LARGE}, _executor(echo, LARGE)),
        ("executor", "ours"),
    ),
    Row(
        "work-1ms",
        "1 ms of CPU, one after the other",
        "ProcessPoolExecutor",
        "µs p50",
        _beside(800, "burn", {"seconds": 0.001}, _executor(burn, 0.001)),
        ("executor", "ours"),
    ),
    Row(
        "work-50ms",
        "50 ms of CPU, one after the other",
        "ProcessPoolExecutor",
        "µs p50",
        _beside(40, "burn", {"seconds": 0.05}, _executor(burn, 0.05)),
        ("executor", "ours"),
    ),
    _echo("overhead-celery", "Celery + Valkey", 2000, "celery", _celery, 0.125),
    _echo("overhead-dirty", "gunicorn dirty arbiters", 2000, "dirty", _dirty, 1),
    _echo("overhead-ray", "Ray actor", 800, "ray", _ray),
    Row(
        "stream-dirty",
        "chunks of 1 kB of one stream",
        "gunicorn dirty arbiters",
        "chunks/s",
        _stream,
        ("dirty", "ours"),
        smaller=False,
    ),
    Row(
        "stream",
        "chunks of 1 kB of one stream, 10,000 of them",
        "the target",
        "chunks/s",
        _stream_target,
        ("ours",),
        target=1,
        smaller=False,
    ),
)
