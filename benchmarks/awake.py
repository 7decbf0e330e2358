"""What waiting awake is worth, and where it is not: `python -m benchmarks.awake`.

Contestants take turns in rounds, so that what else the machine does meets both; figures are medians of the rounds.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from benchmarks.node import running
from benchmarks.work import SMALL
from snakepit.pools.client import Client, connect
from snakepit.pools.client.address import AWAKE
from snakepit.pools.client.arguments import Options, encode

WAYS = (0.0, AWAKE)
PAUSES = (0.0, 0.0001, 0.001, 0.01)  # seconds of sleep between two calls
ROUNDS = 6
CALLS = 150  # a round


def encoding(pause: float, times: int = 1500) -> float:
    """Microseconds that the same code takes after its thread has slept so long; the median."""
    taken = []
    for _ in range(times):
        if pause:
            time.sleep(pause)
        began = time.perf_counter()
        encode("work", "echo", {"value": SMALL}, {}, Options())
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e6


def echoes(clients: Mapping[float, Client], pause: float, way: float) -> tuple[float, float]:
    """The median of echoes one after the other, and the client's CPU time of one, in microseconds."""
    client, taken, cpu = clients[way], [], 0.0
    for _ in range(CALLS):
        began, spent = time.perf_counter(), time.process_time()
        client.call("work", "echo", {"value": SMALL})
        cpu += time.process_time() - spent
        taken.append(time.perf_counter() - began)
        if pause:
            time.sleep(pause)
    return statistics.median(taken) * 1e6, cpu / CALLS * 1e6


def _call(address: str, awake: float, start: Any, calls: int) -> None:
    client = connect(address, awake=awake)
    echoes({awake: client}, 0.0, awake)
    start.wait()
    for _ in range(calls):
        client.call("work", "echo", {"value": SMALL})


def crowd(address: str, clients: int, awake: float, calls: int = 1000) -> float:
    """Calls a second of so many client processes together, each with one call after the other."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(clients + 1)
    processes = [context.Process(target=_call, args=(address, awake, start, calls)) for _ in range(clients)]
    for process in processes:
        process.start()
    start.wait()
    began = time.perf_counter()
    for process in processes:
        process.join()
    return clients * calls / (time.perf_counter() - began)


def by_turns(measure: Callable[[float], Any], rounds: int) -> list[list[Any]]:
    """What was measured of each way, in rounds."""
    found: list[list[Any]] = [[] for _ in WAYS]
    for _ in range(rounds):
        for way, kept in zip(WAYS, found, strict=True):
            kept.append(measure(way))
    return found


def main() -> None:
    for pause in (0.0, 0.00005, 0.0005):
        print(f"encoding a call after {pause * 1e6:.0f} µs of sleep: {encoding(pause):.1f} µs")
    with running(2) as node:
        address = node.client.target.path
        clients = {way: connect(address, awake=way) for way in WAYS}
        for way in WAYS * ROUNDS:  # until all of it is warm
            echoes(clients, 0.0, way)
        for pause in PAUSES:
            asleep, awake = by_turns(partial(echoes, clients, pause), ROUNDS)
            told = [[statistics.median(figure) for figure in zip(*way, strict=True)] for way in (asleep, awake)]
            print(
                f"{pause * 1e3:g} ms between two calls: {told[0][0]:.0f} µs asleep ({told[0][1]:.0f} µs of CPU), "
                f"{told[1][0]:.0f} awake ({told[1][1]:.0f}), {told[1][0] / told[0][0]:.2f}"
            )
        for count in (2, 4, 8):
            asleep, awake = by_turns(partial(crowd, address, count), 3)
            rates = [statistics.median(way) for way in (asleep, awake)]
            print(f"{count} clients: {rates[0]:.0f} calls a second asleep, {rates[1]:.0f} awake")


if __name__ == "__main__":
    main()
