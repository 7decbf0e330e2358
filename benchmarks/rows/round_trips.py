"""Large values to a worker and back, beside the other ways to move them between processes of one machine."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.util import find_spec
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from benchmarks.row import Contestants, Measured, Row
from benchmarks.timing import medians
from benchmarks.work import same
from snakepit.pools.client import connect

SIZES = {"1MB": 1_000_000, "100MB": 100_000_000, "1GB": 1_000_000_000}
COUNTS = {"1MB": 200, "100MB": 8, "1GB": 1}
MOST = {"1MB": 1.0, "100MB": 1 / 3, "1GB": 1 / 3}  # times ProcessPoolExecutor
FRAME_ROWS = 1_000_000
FRAME = "round-trip-frame"
HAS_PANDAS = find_spec("pandas") is not None

Peer = Callable[[Contestants, Any], Callable[[], object]]


def in_shared_memory(value: Any) -> SharedMemory:
    """A copy of an array in multiprocessing's shared memory."""
    import numpy as np

    memory = SharedMemory(create=True, size=value.nbytes)
    np.frombuffer(memory.buf, value.dtype)[:] = value  # type: ignore[arg-type]
    return memory


def same_shared(name: str) -> str:
    """In the worker: a copy of the array under this name, under another name."""
    import numpy as np

    given = SharedMemory(name)
    made = in_shared_memory(np.frombuffer(given.buf, "f8"))  # type: ignore[arg-type]
    for memory in (given, made):
        memory.close()
        # Its caller removes both. The tracker of this process would do it once more at the end, and warn.
        resource_tracker.unregister(f"/{memory.name}", "shared_memory")
    return made.name


def _executor(contestants: Contestants, value: Any) -> Callable[[], object]:
    executor = contestants.get("executor")
    return lambda: executor.submit(same, value).result()


def _shared_memory(contestants: Contestants, value: Any) -> Callable[[], object]:
    executor = contestants.get("executor")

    def call() -> None:
        sent = in_shared_memory(value)
        got = SharedMemory(executor.submit(same_shared, sent.name).result())
        for memory in (sent, got):
            memory.close()
            memory.unlink()

    return call


def _ray(contestants: Contestants, value: Any) -> Callable[[], object]:
    actors = contestants.get("ray")
    return lambda: actors.echo(value)


def _dirty(contestants: Contestants, value: Any) -> Callable[[], object]:
    dirty = contestants.get("dirty")
    return lambda: dirty.echo(value)


def _array(size: int) -> Any:
    import numpy as np  # comes with the bench extra

    return np.ones(size // 8)


def _frame(rows: int) -> Any:
    import numpy as np

    pandas, numbers = importlib.import_module("pandas"), np.arange(rows)
    return pandas.DataFrame({"id": numbers, "value": numbers / 3, "at": pandas.to_datetime(numbers, unit="s")})


def _row(name: str, what: str, value: Callable[[], Any], peer: tuple[str, str, Peer], **more: Any) -> Row:
    title, contestant, call = peer

    def measure(contestants: Contestants) -> Measured:
        theirs = call(contestants, given := value())
        client = connect(contestants.get("ours").client.target.path)
        return Measured(*medians(lambda: client.call("work", "same", value=given), theirs, more["count"]))

    return Row(name, what, title, "µs p50", measure, (contestant, "ours"), more.get("most"))


EXECUTOR = ("ProcessPoolExecutor", "executor", _executor)
OTHERS = {
    "shared-memory": ("multiprocessing.shared_memory", "executor", _shared_memory),
    "ray": ("Ray actor", "ray", _ray),
}


def _arrays(size: str) -> list[Row]:
    what, count = f"an array of {size}, there and back", COUNTS[size]

    def value() -> Any:
        return _array(SIZES[size])

    rows = [_row(f"round-trip-{size}", what, value, EXECUTOR, count=count, most=MOST[size])]
    return rows + [_row(f"round-trip-{size}-{name}", what, value, peer, count=count) for name, peer in OTHERS.items()]


ROWS = (
    *(row for size in SIZES for row in _arrays(size)),
    _row(
        "round-trip-1MB-dirty",
        "1 MB of bytes, there and back",
        lambda: bytes(SIZES["1MB"]),
        ("gunicorn dirty arbiters", "dirty", _dirty),
        count=COUNTS["1MB"],
    ),
    _row(
        FRAME,
        f"a pandas frame of {FRAME_ROWS:,} rows, there and back",
        lambda: _frame(FRAME_ROWS),
        EXECUTOR,
        count=16,
    ),
)
