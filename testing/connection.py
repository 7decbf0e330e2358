"""Joins the client to a broker of the same process: the messages of the socket, passed in memory.

Session (the client's) ─▶ MemoryConnection ─▶ MemoryStream ─▶ BrokerService (the broker's)
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.message import Message
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from snakepit.pools.adapters.grpc.service import BrokerService
from snakepit.pools.adapters.grpc.session import REPLY_SOCKET_NAME
from snakepit.pools.broker.errors import BrokerUnreachable, DeadlineExceeded
from snakepit.pools.client.address import Target
from snakepit.pools.client.arguments import PASSES_BUFFERS
from snakepit.pools.client.call_messages import Delivered
from snakepit.pools.client.connection import typed
from snakepit.pools.client.direct_reply import Take, hand_over
from snakepit.pools.client.protocol import Pending
from snakepit.pools.wire.broker_pb2 import Requests
from snakepit.testing.passing import Passing
from snakepit.workers.buffers import Incoming
from snakepit.workers.transport.direct_reply import opened


class Served(Protocol):
    """The broker that a connection leads to."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    @property
    def service(self) -> BrokerService: ...

    @property
    def passing(self) -> Passing: ...

    def prepare(self, pool: str) -> None: ...

    def prepare_all(self) -> None: ...

    def refusal(self) -> BrokerUnreachable | None: ...


class MemoryStream:
    """The broker's end of a call, as grpclib's streams are used. All methods run on the broker's loop."""

    def __init__(self, on_message: Callable[[Message], None]) -> None:
        self.metadata: dict[str, str] = {}
        self.trailers: dict[str, str] = {}
        self.status = Status.OK
        self.status_message = ""
        self._on_message = on_message
        self._arrived: asyncio.Queue[Message | None] = asyncio.Queue()

    def arrive(self, message: Message | None) -> None:
        """Hand over a message; None ends the client's side."""
        self._arrived.put_nowait(message)

    async def recv_message(self) -> Message | None:
        return await self._arrived.get()

    async def send_message(self, message: Message) -> None:
        self._on_message(message)

    async def send_initial_metadata(self, *, metadata: dict[str, str] | None = None) -> None: ...

    async def send_trailing_metadata(
        self, *, status: Status = Status.OK, status_message: str = "", metadata: dict[str, str] | None = None
    ) -> None:
        self.status, self.status_message, self.trailers = status, status_message, metadata or {}


class MemoryReplySocket:
    """The client's reply socket and its way for large arguments: parts of values are passed in memory."""

    taken = PASSES_BUFFERS

    def __init__(self, passing: Passing) -> None:
        self._passing = passing
        self._loop = asyncio.get_running_loop()
        self._take: Take | None = None
        self._waiting: Mapping[int, Pending] = {}
        self.name = passing.open(self._arrived)
        self.send = passing.send

    def open(self, loop: asyncio.AbstractEventLoop, take: Take, waiting: Mapping[int, Pending]) -> None:
        self._take, self._waiting = take, waiting

    def read_waiting(self) -> None:
        """Nothing to do: what a worker passed first is on the loop first."""

    def _arrived(self, data: bytes, buffers: Incoming) -> None:
        with contextlib.suppress(RuntimeError):  # the client's loop is closed
            self._loop.call_soon_threadsafe(self._deliver, Delivered(*opened(memoryview(data), buffers)))

    def _deliver(self, arrived: Delivered) -> None:
        if self._take is not None:
            hand_over(arrived, self._take, self._waiting)

    def close(self) -> None:
        self._passing.end(self.name)


@dataclass(slots=True)
class _End:
    """How a session ended."""

    error: BaseException | None = None


class MemoryConnection:
    """The client's end of a session, with what its Session uses of a connection on a socket."""

    takes_calls = True
    writes_now = True

    def __init__(self, broker: Served, on_message: Callable[[bytes], None]) -> None:
        self._broker = broker
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[_End] = self._loop.create_future()
        self._stream: MemoryStream | None = None
        self.reply_socket = self.parts = MemoryReplySocket(broker.passing)

    async def open(self) -> None:
        broker_loop = self._broker.loop

        async def opened() -> MemoryStream:
            stream = MemoryStream(self._reply)
            if PASSES_BUFFERS:
                stream.metadata[REPLY_SOCKET_NAME] = self.reply_socket.name
            task = broker_loop.create_task(self._broker.service.Session(stream))
            task.add_done_callback(self._session_ended)
            return stream

        self._stream = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(opened(), broker_loop))

    def _reply(self, message: Message) -> None:
        with contextlib.suppress(RuntimeError):  # the client's loop is closed
            self._loop.call_soon_threadsafe(self._on_message, message.SerializeToString())

    def _session_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end, error)

    def _end(self, error: BaseException | None) -> None:
        if not self._ended.done():
            self._ended.set_result(_End(error))

    def hung_up(self) -> bool:
        return self._ended.done()

    def write_now(self, message: bytes) -> bool:
        assert self._stream is not None
        try:
            self._broker.loop.call_soon_threadsafe(self._stream.arrive, Requests.FromString(message))
        except RuntimeError as error:
            raise BrokerUnreachable("The pools of this test have ended.") from error
        return True

    async def write(self, message: bytes) -> None:
        self.write_now(message)

    async def settle(self) -> None: ...

    async def listen(self) -> None:
        end = await self._ended
        if end.error is not None:
            raise end.error

    async def half_close(self) -> None:
        assert self._stream is not None
        with contextlib.suppress(RuntimeError):
            self._broker.loop.call_soon_threadsafe(self._stream.arrive, None)

    async def unary(self, method: str, request: Message, timeout: float) -> Any:
        """One call of a method that is not Session, answered by the broker's own service."""
        pool = getattr(request, "pool", None)
        if pool or method == "Status":
            await asyncio.to_thread(self._broker.prepare, pool) if pool else await asyncio.to_thread(
                self._broker.prepare_all
            )
        if refusal := self._broker.refusal():
            raise refusal
        answer = self._answer(method, request)
        try:
            async with asyncio.timeout(timeout):
                asked = asyncio.run_coroutine_threadsafe(answer, self._broker.loop)
                stream, reply = await asyncio.wrap_future(asked)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{method} was not answered within {timeout:g} s.") from error
        finally:
            if inspect.getcoroutinestate(answer) == inspect.CORO_CREATED:  # the broker's loop ended before it began
                answer.close()
        if stream.status is not Status.OK:
            failed = GRPCError(stream.status, stream.status_message)
            raise typed(failed, Target(path="in memory"), stream.trailers) from failed
        return reply

    async def _answer(self, method: str, request: Message) -> tuple[MemoryStream, Message | None]:
        replies: list[Message] = []
        stream = MemoryStream(replies.append)
        stream.arrive(request)
        await getattr(self._broker.service, method)(stream)
        return stream, replies[0] if replies else None
