"""One connection to a broker, with its Session stream: connecting, messages, and the errors of gRPC as ours.

Connection.write_now ─▶ FastStream or PublicStream ─▶ transport ─▶ broker
Session._dispatch ◀── FastStream or PublicStream ◀── transport ◀── broker
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from google.protobuf.message import Message
from grpclib.client import Channel, ServiceMethod, Stream
from grpclib.const import Status
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import GRPCError, StreamTerminatedError
from h2.exceptions import H2Error

from snakepit.pools.broker.errors import (
    NOT_STARTED,
    UNKNOWN,
    BrokerError,
    BrokerUnreachable,
    DeadlineExceeded,
    ShuttingDown,
    Unauthenticated,
    from_code,
)
from snakepit.pools.client.address import Target
from snakepit.pools.client.arguments import MAX_MESSAGE
from snakepit.pools.client.buffer_sender import BufferSender
from snakepit.pools.client.direct_reply import DirectReplySocket
from snakepit.pools.client.network import WatchedChannel, make_channel, reason_of_end
from snakepit.pools.client.tls import find_refusal
from snakepit.pools.wire.broker_grpc import BrokerStub
from snakepit.pools.wire.broker_pb2 import Replies, Requests, StatusRequest
from snakepit.workers.transport.grpclib_internals import configuration, received_metadata
from snakepit.workers.transport.message_stream import raw_stream

LARGEST_FRAME = MAX_MESSAGE + 2**20  # bytes: the largest message, and room for what is around it
WINDOW = 2**26  # bytes that the broker may send before the client acknowledges them
ORDERS = frozenset({"Apply", "Recycle", "Drain", "Kill", "Dump"})
QUESTIONS = frozenset({"Status", "Commands", "Plan", "Metrics"})  # they change nothing
ORDER_CHECK = 1.5  # seconds that the broker may take to show that it answers, before an order is sent
BACKOFF = (0.02, 0.05, 0.1, 0.2)  # seconds between the attempts to connect; the last one repeats
CONFIGURATION = configuration(WINDOW, keepalive=True)
ENDED = (OSError, EOFError, GRPCError, StreamTerminatedError, H2Error, AssertionError, KeyError, ValueError)


class Connection:
    """A connection with its Session stream open."""

    def __init__(
        self,
        target: Target,
        channel: Channel,
        stream: Stream[Requests, Replies],
        token: str,
        reply_socket: DirectReplySocket,
        on_message: Callable[[bytes], None],
    ) -> None:
        self.target = target
        self.reply_socket = reply_socket
        self.parts = BufferSender(target.path, taken=reply_socket.takes_buffers)
        self._channel = channel
        self._stream = stream
        self._ending = False
        self._takes_calls = False
        self._metadata = _credentials(token)
        self._stub = BrokerStub(channel)
        self._end = partial(reason_of_end, channel, target)
        self._raw = raw_stream(stream, Requests, on_message, LARGEST_FRAME)
        self.write_now = self._raw.write_now  # sends one message, if the transport has room for it
        self.writes_now = self._raw.writes_now
        self.hung_up = self._raw.hung_up  # whether the connection has ended, though the loop may not have read that

    @property
    def takes_calls(self) -> bool:
        """Whether the broker takes Calls; False until its initial metadata has arrived."""
        if not self._takes_calls:
            initial = self._stream.initial_metadata
            self._takes_calls = initial is not None and initial.get("snakepit-takes") == "calls"
        return self._takes_calls

    async def write(self, message: bytes) -> None:
        """Send one message as fast as the broker takes it."""
        await self._raw.write(message)

    async def settle(self) -> None:
        """Wait until the loop has read the end of the connection, if `hung_up` cannot show it."""
        await self._raw.settle()

    async def listen(self) -> None:
        """Hand over messages until the broker ends the session; raises how it ended."""
        self._raw.open()
        await self._raw.ended()
        if not self._ending:
            await self._stream.end()
        await self._stream.recv_trailing_metadata()
        if reason := self._read_reason():
            raise reason

    async def half_close(self) -> None:
        """End the client's side of the session; the broker then ends its own, and `listen` returns."""
        self._ending = True
        await self._stream.end()

    async def unary(self, method: str, request: Message, timeout: float) -> Any:
        """One call of a method that is not Session; its error is one of the closed list.

        A broker that does not answer is found before an order is sent. Otherwise it would carry out the order later,
        when its process continues and the operator has given up.
        """
        if method in ORDERS:
            try:
                await self._unary("Status", StatusRequest(), ORDER_CHECK)
            except BrokerUnreachable as error:
                if not error.details.get("silent"):
                    raise
                message = f"{error.message} The order was not sent."
                raise BrokerUnreachable(message, outcome=NOT_STARTED, details=error.details) from error
        return await self._unary(method, request, timeout)

    async def _unary(self, method: str, request: Message, timeout: float) -> Any:
        service: ServiceMethod[Any, Any] = getattr(self._stub, method)
        stream = service.open(timeout=timeout, metadata=self._metadata)
        try:
            async with stream:
                await stream.send_message(request, end=True)
                reply = await stream.recv_message()
                await stream.recv_trailing_metadata()
            return reply
        except TimeoutError as error:
            raise _silent(method, timeout) from error
        except ENDED as error:
            if isinstance(error, GRPCError) and error.status is Status.DEADLINE_EXCEEDED:
                raise _silent(method, timeout) from error
            raise self.typed(error, received_metadata(stream)) from error

    def typed(self, error: BaseException, trailers: Mapping[str, Any] | None = None) -> BrokerError:
        """As the function, with the reason of the connection's end where that is known."""
        reason: BrokerError | None = None
        if is_of_connection(error):
            reason = self.reason_of_end() or self._end(error)
        return reason or typed(error, self.target, trailers)

    def reason_of_end(self) -> ShuttingDown | None:
        """What became of the calls without a reply, if the broker sent that before the connection broke."""
        # grpclib's public API may have dropped replies that came with the end.
        return self._read_reason() if self.writes_now else None

    def _read_reason(self) -> ShuttingDown | None:
        trailers = received_metadata(self._stream)
        if trailers.get("snakepit-code") != ShuttingDown.code:
            return None
        self.reply_socket.read_waiting()  # the results that came before
        return ShuttingDown(outcome=str(trailers.get("snakepit-outcome", "")))

    def close(self) -> None:
        self._channel.close()


async def connect(
    target: Target, on_message: Callable[[bytes], None], use: Callable[[Connection], Awaitable[None]]
) -> None:
    """Connect within the target's time, open the session, and run `use(connection)` for as long as it lasts."""
    if target.local is not None:
        await target.local.connect(on_message, use)
        return
    channel = await _connected(target)
    reply_socket = DirectReplySocket(target.path)
    try:
        # Read once connected: a broker writes its token before it listens.
        token = target.read_token()
        metadata = _credentials(token)
        if reply_socket.name:
            metadata["snakepit-reply-socket"] = reply_socket.name
        async with BrokerStub(channel).Session.open(metadata=metadata) as stream:
            await stream.send_request()
            connection = Connection(target, channel, stream, token, reply_socket, on_message)
            try:
                await use(connection)
            except ENDED as error:
                if left := connection.reason_of_end():
                    raise left from error
                raise
            finally:
                connection.parts.close()
    except ENDED as error:
        if reason := reason_of_end(channel, target, error):
            raise reason from error
        raise
    finally:
        try:
            reply_socket.close()
        finally:
            channel.close()


def _credentials(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}


async def _connected(target: Target) -> Channel:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + target.connect_timeout
    attempt = 0
    refused: OSError | None = None
    while True:
        channel = _channel(target)
        try:
            async with asyncio.timeout_at(deadline):
                await channel.__connect__()
            if isinstance(channel, WatchedChannel):
                channel.watch()
            return channel
        except (OSError, TimeoutError) as error:  # TimeoutError is an OSError, and named for the reader
            channel.close()
            if refusal := find_refusal(error, target):
                raise refusal from error
            if not isinstance(error, TimeoutError):
                refused = error  # says more than the end of the time for another attempt
            pause = BACKOFF[min(attempt, len(BACKOFF) - 1)]
            if isinstance(error, PermissionError) or loop.time() + pause >= deadline:
                raise unreachable(target, refused or error) from error
        attempt += 1
        await asyncio.sleep(pause)


def _channel(target: Target) -> Channel:
    if target.path:
        return Channel(path=target.path, codec=ProtoCodec(), config=CONFIGURATION)
    return make_channel(target, WINDOW)


def unreachable(target: Target, error: BaseException) -> BrokerUnreachable:
    if isinstance(error, ConnectionError) and error.errno:  # asyncio puts the address in place of the reason
        reason = os.strerror(error.errno).lower()
    else:
        reason = (getattr(error, "strerror", None) or str(error)).lower() or "no answer in time"
    fix = "run as the broker's user" if isinstance(error, PermissionError) else "start it with: snakepit broker"
    return BrokerUnreachable(f"No broker answers at {target} ({reason}); {fix}", outcome="not_started")


def copy_of(error: BrokerError, outcome: str) -> BrokerError:
    """Return an instance for each caller: an exception that is raised in two threads mixes up their tracebacks."""
    return from_code(error.code, error.message, outcome, error.details, error.retry_after)


def not_opened(target: Target, timeout: float) -> BrokerUnreachable:
    message = f"No broker answers at {target} within {timeout:g} s; start it with: snakepit broker"
    return BrokerUnreachable(message, outcome=NOT_STARTED)


def _silent(method: str, timeout: float) -> BrokerUnreachable:
    return BrokerUnreachable(
        f"The broker did not answer within {timeout:g} s. It is frozen or overloaded: check its process and the load "
        "of the machine.",
        outcome=NOT_STARTED if method in QUESTIONS else UNKNOWN,
        details={"silent": True},
    )


def is_of_connection(error: BaseException) -> bool:
    """Whether the end of a connection can raise this; the TimeoutError of a signal handler has no number."""
    return isinstance(error, ENDED) and not (isinstance(error, TimeoutError) and error.errno is None)


def typed(error: BaseException, target: Target, trailers: Mapping[str, Any] | None = None) -> BrokerError:
    """A gRPC status, or the end of a connection, as an error of the closed list."""
    if isinstance(error, BrokerError):
        return error
    if not isinstance(error, GRPCError):
        reason = str(error) or type(error).__name__
        return BrokerUnreachable(f"The connection to the broker at {target} was lost: {reason}")
    known = trailers or {}
    if code := str(known.get("snakepit-code", "")):
        return from_code(code, error.message or "", str(known.get("snakepit-outcome", "")))
    if error.status is Status.UNAUTHENTICATED:
        return Unauthenticated(f"The broker at {target} does not accept the token: {error.message or 'refused'}")
    if error.status is Status.DEADLINE_EXCEEDED:
        return DeadlineExceeded(error.message or "")
    if error.status in (Status.UNAVAILABLE, Status.CANCELLED):
        return BrokerUnreachable(f"The broker at {target} ended the session: {error.message or error.status.name}")
    return BrokerError(f"{error.status.name}: {error.message or 'no message'}")
