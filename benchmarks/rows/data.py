"""Large values: arrays to a worker and back, in shared memory here and pickled on a pipe there."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from benchmarks.row import Contestants, Measured, Row
from benchmarks.timing import medians
from benchmarks.work import array_of, sum_of
from snakepit.pools.client import connect

SIZES = {"100kB": 100_000, "1MB": 1_000_000, "100MB": 100_000_000}
COUNTS = {"100kB": 400, "1MB": 200, "100MB": 16}
MOST = {"100kB": 1.5, "1MB": 1.0, "100MB": 1 / 3}  # times ProcessPoolExecutor


def shared_array_of(size: int) -> str:
    """An array in multiprocessing's shared memory; the caller reads and removes it."""
    import numpy as np

    memory = SharedMemory(create=True, size=size)
    assert memory.buf is not None
    np.frombuffer(memory.buf, "f8")[:] = 1
    name = memory.name
    memory.close()
    return name


def _read_shared(name: str) -> None:
    memory = SharedMemory(name)
    memory.close()
    memory.unlink()


def _result(name: str, command: str = "array_of") -> Callable[[Contestants], Measured]:
    def measure(contestants: Contestants) -> Measured:
        size, executor = SIZES[name], contestants.get("executor")
        client = connect(contestants.get("ours").client.target.path)
        return Measured(
            *medians(
                lambda: client.call("work", command, size=size),
                lambda: executor.submit(array_of, size).result(),
                COUNTS[name],
            )
        )

    return measure


def _argument(name: str) -> Callable[[Contestants], Measured]:
    def measure(contestants: Contestants) -> Measured:
        import numpy as np  # comes with the bench extra

        value, executor = np.ones(SIZES[name] // 8), contestants.get("executor")
        client = connect(contestants.get("ours").client.target.path)
        return Measured(
            *medians(
                lambda: client.call("work", "sum_of", value=value),
                lambda: executor.submit(sum_of, value).result(),
                COUNTS[name],
            )
        )

    return measure


def _shared(contestants: Contestants) -> Measured:
    executor, size = contestants.get("executor"), SIZES["100MB"]
    client = connect(contestants.get("ours").client.target.path)
    ours, peer = medians(
        lambda: client.call("work", "array_of", size=size),
        lambda: _read_shared(executor.submit(shared_array_of, size).result()),
        COUNTS["100MB"],
    )
    return Measured(ours, peer, note="the peer's memory has a name that its caller must remove")


def _bare(contestants: Contestants) -> Measured:
    files, executor, size = contestants.get("memfd"), contestants.get("executor"), SIZES["100MB"]
    bare, peer = medians(
        lambda: files.array_of(size), lambda: executor.submit(array_of, size).result(), COUNTS["100MB"]
    )
    return Measured(bare, peer, note="nothing of this project: what the kernel takes for a new file in each call")


def _row(name: str, what: str, measure: Callable[[Contestants], Measured], most: float | None, **more: Any) -> Row:
    peer = more.get("peer", "ProcessPoolExecutor")
    return Row(name, what, peer, "µs p50", measure, ("executor", "ours"), most)


ROWS = (
    *(_row(f"result-{name}", f"an array of {name} as a result", _result(name), MOST[name]) for name in SIZES),
    *(_row(f"argument-{name}", f"an array of {name} as an argument", _argument(name), MOST[name]) for name in SIZES),
    _row("in-place-100MB", "an array of 100MB, computed in place", _result("100MB", "placed_array_of"), 0.1),
    Row(
        "in-place-bare",
        "the same in a bare memory file, without this project",
        "ProcessPoolExecutor",
        "µs p50",
        _bare,
        ("executor", "memfd"),
    ),
    _row("result-shared-memory", "an array of 100MB as a result", _shared, None, peer="multiprocessing.shared_memory"),
)
