"""Large values between a client and real workers: they do not pass through the broker, and no descriptor is left."""

from __future__ import annotations

import fcntl
import gc
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.faults.cases.buffers import many_large_calls
from snakepit.pools.broker.errors import (
    BadArguments,
    BadRequest,
    BrokerError,
    DeadlineExceeded,
    PayloadTooLarge,
    QueueFull,
    ResultTooLarge,
)
from snakepit.pools.client import Answer, Json, Log, Progress
from snakepit.pools.client.buffer_sender import BufferSender
from snakepit.workers.buffers import Outgoing, rights
from snakepit.workers.kept_files import MOST_FILES, are_possible
from tests.brokers import PATIENCE, ROOT, RunningBroker, broker
from tests.large import memory_files

np = pytest.importorskip("numpy")
MIB = 2**20
LARGE = {"adapter": "large", "max_buffer": 2**27}


@pytest.fixture(scope="module")
def node() -> Iterator[RunningBroker]:
    pools = {"one": {**LARGE, "size": 1}, "threads": {**LARGE, "size": 2, "profile": "thread", "threads": 2}}
    pools["killed"] = {"adapter": "target", "size": 2, "profile": "thread", "threads": 2, "death_budget": 1000}
    pools["tight"] = {**LARGE, "size": 1, "queue_bytes": 2**20, "max_buffer": 8 * MIB, "queue_timeout": 300.0}
    with broker({**pools, "small": {**LARGE, "size": 1, "max_buffer": 0}}) as running:
        for name in ("one", "threads", "small"):
            running.ready(name)
        yield running


def eventually(question: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE
    while not question():
        assert time.monotonic() < ends, (memory_files(os.getpid()), gc.collect(), memory_files(os.getpid()))
        time.sleep(0.01)


def ready(node: RunningBroker) -> list[int]:
    return [one.pid for one in node.client.status("threads").workers if one.state == "ready"]


def pid_of(node: RunningBroker, pool: str) -> int:
    return next(one.pid for one in node.client.status(pool).workers if one.state == "ready")


def rss(pid: int) -> int:
    """KiB of a process's own memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@pytest.mark.parametrize("size", [100_000, MIB, 50 * MIB])
@pytest.mark.parametrize("pool", ["one", "threads"])
def test_a_large_result_arrives_past_the_broker(node: RunningBroker, pool: str, size: int) -> None:
    before = rss(node.process.pid)
    for _ in range(2):
        found = node.client.call(pool, "ones", size=size)
        assert found.nbytes == size // 8 * 8
        assert found.sum() == size // 8
        found[0] = 2
    assert node.client.call(pool, "bytes_of", size=size) == b"x" * size
    assert rss(node.process.pid) - before < 5 * 1024
    eventually(lambda: node.client.call(pool, "descriptors") == 0)


def test_results_and_arguments_of_each_size_arrive(node: RunningBroker) -> None:
    sizes = [*range(2_000, 20_000, 6_000), *range(56_000, 180_000, 8_000)]
    for size in sizes:
        assert node.client.call("one", "bytes_of", size=size) == b"x" * size
        assert node.client.call("one", "total", value=b"x" * size) == ["bytes", size]
        assert node.client.call("one", "echo", value=["y" * 15_000, b"x" * size])[1] == b"x" * size


def test_a_result_computed_in_place_arrives_and_stays_as_it_was(node: RunningBroker) -> None:
    found = node.client.call("one", "placed", size=8 * MIB, keep=True)
    assert found["shared"]
    assert node.client.call("one", "write_kept") == 5.0
    assert (found["out"] == 1).all()
    node.client.call("one", "placed", size=80, keep=True)  # the adapter drops the first one


@pytest.mark.parametrize("pool", ["one", "threads"])
def test_a_value_that_is_held_stays_while_others_of_its_size_come_and_go(node: RunningBroker, pool: str) -> None:
    held = [node.client.call(pool, "placed", size=MIB, keep=False)["out"], node.client.call(pool, "ones", size=MIB)]
    part = node.client.call(pool, "echo", value=np.full(MIB // 8, 7.0))[5:9]
    node.client.call("one", "keep", value=np.full(MIB // 8, 3.0))
    for number in range(12):
        found = node.client.call(pool, "echo", value=np.full(MIB // 8, float(-number)))
        assert (found == -number).all()
        assert (node.client.call(pool, "placed", size=MIB, keep=False)["out"] == 1).all()
        assert node.client.call("one", "kept_and", value=found) == (3.0 * MIB / 8, -number * MIB / 8)
    assert (held[0] == 1).all()
    assert (held[1] == 1).all()
    assert (part == 7).all()
    node.client.call("one", "keep", value=None)


def test_kept_memory_files_are_bounded_and_given_back_after_some_seconds(node: RunningBroker) -> None:
    if not are_possible():
        pytest.skip("this system cannot tell when a memory file is free")
    for _ in range(20):
        found = node.client.call("one", "echo", value=np.ones(MIB))
        del found
    eventually(lambda: memory_files(pid_of(node, "one")) <= MOST_FILES)
    eventually(lambda: memory_files(pid_of(node, "one")) == 0)
    eventually(lambda: memory_files(os.getpid()) == 0)


def test_many_large_results_in_flight_arrive(node: RunningBroker) -> None:
    sizes = [200_000 + 8 * number for number in range(60)]
    found = list(node.client.map("threads", "ones", ({"size": size} for size in sizes), window=32))
    assert [one.nbytes for one in found] == sizes


def test_the_limit_of_the_pool_holds(node: RunningBroker) -> None:
    with pytest.raises(ResultTooLarge, match="max_buffer is 134,217,728"):
        node.client.call("one", "too_much", size=2**27 + 1)
    with pytest.raises(ResultTooLarge, match="max_payload"):
        node.client.call("small", "ones", size=MIB)


def test_a_caller_of_json_gets_bytes_in_frames(node: RunningBroker) -> None:
    assert node.client.call("one", "bytes_of", Json(size=200_000)) == b"x" * 200_000
    with pytest.raises(ResultTooLarge, match="max_payload"):
        node.client.call("one", "bytes_of", Json(size=2 * MIB))


def test_long_text_arrives_past_the_broker(node: RunningBroker) -> None:
    assert node.client.call("one", "text", size=900_000) == ["x" * 1000] * 900


@pytest.mark.parametrize("size", [100_000, MIB, 50 * MIB])
@pytest.mark.parametrize("pool", ["one", "threads"])
def test_a_large_argument_arrives_and_the_broker_does_not_read_it(node: RunningBroker, pool: str, size: int) -> None:
    before = rss(node.process.pid)
    for _ in range(2):
        assert node.client.call(pool, "total", value=np.ones(size // 8)) == ["ndarray", size // 8]
        assert node.client.call(pool, "total", value=b"x" * size) == ["bytes", size]
    assert rss(node.process.pid) - before < 5 * 1024
    eventually(lambda: node.client.call(pool, "descriptors") == 0)
    eventually(lambda: memory_files(node.process.pid) == 0)


def test_an_argument_comes_back_as_it_went_and_a_command_may_write_to_it(node: RunningBroker) -> None:
    value = {"a": np.arange(100_000).reshape(100, 1000), "b": [b"x" * 70_000, 1.5, {2}], "c": bytearray(b"y" * 200_000)}
    found = node.client.call("one", "echo", value=value)
    assert (found["a"] == value["a"]).all()
    assert found["b"] == value["b"]
    assert found["c"] == bytes(value["c"])
    assert node.client.call("one", "doubled", value=value["a"]).sum() == 2 * value["a"].sum()
    assert value["a"][0, 1] == 1


def test_calls_with_large_arguments_in_flight_keep_their_own(node: RunningBroker) -> None:
    arguments = ({"value": np.full(30_000, number)} for number in range(60))
    found = node.client.map("threads", "total", arguments, window=32)
    assert [one[1] for one in found] == [30_000.0 * number for number in range(60)]


async def test_an_event_loop_sends_large_arguments(node: RunningBroker) -> None:
    assert (await node.client.acall("one", "total", value=np.ones(MIB)))[1] == MIB


def test_a_stream_takes_large_arguments(node: RunningBroker) -> None:
    assert list(node.client.stream("one", "parts", value=np.ones(100_000), count=2)) == [50_000.0, 50_000.0]


SIZES = [80, 9_000, 70_000, 200_000, MIB, 20 * MIB]


@pytest.mark.parametrize("placed", [False, True])
@pytest.mark.parametrize("pool", ["one", "threads"])
def test_large_chunks_arrive_past_the_broker(node: RunningBroker, pool: str, placed: bool) -> None:
    before = rss(node.process.pid)
    frames = list(node.client.stream(pool, "frames", sizes=SIZES, placed=placed))
    assert [frame.nbytes for frame in frames] == SIZES
    assert all((frame == number).all() for number, frame in enumerate(frames))
    frames[0][:] = 2
    assert rss(node.process.pid) - before < 5 * 1024
    eventually(lambda: node.client.call(pool, "descriptors") == 0)
    assert memory_files(node.process.pid) == 0


@pytest.mark.parametrize("pool", ["one", "threads"])
async def test_large_chunks_of_an_async_command_arrive_in_an_event_loop(node: RunningBroker, pool: str) -> None:
    numbers = []
    async for chunk in node.client.astream(pool, "aframes", sizes=[100_000] * 30 + [MIB]):
        assert (chunk["frame"] == chunk["number"]).all()
        numbers.append(chunk["number"])
    assert numbers == list(range(31))


def test_large_chunks_that_are_collected_arrive_in_one_result(node: RunningBroker) -> None:
    for command, found in (("frames", lambda frame: frame), ("aframes", lambda chunk: chunk["frame"])):
        chunks = node.client.call("threads", command, sizes=SIZES)
        assert [found(chunk).nbytes for chunk in chunks] == SIZES
        assert all((found(chunk) == number).all() for number, chunk in enumerate(chunks))
    with pytest.raises(ResultTooLarge, match="max_buffer"):
        node.client.call("tight", "frames", sizes=[MIB] * 9)
    eventually(lambda: node.client.call("tight", "descriptors") == 0)


def test_a_large_result_follows_what_a_command_reports(node: RunningBroker) -> None:
    *before, answer = node.client.events("one", "told", size=MIB)
    assert before == [Log("a line"), Progress(0.5, "half")]
    assert isinstance(answer, Answer)
    assert answer.value.nbytes == MIB
    assert next(node.client.stream("one", "bytes_of", size=200_000)) == b"x" * 200_000


def test_a_reader_of_json_gets_large_chunks_in_the_text(node: RunningBroker) -> None:
    assert list(node.client.stream("one", "frames", Json(sizes=[80, 80_000]))) == [[0.0] * 10, [1.0] * 10_000]
    with pytest.raises(ResultTooLarge, match="max_payload"):
        list(node.client.stream("one", "frames", Json(sizes=[4 * MIB])))


def test_chunks_beyond_max_buffer_are_refused(node: RunningBroker) -> None:
    stream = node.client.stream("tight", "frames", sizes=[MIB, 9 * MIB])
    assert next(stream).nbytes == MIB
    with pytest.raises(ResultTooLarge, match="max_buffer is 8,388,608"):
        next(stream)
    with pytest.raises(ResultTooLarge, match="max_payload"):
        next(node.client.stream("small", "frames", sizes=[2 * MIB]))


def test_large_chunks_wait_for_a_reader_that_stopped_and_go_with_it(node: RunningBroker) -> None:
    gc.collect()
    eventually(lambda: memory_files(os.getpid()) == 0)
    stream = node.client.stream("one", "frames", sizes=[300_000] * 200)
    assert next(stream).sum() == 0
    eventually(lambda: memory_files(os.getpid()) >= 3)  # 1 MiB may be unread, and one more chunk
    assert memory_files(os.getpid()) <= 4
    stream.close()
    eventually(lambda: memory_files(os.getpid()) == 0)
    eventually(lambda: node.client.call("one", "descriptors") == 0)


def test_late_and_abandoned_large_chunks_leave_no_descriptor(node: RunningBroker) -> None:
    with pytest.raises(DeadlineExceeded):
        list(node.client.stream("threads", "frames", sizes=[300_000] * 1000, pause=0.01, timeout=0.3))
    assert next(node.client.stream("threads", "frames", sizes=[300_000] * 100)).nbytes == 300_000  # the reader leaves
    gc.collect()
    eventually(lambda: memory_files(os.getpid()) == 0)
    eventually(lambda: all(memory_files(pid) == 0 for pid in ready(node)))


def test_arguments_beyond_max_buffer_are_refused(node: RunningBroker) -> None:
    with pytest.raises(PayloadTooLarge, match="the max_buffer of pool small is 0"):
        node.client.call("small", "total", value=np.ones(MIB))
    eventually(lambda: memory_files(node.process.pid) == 0)


def test_the_largest_argument_may_wait_and_the_next_one_is_refused(node: RunningBroker, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    node.client.call("tight", "total", value=1)  # its worker is ready
    first = node.client.submit("tight", "hold", path=str(pipe), timeout=300)
    eventually(lambda: node.client.status("tight").pools[0].free == 0)
    waits = node.client.submit("tight", "total", {"value": np.ones(MIB)}, timeout=300)
    eventually(lambda: node.pool("tight").buffer_bytes == 8 * MIB)
    assert 'snakepit_pool_buffer_bytes{pool="tight"} 8.388608e+06' in node.client.metrics()
    with pytest.raises(QueueFull, match="8388608 bytes wait in shared memory, 8388608 may"):
        node.client.call("tight", "total", value=np.ones(MIB))
    pipe.open("wb").close()
    assert first.result() == "released"
    assert waits.result() == ["ndarray", MIB]
    eventually(lambda: node.pool("tight").buffer_bytes == 0)


def test_without_a_way_for_descriptors_arguments_come_in_the_call(
    node: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BufferSender, "send", lambda sender, buffers: 0)
    assert node.client.call("one", "total", value=np.ones(50_000)) == ["ndarray", 50_000]
    assert node.client.call("one", "total", value=b"x" * 400_000) == ["bytes", 400_000]
    with pytest.raises(PayloadTooLarge, match="max_payload"):
        node.client.call("one", "total", value=np.ones(MIB))


def memory_file(size: int, seals: int) -> int:
    descriptor = os.memfd_create("snakepit buffer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
HOSTILE = {
    "not sealed": (lambda: memory_file(400_000, 0), BadRequest, "not sealed"),
    "no memory file": (lambda: os.open("/dev/zero", os.O_RDONLY), BadRequest, "no memory file"),
    "too short": (lambda: memory_file(399_999, SEALS), BadArguments, "outside of a buffer"),
}


@pytest.mark.parametrize(("make", "error", "words"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_descriptor_is_refused(
    node: RunningBroker, monkeypatch: pytest.MonkeyPatch, make: Callable[[], int], error: type[BrokerError], words: str
) -> None:
    def send(sender: BufferSender, buffers: object) -> int:
        descriptor = make()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect(str(Path(str(node.client.target)).parent / "buffers.sock"))
            channel.sendmsg([(7).to_bytes(8, "little")], rights([descriptor]))
        os.close(descriptor)
        return 7

    monkeypatch.setattr(BufferSender, "send", send)
    with pytest.raises(error, match=words):
        node.client.call("one", "total", value=np.ones(50_000))


def test_some_ten_kilobytes_reach_the_broker_beside_the_call_and_may_be_written_to(
    node: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, numbers = BufferSender.send, []

    def noted(sender: BufferSender, buffers: Outgoing) -> int:
        numbers.append(send(sender, buffers))
        return numbers[-1]

    monkeypatch.setattr(BufferSender, "send", noted)
    value = np.arange(12_500.0)

    def went_beside() -> bool:  # not while the broker has yet to read what the test before sent
        assert (node.client.call("one", "doubled", value=value) == 2 * value).all()
        return numbers[-1] > 0

    eventually(went_beside)
    monkeypatch.setattr(BufferSender, "send", lambda sender, buffers: 0)  # as while the broker's socket is full
    assert (node.client.call("one", "echo", value=value) == value).all()


def test_datagrams_that_no_client_sends_change_nothing(node: RunningBroker) -> None:
    path = os.path.join(os.path.dirname(node.client.target.path), "buffers.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger, open(os.devnull) as other:
        for parts in ([b""], [b"1234567"], [b"12345678"], [b"12345678", bytes(120_000)]):
            stranger.sendto(b"".join(parts), path)
        stranger.sendmsg([b"12345678and more"], rights([other.fileno()]), 0, path)
    value = np.arange(12_500.0)
    assert (node.client.call("one", "echo", value=value) == value).all()


def test_a_number_without_descriptors_is_refused(node: RunningBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BufferSender, "send", lambda sender, buffers: 99)
    with pytest.raises(BadRequest, match="its descriptors did not arrive"):
        node.client.call("one", "total", value=np.ones(50_000))


CLIENT = """
import sys, numpy as np
from snakepit.pools.client import connect
client = connect(sys.argv[1])
futures = [client.submit("threads", "linger", value=np.ones(10**6)) for _ in range(8)]
print("sent", flush=True)
futures[0].result()
"""


def test_a_killed_client_leaves_no_descriptor(node: RunningBroker) -> None:
    words = [sys.executable, "-c", CLIENT, str(node.client.target)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        client.stdout.readline()
        eventually(lambda: memory_files(node.process.pid) > 0)
        client.kill()
    eventually(lambda: memory_files(node.process.pid) == 0)
    eventually(lambda: all(memory_files(pid) == 0 for pid in ready(node)))


def test_the_metrics_count_buffers(node: RunningBroker) -> None:
    node.client.call("one", "ones", size=MIB)
    node.client.call("one", "total", value=np.ones(MIB))
    list(node.client.stream("one", "frames", sizes=[MIB]))
    assert 'snakepit_buffers_total{of="chunk",pool="one"}' in node.client.metrics()
    eventually(lambda: 'snakepit_buffers_total{of="result",pool="one"}' in node.client.metrics())
    assert 'snakepit_buffers_total{of="argument",pool="one"}' in node.client.metrics()
    assert 'snakepit_buffer_bytes_total{of="result",pool="one"}' in node.client.metrics()


def test_no_descriptor_is_left_where_calls_are_cancelled_and_late_and_workers_and_clients_are_killed(
    node: RunningBroker,
) -> None:
    """Ten thousand such calls are `make faults FAULTS=large-values`."""
    found = many_large_calls(node.client, node.process.pid, "killed", 400)
    assert not found.broken, found


def test_the_memory_of_a_worker_has_the_argument_that_it_holds(node: RunningBroker) -> None:
    def memory() -> float:
        node.client.sweep("test", 3600.0)  # it is read soon afterwards
        return float(node.client.status("one").workers[0].memory_mb)

    eventually(lambda: memory() > 0)
    before = memory()
    node.client.call("one", "keep", value=np.empty(80 * MIB, "uint8"))
    eventually(lambda: memory() > before + 70)
    node.client.call("one", "keep", value=0)
    eventually(lambda: memory() < before + 70)
