"""Values of a stream: their large parts go ahead, count for the credit, and are let go on every way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from snakepit.pools.broker.errors import ResultUnreadable
from snakepit.pools.client.call_messages import Delivered, decode
from snakepit.workers.buffers import BufferTooLarge, Incoming
from snakepit.workers.call import AssignedCall
from snakepit.workers.memory_file import are_possible
from snakepit.workers.report import ChunkReport, EncodedValue
from snakepit.workers.runtime.async_commands import TaskWatch
from snakepit.workers.runtime.chunks import ChunkSender
from snakepit.workers.schema.not_carried import ValueTooLarge
from snakepit.workers.transport.server import fill
from snakepit.workers.wire.worker_pb2 import Delivery, Value
from tests.unit.workers.test_buffers import open_files

pytestmark = pytest.mark.skipif(not are_possible(), reason="this system has no sealed memory files")
np = pytest.importorskip("numpy")
MIB = 2**20


class Sender:
    """A caller's socket: `full` is how often it has no room, `gone` whether it is closed."""

    def __init__(self, *, full: int = 0, gone: bool = False) -> None:
        self.full, self.gone = full, gone
        self.sent: list[Delivered] = []

    def send_parts(self, call: AssignedCall, value: EncodedValue, *, wait: bool) -> bool:
        if self.full and not wait:
            self.full -= 1
            raise BlockingIOError
        if self.gone:
            call.buffer_socket = ""
            return False
        assert value.buffers is not None
        call.parts += 1
        self.sent.append(Delivered(Delivery(parts=call.parts), Incoming(inline=value.buffers.copied())))
        return True


class Reports(list[ChunkReport]):
    put = list.append
    put_all = list.extend


def stream(credit: int = 10, credit_bytes: int = MIB, max_result: int = MIB) -> AssignedCall:
    call = AssignedCall(1, "run", b'{"@typed":1}', credit=credit, credit_bytes=credit_bytes, max_result=max_result)
    call.buffer_socket, call.max_buffer = "/caller", 64 * MIB
    return call


@pytest.fixture(autouse=True)
def no_file_is_left() -> Iterator[None]:
    before = open_files()
    yield
    assert open_files() <= before  # fewer, if files of an earlier test were collected meanwhile


def test_large_parts_go_ahead_and_the_text_names_them() -> None:
    sender, reports = Sender(), Reports()
    chunks = ChunkSender(reports, sender)
    for number in range(2):
        assert chunks.send(stream(), [np.full(2_000, number), "text", b"x" * 200_000])
    wire = Value()
    fill(wire, reports[1].value)
    assert (wire.parts, wire.parts_bytes) == (1, 216_000)
    array, text, data = decode(wire, sender.sent[1])
    assert (array.tolist(), text, data) == ([1] * 2_000, "text", b"x" * 200_000)
    with pytest.raises(ResultUnreadable, match="did not arrive"):
        decode(wire)


def test_large_parts_count_for_the_credit() -> None:
    call, reports = stream(credit_bytes=MIB), Reports()
    chunks = ChunkSender(reports, Sender())
    for _ in range(2):
        assert chunks.send(call, np.ones(70_000))  # 560 kB: the second one may begin below the maximum
    call.cancel("cancelled")
    assert not chunks.send(call, np.ones(70_000))
    assert not call.try_take_credit(1)
    call.add_credit(2)
    assert call.try_take_credit(1)
    assert len(reports) == 2


def test_a_chunk_without_large_parts_is_all_in_the_text() -> None:
    sender, reports = Sender(), Reports()
    for chunk in (7, "x" * 20_000, [1, 2], np.ones(100)):
        ChunkSender(reports, sender).send(stream(), chunk)
    assert not sender.sent
    assert all(report.value.buffers is None and not report.value.parts for report in reports)


@pytest.mark.parametrize("sender", [None, Sender(gone=True)], ids=["no sender", "its caller is gone"])
def test_parts_that_cannot_be_sent_are_in_the_text(sender: Sender | None) -> None:
    call, reports = stream(credit_bytes=0), Reports()
    chunks = ChunkSender(reports, sender)
    chunks.send(call, np.ones(20_000))
    chunks.send(call, b"x" * 900_000)  # as base64 it is larger than max_result
    wire = [Value(), Value()]
    for value, report in zip(wire, reports, strict=True):
        fill(value, report.value)
    assert decode(wire[0]).sum() == 20_000
    assert decode(wire[1]) == b"x" * 900_000
    with pytest.raises(ValueTooLarge):
        chunks.send(call, np.ones(200_000))


def test_an_async_command_waits_for_room_and_lets_others_run() -> None:
    sender, reports, others = Sender(full=3), Reports(), []

    async def main() -> None:
        call = stream()
        watch = TaskWatch(call)
        asyncio.get_running_loop().call_soon(others.append, 1)
        await ChunkSender(reports, sender).asend(call, np.ones(20_000), watch)
        watch.close()

    asyncio.run(main())
    assert (len(sender.sent), sender.full, others, reports[0].value.parts) == (1, 0, [1], 1)


def test_a_caller_that_never_has_room_gets_all_further_parts_in_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snakepit.workers.runtime.chunks.FULL_TRIES", 3)
    sender, reports = Sender(full=100), Reports()

    async def main() -> None:
        call = stream()
        watch = TaskWatch(call)
        for _ in range(2):
            await ChunkSender(reports, sender).asend(call, np.ones(20_000), watch)
        watch.close()

    asyncio.run(main())
    assert (sender.sent, 100 - sender.full) == ([], 3), "the second chunk waits for no room"
    assert [report.value.parts for report in reports] == [0, 0]


def test_parts_beyond_the_pool_limit_are_refused() -> None:
    call = stream()
    call.max_buffer = MIB
    with pytest.raises(BufferTooLarge):
        ChunkSender(Reports(), Sender()).send(call, [b"x" * 700_000, b"y" * 700_000])
