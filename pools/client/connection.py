"""One connection to a broker: the only file of the client that knows grpclib from the inside.

grpclib's own way costs a task switch and a dozen coroutine steps for each message, and drops replies that have
arrived but were not read when the connection ends. A session has one stream and many calls, so here a frame is
parsed the moment that its last byte arrives, and is written at once where the transport has room:

    data_received ─▶ Http2FastPath ─▶ Arrivals.take ─▶ on_frame        Connection.write ─▶ write_plain ─▶ transport
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable, Mapping
from typing import Any, cast

from google.protobuf.message import Message
from grpclib.client import Channel, ServiceMethod, Stream
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.metadata import decode_metadata
from h2.exceptions import H2Error

from snakepit.pools.broker.errors import BrokerError, BrokerUnreachable, DeadlineExceeded, Unauthenticated, from_code
from snakepit.pools.client.address import Target
from snakepit.pools.client.arguments import MAX_MESSAGE
from snakepit.pools.client.direct_reply import DirectReplySocket
from snakepit.pools.wire.broker_grpc import BrokerStub
from snakepit.pools.wire.broker_pb2 import Replies, Requests
from snakepit.workers.transport.direct_read import DirectRead
from snakepit.workers.transport.http2_fast_path import Http2FastPath, write_plain
from snakepit.workers.transport.message_stream import Arrivals, framed

LARGEST_FRAME = MAX_MESSAGE + 2**20  # bytes: the largest message, and room for what is around it
WINDOW = 2**26  # bytes that the broker may send before we acknowledge; replies are taken at once anyway
HANGUP = select.POLLHUP | getattr(select, "POLLRDHUP", 0)
BACKOFF = (0.02, 0.05, 0.1, 0.2)  # seconds between the attempts to connect; the last one repeats

# A broker that is stopped (SIGSTOP, a host that went away) does not close its connections: only silence tells.
KEEPALIVE = {
    "_keepalive_time": 10.0,
    "_keepalive_timeout": 20.0,
    "_http2_max_pings_without_data": 0,
    "_http2_min_sent_ping_interval_without_data": 5.0,
}
CONFIGURATION = Configuration(
    http2_connection_window_size=WINDOW, http2_stream_window_size=WINDOW, **cast(dict[str, Any], KEEPALIVE)
)
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
    ) -> None:
        self.target = target
        self.reply_socket = reply_socket
        self._channel = channel
        self._stream = stream
        self._ending = False
        self._takes_calls = False
        self._metadata = _credentials(token)
        self._stub = BrokerStub(channel)
        self._raw = stream._stream
        self._connection = self._raw.connection
        self._id = cast(int, self._raw.id)
        self._hangup = select.poll()
        self._hangup.register(self._raw._transport.get_extra_info("socket").fileno(), HANGUP)

    def hung_up(self) -> bool:
        """Whether the broker has closed the connection, though the event loop may not have come to see it yet."""
        return bool(self._hangup.poll(0))

    def write(self, payload: bytes) -> bytes:
        """Send one message now; what the transport has no room for is returned, for `write_rest`."""
        frame = framed(payload)
        return b"" if write_plain(self._raw, frame) else frame

    @property
    def takes_calls(self) -> bool:
        """Whether the broker takes Calls; False before it has said so."""
        if not self._takes_calls:
            told = self._stream.initial_metadata
            self._takes_calls = told is not None and told.get("snakepit-takes") == "calls"
        return self._takes_calls

    async def write_rest(self, frame: bytes) -> None:
        """Send a frame piece by piece, as fast as the broker takes it."""
        await self._raw.send_data(frame)

    async def listen(self, on_frame: Callable[[bytes], None], ears: DirectRead) -> None:
        """Hand over messages until the broker ends the session; how it ended is raised."""
        connection, number = self._connection, self._id
        arrivals = Arrivals(lambda size: connection.ack(number, size), on_frame, LARGEST_FRAME)
        self._raw.buffer = arrivals  # type: ignore[assignment]
        Http2FastPath(self._raw, arrivals.take, ears)
        await self._stream.recv_message()
        if not self._ending:
            await self._stream.end()
        await self._stream.recv_trailing_metadata()

    async def goodbye(self) -> None:
        """Say that no more calls come; the broker then ends the session, and `listen` with it."""
        self._ending = True
        await self._stream.end()

    async def unary(self, method: str, request: Message, timeout: float) -> Any:
        """One call of a method that is not Session; its error is one of the closed list."""
        service: ServiceMethod[Any, Any] = getattr(self._stub, method)
        stream = service.open(timeout=timeout, metadata=self._metadata)
        try:
            async with stream:
                await stream.send_message(request, end=True)
                reply = await stream.recv_message()
                await stream.recv_trailing_metadata()
            return reply
        except TimeoutError as error:
            raise DeadlineExceeded(f"{method} was not answered within {timeout:g} s.") from error
        except ENDED as error:
            raise typed(error, self.target, _trailers(stream)) from error

    def close(self) -> None:
        self._channel.close()


async def connect(target: Target, use: Callable[[Connection], Any]) -> None:
    """Connect within the target's time, open the session, and run `use(wire)` for as long as it lasts."""
    channel = await _connected(target)
    reply_socket = DirectReplySocket(target.path)
    try:
        # Read after the connection stands: a broker writes its token before it listens.
        token = target.read_token()
        metadata = _credentials(token)
        if reply_socket.name:
            metadata["snakepit-reply_socket"] = reply_socket.name
        async with BrokerStub(channel).Session.open(metadata=metadata) as stream:
            await stream.send_request()
            await use(Connection(target, channel, stream, token, reply_socket))
    finally:
        reply_socket.close()
        channel.close()


def _credentials(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def _connected(target: Target) -> Channel:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + target.connect_timeout
    attempt = 0
    while True:
        channel = _channel(target)
        try:
            async with asyncio.timeout_at(deadline):
                await channel.__connect__()
            return channel
        except (OSError, TimeoutError) as error:  # TimeoutError is an OSError, and named for the reader
            channel.close()
            pause = BACKOFF[min(attempt, len(BACKOFF) - 1)]
            if isinstance(error, PermissionError) or loop.time() + pause >= deadline:
                raise _unreachable(target, error) from error
        attempt += 1
        await asyncio.sleep(pause)


def _channel(target: Target) -> Channel:
    codec = ProtoCodec()
    if target.path:
        return Channel(path=target.path, codec=codec, config=CONFIGURATION)
    assert target.tls is not None
    target.tls.set_alpn_protocols(["h2"])
    return Channel(target.host, target.port, ssl=target.tls, codec=codec, config=CONFIGURATION)


def _unreachable(target: Target, error: BaseException) -> BrokerUnreachable:
    reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
    fix = "run as the broker's user" if isinstance(error, PermissionError) else "start it with: snakepit broker"
    return BrokerUnreachable(f"No broker answers at {target} ({reason}); {fix}", outcome="not_started")


def _trailers(stream: Stream[Any, Any]) -> Mapping[str, Any]:
    """The metadata of an error. A reset that follows it at once makes grpclib forget it, though it has arrived."""
    if stream.trailing_metadata is not None:
        return stream.trailing_metadata
    with contextlib.suppress(AttributeError):  # the stream was never opened
        headers = stream._stream.trailers or stream._stream.headers
        return decode_metadata(headers) if headers else {}
    return {}


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
