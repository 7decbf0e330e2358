"""Calls against a real broker with real workers: what goes right, and what goes wrong in a typed way."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from snakepit.pools.broker import errors
from snakepit.pools.client import Json
from tests.brokers import PATIENCE, RunningBroker, broker, eventually

# A grace that no busy machine needs: a cancelled command must end by itself.
PROCESS = {"size": 1, "max_payload": 2**20, "max_buffer": 2**20, "cancel_grace": PATIENCE}
THREAD = {"profile": "thread", "size": 1, "threads": 2, "cancel_grace": PATIENCE}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    with broker({"one": PROCESS, "threads": THREAD, "paused": {"size": 1, "paused": True}}) as running:
        running.ready("one")
        running.ready("threads")
        yield running


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("pool", ["one", "threads"])
@pytest.mark.parametrize("value", [None, 1, 2.5, "é\u2028", [1, [2]], {"a": {"b": None}}, True])
def test_a_value_comes_back_as_it_went(node: RunningBroker, pool: str, value: object) -> None:
    assert node.client.call(pool, "echo", value=value) == value


@pytest.mark.parametrize("pool", ["one", "threads"])
def test_a_snooze_reaches_the_caller_with_its_seconds(node: RunningBroker, pool: str) -> None:
    with pytest.raises(errors.Snoozed, match="put its work off for 90 s") as caught:
        node.client.call(pool, "puts_off", seconds=90)
    assert (caught.value.retry_after, caught.value.outcome) == (90.0, "failed")


def test_bytes_travel_as_bytes(node: RunningBroker) -> None:
    assert node.client.call("one", "returns_bytes", size=70_000) == b"\0" * 70_000


@pytest.mark.parametrize(
    ("pool", "command", "arguments", "error", "words"),
    [
        ("ones", "echo", {}, errors.PoolUnknown, "Did you mean one"),
        ("one", "ecko", {}, errors.CommandUnknown, "Did you mean echo"),
        ("one", "note", {}, errors.CommandUnknown, "note"),
        ("one", "__init__", {}, errors.CommandUnknown, "__init__"),
        ("one", "typed", {}, errors.BadArguments, "count"),
        ("one", "typed", {"count": "3"}, errors.BadArguments, "count"),
        ("one", "typed", {"count": 3, "cuont": 4}, errors.BadArguments, "cuont"),
        ("one", "typed", {"count": 3, "names": ["a", 5]}, errors.BadArguments, "names[1]"),
        ("one", "echo", {"value": [object()]}, errors.BadArguments, "value[0]: "),
        ("one", "raises", {}, errors.AdapterError, "as asked"),
        ("one", "exits", {"code": 3}, errors.AdapterError, "exit"),
        ("one", "returns_text", {"size": 2**20}, errors.ResultTooLarge, "1,048,576"),
        ("one", "returns_bytes", {"size": 2**20 + 1}, errors.ResultTooLarge, "1,048,576"),
        ("one", "echo", {"value": "x" * 2**20}, errors.PayloadTooLarge, "1,048,576"),
        ("paused", "echo", {}, errors.PoolPaused, "paused"),
    ],
)
def test_what_is_wrong_gets_its_typed_error(
    node: RunningBroker, pool: str, command: str, arguments: dict[str, object], error: type, words: str
) -> None:
    with pytest.raises(error) as caught:
        node.client.call(pool, command, arguments)
    assert words in str(caught.value)
    assert node.client.call("one", "echo", value="still here") == "still here"


def test_500_levels_of_nesting_are_refused(node: RunningBroker) -> None:
    deep: list[object] = []
    for _ in range(500):
        deep = [deep]
    with pytest.raises((errors.BadArguments, errors.BadRequest), match=r"deep|level|nest"):
        node.client.call("one", "echo", value=deep)
    assert node.client.call("one", "echo", value=1) == 1


def test_an_exception_arrives_with_its_type_and_remote_traceback(node: RunningBroker) -> None:
    with pytest.raises(errors.AdapterError) as caught:
        node.client.call("one", "raises", text="gone fishing")
    assert caught.value.outcome == "failed"
    assert str(caught.value) == "LookupError: gone fishing"
    assert caught.value.details["type"].endswith("LookupError")
    assert caught.value.__notes__ == [f"In the worker:\n{caught.value.details['traceback'].rstrip()}"]
    assert "in raises" in caught.value.details["traceback"]
    assert repr(caught.value.__cause__) == "LookupError('gone fishing')"


def test_a_value_without_a_form_is_an_error_with_its_path_and_marked_in_json(node: RunningBroker) -> None:
    with pytest.raises(
        errors.AdapterError, match=r"^The result cannot be sent: result\.not is a .*Opaque, which has no"
    ):
        node.client.call("one", "returns_opaque")
    result = node.client.call("one", "returns_opaque", Json())
    assert result["fine"] == 1
    assert "Opaque" in str(result["not"])


def test_values_of_every_kind_go_there_and_back(node: RunningBroker) -> None:
    sent = {
        "at": datetime(2026, 1, 2, tzinfo=UTC), "sum": [Decimal("1.10"), 0.5j, float("inf")], "set": {(1, "a")},
        "keys": {1: "a", "1": "b"}, "$float": {"$float": "nan"}, "bytes": [b"x"], "took": timedelta(1),
        "id": UUID(int=1),
    }  # fmt: skip
    assert node.client.call("one", "echo", value=sent) == sent
    assert list(node.client.stream("one", "echo", value=(1, {2}))) == [(1, {2})]
    assert node.client.submit("one", "echo", value=sent).result(PATIENCE) == sent
    plain = node.client.call(
        "one", "echo", Json(value={"at": {"$datetime": "2026-01-02T00:00:00"}, "n": {"$float": "nan"}})
    )
    assert plain == {"at": "2026-01-02T00:00:00", "n": {"$float": "nan"}}


def test_binary_output_and_a_flood_of_lines_do_no_harm(node: RunningBroker) -> None:
    assert node.client.call("one", "prints", binary=True, times=3) == 3
    assert node.client.call("one", "prints", text="x" * 1000, times=20_000, timeout=PATIENCE) == 20_000
    lines = node.status("one").workers[0].output
    assert lines
    assert all(len(line) <= 16 * 1024 for line in lines)


def test_a_dead_worker_fails_its_call_and_is_replaced(node: RunningBroker) -> None:
    before = node.client.call("one", "pid")
    deaths = len(node.told("worker.died", pool="one"))
    with pytest.raises(errors.WorkerLost) as caught:
        node.client.call("one", "crashes")
    assert caught.value.outcome == "unknown"
    died = node.until("worker.died", deaths + 1, pool="one")
    assert "SIGSEGV" in died["message"]
    assert "string_at" in died["data"]["output"] or "Segmentation" in died["data"]["output"]
    assert node.client.call("one", "pid", timeout=PATIENCE) != before


def test_two_calls_of_one_thread_worker_are_inside_at_once(node: RunningBroker) -> None:
    with ThreadPoolExecutor(2) as callers:
        inside = list(callers.map(lambda _: node.client.call("threads", "meet"), range(2)))
    assert max(inside) == 2


def test_three_calls_on_two_slots_queue_and_capacity_is_never_exceeded(node: RunningBroker, pipe: Path) -> None:
    held = [node.client.submit("threads", "hold", path=str(pipe)) for _ in range(3)]
    _until_waiting(node, "threads", 1)
    row = node.pool("threads")
    assert (row.busy, row.free, row.waiting) == (1, 0, 1)
    _release(pipe, held)
    assert max(future.result(timeout=PATIENCE) for future in held) == 2


def test_waiting_calls_of_higher_priority_go_first(node: RunningBroker, pipe: Path) -> None:
    done: queue.SimpleQueue[str] = queue.SimpleQueue()
    held = node.client.submit("one", "hold", path=str(pipe))
    _until_busy(node, "one", "hold")
    low = node.client.submit("one", "echo", {"value": "low"}, priority=-5)
    high = node.client.submit("one", "echo", {"value": "high"}, priority=5)
    for future in (low, high):
        future.add_done_callback(lambda finished: done.put(finished.result()))
    _until_waiting(node, "one", 2)
    _release(pipe, [held])
    assert [done.get(timeout=PATIENCE) for _ in range(2)] == ["high", "low"]


def test_a_stream_brings_its_chunks_in_order_with_progress(node: RunningBroker) -> None:
    pieces = list(node.client.events("one", "count", to=40))
    chunks = [piece.value for piece in pieces if type(piece).__name__ == "Chunk"]
    assert chunks == list(range(40))
    assert any(type(piece).__name__ == "Progress" for piece in pieces)


def test_a_streaming_command_called_for_one_result_gives_a_list(node: RunningBroker) -> None:
    assert node.client.call("one", "count", to=4) == [0, 1, 2, 3]


def test_a_cancelled_call_ends_its_work_politely(node: RunningBroker) -> None:
    before = node.client.call("one", "pid")
    running = node.client.submit("one", "obedient")
    _until_busy(node, "one", "obedient")
    running.cancel()
    assert node.client.call("one", "pid", timeout=PATIENCE) == before


def test_a_call_in_the_line_is_cancelled_without_a_trace(node: RunningBroker, pipe: Path) -> None:
    held = node.client.submit("one", "hold", path=str(pipe))
    waiting = node.client.submit("one", "echo", value=1)
    _until_waiting(node, "one", 1)
    waiting.cancel()
    _until_waiting(node, "one", 0)
    _release(pipe, [held])
    assert held.result(timeout=PATIENCE) == 1


def test_log_lines_of_a_command_reach_the_caller(node: RunningBroker) -> None:
    pieces = list(node.client.events("one", "says", text="hello"))
    assert [piece.message for piece in pieces if type(piece).__name__ == "Log"] == ["hello"]


def test_many_threads_share_one_session(node: RunningBroker) -> None:
    with ThreadPoolExecutor(16) as callers:
        values = list(callers.map(lambda n: node.client.call("threads", "echo", value=n), range(400)))
    assert values == list(range(400))
    assert node.status().node.sessions == 1


def test_workers_see_no_environment_but_what_is_allowed(node: RunningBroker) -> None:
    seen = node.client.call("one", "environment")
    assert "STOP_GRACE" not in seen
    assert not [name for name in seen if "SECRET" in name or "TOKEN" in name]
    assert seen["OMP_NUM_THREADS"] == "1"


def test_a_pools_environment_overrides_every_other_source() -> None:
    with broker({"p": {"size": 1, "env": {"OMP_NUM_THREADS": "3", "COLOUR": "green"}}}) as node:
        node.ready("p")
        seen = node.client.call("p", "environment")
    assert (seen["OMP_NUM_THREADS"], seen["COLOUR"]) == ("3", "green")
    assert seen["OPENBLAS_NUM_THREADS"] == seen["MKL_NUM_THREADS"], "what it does not say is as everywhere"


def _release(pipe: Path, held: list[object]) -> None:
    """Open the pipe for writing until every holder has read its end."""
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with open(pipe, "wb"):
                pass

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    for future in held:
        future.exception(timeout=PATIENCE)  # type: ignore[attr-defined]
    stop.set()
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # lets the last open() of the writer return
    writer.join(PATIENCE)
    os.close(reader)


def _until_waiting(node: RunningBroker, pool: str, count: int) -> None:
    eventually(lambda: node.pool(pool).waiting == count)


def _until_busy(node: RunningBroker, pool: str, command: str) -> None:
    """Wait until a worker has a call of this command: that of an earlier test may not be counted as ended yet."""
    eventually(lambda: any(call.command == command for worker in node.status(pool).workers for call in worker.calls))
