"""Starts a real `python -m snakepit.workers` as a broker does, and uses its Work stream.

with started(boot) as process:                 the process, its socket and its shared page
    async with linked(process) as link:        the stream: hello, assign, next report
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import Any

from grpclib.client import Channel

from snakepit.workers.process import shared_page
from snakepit.workers.wire import worker_pb2 as pb
from snakepit.workers.wire.worker_grpc import WorkerStub

ROOT = pathlib.Path(__file__).parents[3]
HERE = pathlib.Path(__file__).parent
PATIENCE = 60.0  # a bound for a machine under load, never a wait


class Process:
    """A worker process from outside."""

    def __init__(self, popen: subprocess.Popen[bytes], path: str, page: shared_page.SharedPage, output: Any) -> None:
        self.popen = popen
        self.path = path
        self.page = page
        self._output = output

    @property
    def pid(self) -> int:
        return self.popen.pid

    def exit_code(self) -> int:
        return self.popen.wait(PATIENCE)

    def output(self) -> bytes:
        """What it wrote on stdout and stderr so far."""
        self._output.seek(0)
        data: bytes = self._output.read()
        return data


@contextlib.contextmanager
def started(adapter: str = "echo", *, command: list[str] | None = None, **fields: Any) -> Iterator[Process]:
    """`adapter` is the class's path, or the snake-case name of one in `adapters.py`."""
    if "." not in adapter:
        adapter = "adapters." + "".join(word.title() for word in adapter.split("_"))
    # A short path: the name of a Unix socket has room for about 100 bytes.
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="worker-", dir="/tmp"))
        path = os.path.join(folder, "w.sock")
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(path)
        listener.listen(16)
        page_fd = shared_page.make()
        stack.callback(os.close, page_fd)
        page = shared_page.SharedPage(page_fd)
        stack.callback(page.close)
        output = stack.enter_context(tempfile.TemporaryFile())
        reader, writer = os.pipe()
        document = {
            "protocol": 1,
            "worker": "test-1",
            "pool": "test",
            "instance": "0" * 32,
            "parent": os.getpid(),
            "adapter": adapter,
            "args": {},
            "profile": "process",
            "threads": 1,
            "listen_fd": listener.fileno(),
            "shared_page_fd": page_fd,
            "blas_threads": 1,
            "max_payload": 1 << 20,
            **fields,
        }
        popen = subprocess.Popen(
            [*(command or [sys.executable, "-m", "snakepit.workers"]), "--worker", "test-1", "--boot", str(reader)],
            cwd=ROOT,
            env=environment(),
            pass_fds=(reader, listener.fileno(), page_fd),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        stack.callback(end, popen)
        os.close(reader)
        with os.fdopen(writer, "wb") as boot:
            boot.write(json.dumps(document).encode())
        yield Process(popen, path, page, output)


def environment() -> dict[str, str]:
    path = os.pathsep.join((str(ROOT), str(HERE)))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}


def end(popen: subprocess.Popen[bytes]) -> None:
    if popen.poll() is None:
        popen.kill()
    popen.wait(PATIENCE)


class Link:
    """The broker's end of the Work stream."""

    def __init__(self, stream: Any, channel: Channel) -> None:
        self.stream = stream
        self.channel = channel
        self.hello = pb.Hello()
        self.process: Process
        self._sequence = 0
        self._waiting: list[pb.Report] = []

    async def order(self, *orders: pb.Order) -> None:
        await self.stream.send_message(pb.Orders(orders=orders))

    def call(self, command: str, /, arguments: Any = None, **more: Any) -> pb.Order:
        """An Assign with the next sequence; `arguments` are JSON text already if they are bytes."""
        self._sequence += 1
        text = arguments if isinstance(arguments, bytes) else json.dumps(arguments or {}).encode()
        fields = {"call": f"call-{self._sequence}", "budget": PATIENCE, "max_result": 1 << 20, **more}
        return pb.Order(assign=pb.Assign(sequence=self._sequence, command=command, arguments=text, **fields))

    def together(self, command: str, arguments: list[Any]) -> pb.Order:
        """One Assigns with the next sequences."""
        first = self._sequence + 1
        self._sequence += len(arguments)
        names = [f"call-{number}" for number in range(first, self._sequence + 1)]
        texts = [json.dumps(given).encode() for given in arguments]
        fields = {"budgets": [PATIENCE] * len(texts), "max_result": 1 << 20}
        return pb.Order(assigns=pb.Assigns(first=first, command=command, calls=names, arguments=texts, **fields))

    async def assign(self, command: str, /, arguments: Any = None, **more: Any) -> int:
        order = self.call(command, arguments, **more)
        await self.order(order)
        return order.assign.sequence

    async def cancel(self, sequence: int, reason: str = "cancelled") -> None:
        await self.order(pb.Order(cancel=pb.Cancel(sequence=sequence, reason=reason)))

    async def credit(self, sequence: int, chunks: int) -> None:
        await self.order(pb.Order(credit=pb.Credit(sequence=sequence, chunks=chunks)))

    async def drain(self) -> None:
        await self.order(pb.Order(drain=pb.Drain()))

    async def probe(self, *besides: str, nonce: int = 1) -> pb.Vitals:
        """The worker's vitals; reports of the kinds `besides` that come first are let go."""
        await self.order(pb.Order(probe=pb.Probe(nonce=nonce)))
        while not (report := await self.next("vitals", *besides)).HasField("vitals"):
            pass
        return report.vitals

    async def report(self) -> pb.Report | None:
        """The next report, whatever it is; None at the end of the stream."""
        if not self._waiting:
            message = await asyncio.wait_for(self.stream.recv_message(), PATIENCE)
            if message is None:
                return None
            self._waiting = [one for report in message.reports for one in apart(report)]
        return self._waiting.pop(0)

    async def next(self, *kinds: str) -> pb.Report:
        """The next report, which must be of one of these kinds."""
        report = await self.report()
        assert report is not None, "the worker ended its stream"
        kind = report.WhichOneof("report")
        assert kind in kinds, f"wanted {kinds}, got {report}"
        return report

    async def result(self, command: str, /, arguments: Any = None, **more: Any) -> Any:
        """Call a command and decode its result."""
        await self.assign(command, arguments, **more)
        return value_of((await self.next("result")).result.value)

    async def failure(self, command: str, /, arguments: Any = None, **more: Any) -> pb.Failure:
        await self.assign(command, arguments, **more)
        return (await self.next("failure")).failure

    async def goodbye(self, process: Process) -> int:
        """Expect the end of the stream, disconnect, and return the exit code."""
        assert await self.report() is None, "the worker sent another report"
        self.channel.close()
        # On a thread: the channel closes only while the loop runs.
        return await asyncio.to_thread(process.exit_code)


def apart(report: pb.Report) -> list[pb.Report]:
    """Results that came together, each as a report of its own."""
    if report.WhichOneof("report") != "results":
        return [report]
    told = zip(report.results.sequences, report.results.json, report.results.seconds, strict=True)
    return [
        pb.Report(result=pb.Result(sequence=sequence, value=pb.Value(json=value), seconds=seconds))
        for sequence, value, seconds in told
    ]


def value_of(value: pb.Value) -> Any:
    return value.raw if value.WhichOneof("value") == "raw" else json.loads(value.json)


@contextlib.asynccontextmanager
async def linked(process: Process, *, greet: bool = True) -> AsyncIterator[Link]:
    channel = Channel(path=process.path)
    try:
        async with WorkerStub(channel).Work.open() as stream:
            await stream.send_request()
            link = Link(stream, channel)
            if greet:
                link.hello = (await link.next("hello")).hello
            yield link
            # Leaving the stream in mid-life is what a broker that dies does; grpclib would wait for its trailers.
            channel.close()
    finally:
        channel.close()


@contextlib.asynccontextmanager
async def worker(adapter: str = "echo", **fields: Any) -> AsyncIterator[Link]:
    """A worker that is linked and has said hello."""
    with started(adapter, **fields) as process:
        async with linked(process) as link:
            link.process = process
            yield link
