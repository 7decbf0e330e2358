"""The message stream over a real connection: both ends in this process, on a Unix socket."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from grpclib.client import Channel
from grpclib.server import Server

from snakepit.workers.transport import FAST_PATH
from snakepit.workers.transport.message_stream import MessageStream
from snakepit.workers.wire import worker_pb2 as pb
from snakepit.workers.wire.worker_grpc import WorkerBase, WorkerStub


class Mirror(WorkerBase):
    """Sends every order's arguments back, through MessageStream on both sides of a real connection."""

    async def Work(self, stream: Any) -> None:
        await stream.send_initial_metadata()
        self.frames = MessageStream(stream, pb.Reports, self.receive, limit=1 << 24)
        self.frames.open()
        await self.frames.ended()
        await self.frames.drained()

    def receive(self, message: bytes) -> None:
        for order in pb.Orders.FromString(message).orders:
            report = pb.Report(log=pb.Log(sequence=order.assign.sequence, message=order.assign.command))
            self.frames.send(pb.Reports(reports=[report]).SerializeToString())


@pytest.mark.parametrize("switch", ["1", "0"])
def test_messages_of_any_size_pass_in_order_over_a_real_connection(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    """More than both flow control windows together, in frames that fit and frames that do not."""
    monkeypatch.setenv(FAST_PATH, switch)
    rng = random.Random(7)
    sizes = [rng.choice((0, 1, 100, 5000, 16_380, 16_384, 40_000, 200_000)) for _ in range(400)]

    async def main() -> list[int]:
        server = Server([Mirror()])
        await server.start(path=str(tmp_path / "s"))
        channel = Channel(path=str(tmp_path / "s"))
        received: list[int] = []
        complete = asyncio.Event()

        def receive(message: bytes) -> None:
            for report in pb.Reports.FromString(message).reports:
                assert report.log.sequence == len(received)
                received.append(len(report.log.message))
                if len(received) == len(sizes):
                    complete.set()

        async with WorkerStub(channel).Work.open() as stream:
            await stream.send_request()
            frames = MessageStream(stream, pb.Orders, receive, limit=1 << 24)
            frames.open()
            reading = asyncio.ensure_future(frames.ended())
            for number, size in enumerate(sizes):
                order = pb.Order(assign=pb.Assign(sequence=number, command="x" * size))
                frames.send(pb.Orders(orders=[order]).SerializeToString())
                if number % 7 == 0:
                    await asyncio.sleep(0)
            async with asyncio.timeout(60):
                await complete.wait()
            reading.cancel()
            await stream.cancel()
        channel.close()
        server.close()
        await server.wait_closed()
        return received

    assert asyncio.run(main()) == sizes
