"""The message stream over a real connection: both ends in this process, on a Unix socket."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

from grpclib.client import Channel
from grpclib.server import Server

from snakepit.workers.transport.loop_owner import LoopOwner
from snakepit.workers.transport.message_stream import MessageStream
from snakepit.workers.wire import worker_pb2 as pb
from snakepit.workers.wire.worker_grpc import WorkerBase, WorkerStub


class Mirror(WorkerBase):
    """Sends every order's arguments back, through MessageStream on both sides of a real connection."""

    async def Work(self, stream: Any) -> None:
        await stream.send_initial_metadata()
        self.frames = MessageStream(stream, self.receive, limit=1 << 24)
        self.frames.open()
        await self.frames.ended()
        await self.frames.drained()

    def receive(self, message: bytes) -> None:
        for order in pb.Orders.FromString(message).orders:
            report = pb.Report(log=pb.Log(sequence=order.assign.sequence, message=order.assign.command))
            self.frames.put(pb.Reports(reports=[report]).SerializeToString())


def test_messages_of_any_size_pass_in_order_over_a_real_connection(tmp_path: Any) -> None:
    """More than both flow control windows together, in frames that fit and frames that do not."""
    rng = random.Random(7)
    sizes = [rng.choice((0, 1, 100, 5000, 16_380, 16_384, 40_000, 200_000)) for _ in range(400)]

    async def main() -> list[int]:
        server = Server([Mirror()])
        await server.start(path=str(tmp_path / "s"))
        channel = Channel(path=str(tmp_path / "s"))
        heard: list[int] = []
        complete = asyncio.Event()

        def receive(message: bytes) -> None:
            for report in pb.Reports.FromString(message).reports:
                assert report.log.sequence == len(heard)
                heard.append(len(report.log.message))
                if len(heard) == len(sizes):
                    complete.set()

        async with WorkerStub(channel).Work.open() as stream:
            await stream.send_request()
            frames = MessageStream(stream, receive, limit=1 << 24)
            frames.open()
            for number, size in enumerate(sizes):
                order = pb.Order(assign=pb.Assign(sequence=number, command="x" * size))
                frames.put(pb.Orders(orders=[order]).SerializeToString())
                if number % 7 == 0:
                    await asyncio.sleep(0)
            async with asyncio.timeout(60):
                await complete.wait()
            await stream.cancel()
        channel.close()
        server.close()
        await server.wait_closed()
        return heard

    assert asyncio.run(main()) == sizes


def test_messages_of_any_size_pass_in_order_through_an_ear_and_the_loop(tmp_path: Path) -> None:
    """Plain frames and those that h2 has to see, on a stream whose loop runs only now and then."""
    rng = random.Random(8)
    sizes = [rng.choice((0, 1, 100, 5000, 16_380, 16_384, 40_000, 200_000)) for _ in range(150)]
    heard: list[int] = []
    with_loop: list[bool] = []
    loop = asyncio.SelectorEventLoop()
    loop_owner = LoopOwner(loop)
    news = asyncio.Event()
    over: list[BaseException | None] = []

    def receive(message: bytes) -> None:
        with_loop.append(asyncio._get_running_loop() is not None)
        for report in pb.Reports.FromString(message).reports:
            assert report.log.sequence == len(heard)
            heard.append(len(report.log.message))
        news.set()

    def order(frames: MessageStream, number: int, size: int) -> None:
        command = pb.Order(assign=pb.Assign(sequence=number, command="x" * size))
        frames.put(pb.Orders(orders=[command]).SerializeToString())

    async def main() -> None:
        server = Server([Mirror()])
        await server.start(path=str(tmp_path / "s"))
        channel = Channel(path=str(tmp_path / "s"))
        async with WorkerStub(channel).Work.open() as stream:
            await stream.send_request()
            frames = MessageStream(stream, receive, limit=1 << 24, ears=loop_owner.ears)
            frames.open()
            loop_owner.leave()
            for number, size in enumerate(sizes):
                order(frames, number, size)
                await asyncio.sleep(0)
            while len(heard) < len(sizes):
                news.clear()
                await news.wait()
            news.clear()
            order(frames, len(sizes), 100)  # alone: there is nothing else for which the loop would run
            await news.wait()
            await stream.cancel()
        channel.close()
        server.close()
        await server.wait_closed()

    def begin() -> None:
        task = loop.create_task(main())
        task.add_done_callback(lambda task: (over.append(task.exception()), loop_owner.leave()))

    loop_owner.call(begin)
    loop_owner.hold(lambda: bool(over))
    loop.close()
    assert over == [None]
    assert heard == [*sizes, 100]
    assert not with_loop[-1]
    assert not loop_owner.ears  # the connection's end took its ear away
