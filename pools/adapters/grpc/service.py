"""The gRPC service in front of the broker: sessions and unary calls, health and reflection, errors as statuses."""

from __future__ import annotations

import asyncio
import hmac
import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from google.protobuf.message import DecodeError
from grpclib.const import Status
from grpclib.events import RecvRequest, listen
from grpclib.exceptions import GRPCError
from grpclib.reflection.service import ServerReflection
from grpclib.server import Server

from snakepit.pools.adapters.grpc.buffer_intake import BufferIntake
from snakepit.pools.adapters.grpc.health import PoolHealth
from snakepit.pools.adapters.grpc.large_call import largest_message
from snakepit.pools.adapters.grpc.peer import EVERYTHING, Allowed, FollowedRights, Peer
from snakepit.pools.adapters.grpc.session import ClientSession, request_of, timing_of
from snakepit.pools.adapters.records.recent_events import RecentEvents
from snakepit.pools.broker import errors
from snakepit.pools.broker.broker import Broker
from snakepit.pools.broker.handle import CallHandle
from snakepit.pools.broker.messages import Request, Timing
from snakepit.pools.broker.ports import Payload
from snakepit.pools.status_codec import encode_commands, encode_dump, encode_plan, encode_status, encode_sweep
from snakepit.pools.wire import broker_pb2 as pb
from snakepit.pools.wire.broker_grpc import BrokerBase
from snakepit.workers.report import utf8
from snakepit.workers.transport.grpclib_internals import MessageTooLarge, limit_messages

STREAM_CREDIT = 16  # chunks on the way to a unary stream's reader
MAX_REQUEST = 2**20  # bytes of a request that is no call
MAX_STATUS_MESSAGE = 1000  # characters; error details beyond some 16 KB destroy the error itself
OPEN_TO_ALL = ("/grpc.health.", "/grpc.reflection.")


class BrokerService(BrokerBase):
    """The methods of the broker, for the clients of the Unix socket or for one network connection."""

    def __init__(
        self, broker: Broker, recent: RecentEvents, metrics: Callable[[], str], peer: Peer | None = None
    ) -> None:
        """`peer`: the network connection whose rights hold; None: the Unix socket, whose token allows everything."""
        self._broker = broker
        self._recent = recent
        self._metrics = metrics
        self._peer = peer
        self.intake: BufferIntake | None = None  # where clients pass the descriptors of large arguments

    async def _allowed(self, stream: Any, method: str) -> Allowed:
        """What this request may do; raises Unauthenticated, or PermissionDenied if it may not use the method."""
        if self._peer is None:
            return EVERYTHING
        allowed = Allowed(await self._peer.rights(stream.metadata))
        allowed.check_permissions(method)
        return allowed

    async def Session(self, stream: Any) -> None:
        if self._peer is None:
            await ClientSession(self._broker, stream, intake=self.intake).run()
            return
        async with _Answering(stream, self._broker):
            rights = FollowedRights(self._peer, stream.metadata)
            await rights.begin()
            await rights.run(ClientSession(self._broker, stream, rights))

    async def Execute(self, stream: Any) -> None:
        async with _Answering(stream, self._broker):
            allowed = await self._allowed(stream, "Execute")
            reply = _Collected()
            handle = self._broker.submit(await _called(stream, 0, allowed), reply)
            try:
                payload, timing = await reply.answer
            finally:
                handle.cancel()  # does nothing when the call has its answer
            await stream.send_message(_reply(payload, timing))

    async def ExecuteStream(self, stream: Any) -> None:
        async with _Answering(stream, self._broker):
            allowed = await self._allowed(stream, "ExecuteStream")
            reply = _Streamed()
            handle = self._broker.submit(await _called(stream, STREAM_CREDIT, allowed), reply)
            try:
                await self._pass_on(stream, reply, handle)
            finally:
                handle.cancel()

    async def _pass_on(self, stream: Any, reply: _Streamed, handle: CallHandle) -> None:
        while True:
            item = await reply.items.get()
            if isinstance(item, errors.BrokerError):
                raise item
            if isinstance(item, Payload):
                await stream.send_message(_reply(item, None))
                handle.credit(1)
                continue
            payload, timing = item
            await stream.send_message(_reply(payload, timing))
            return

    async def Status(self, stream: Any) -> None:
        async with _Answering(stream):
            allowed = await self._allowed(stream, "Status")
            request = await _receive(stream)
            allowed.check("Status", request.pool)
            status = self._broker.snapshot(request.pool)
            if request.watch:
                status = self._recent.add_to(status, request.events_after)
            elif request.histograms:
                status = replace(status, histograms=self._recent.histograms())
            await stream.send_message(encode_status(allowed.of_pools(status)))

    async def Commands(self, stream: Any) -> None:
        async with _Answering(stream):
            allowed = await self._allowed(stream, "Commands")
            request = await _receive(stream)
            allowed.check("Commands", request.pool)
            await stream.send_message(encode_commands(self._broker.commands(request.pool)))

    async def Sweep(self, stream: Any) -> None:
        async with _Answering(stream):
            (await self._allowed(stream, "Sweep")).check("Sweep")
            request = await _receive(stream)
            if not request.source or request.source == "own":
                raise errors.BadRequest("source: name the sender of the sweep, for instance beat")
            if not 0 < request.interval < math.inf:
                raise errors.BadRequest(f"interval: {request.interval} is not the number of seconds between two sweeps")
            await stream.send_message(encode_sweep(self._broker.sweep(request.source, request.interval)))

    async def Apply(self, stream: Any) -> None:
        async with _Answering(stream):
            allowed = await self._allowed(stream, "Apply")
            request = await _receive(stream)
            allowed.check("Apply", request.pool)
            if request.action:
                actor = allowed.actor(request.actor)
                self._broker.acted(request.pool, request.action, actor, request.reason)
            await stream.send_message(pb.ApplyReply(pools=await self._broker.apply()))

    async def Metrics(self, stream: Any) -> None:
        async with _Answering(stream):
            (await self._allowed(stream, "Metrics")).check("Metrics")
            await _receive(stream)
            self._broker.count()
            await stream.send_message(pb.MetricsReply(text=self._metrics()))

    async def Recycle(self, stream: Any) -> None:
        async with _Answering(stream):
            allowed = await self._allowed(stream, "Recycle")
            request = await _receive(stream)
            allowed.check("Recycle", request.pool)
            actor = allowed.actor(request.actor)
            planned = self._broker.recycle(request.pool, request.worker, actor, request.reason)
            await stream.send_message(pb.RecycleReply(planned=planned))

    async def Plan(self, stream: Any) -> None:
        async with _Answering(stream):
            allowed = await self._allowed(stream, "Plan")
            request = await _receive(stream)
            allowed.check("Plan", request.pool)
            await stream.send_message(encode_plan(self._broker.plan(request.pool, request.worker)))

    async def Drain(self, stream: Any) -> None:
        async with _Answering(stream):
            allowed = await self._allowed(stream, "Drain")
            allowed.check("Drain")
            request = await _receive(stream)
            order = self._broker.resume if request.resume else self._broker.drain
            order(allowed.actor(request.actor), request.reason)
            await stream.send_message(pb.DrainReply(draining=not request.resume))

    async def Kill(self, stream: Any) -> None:
        async with _Answering(stream):
            allowed = await self._allowed(stream, "Kill")
            request = await _receive(stream)
            allowed.check_worker("Kill", self._broker, request.worker)
            self._broker.kill(request.worker, allowed.actor(request.actor), request.reason)
            await stream.send_message(pb.KillReply(worker=request.worker))

    async def Dump(self, stream: Any) -> None:
        async with _Answering(stream):
            allowed = await self._allowed(stream, "Dump")
            request = await _receive(stream)
            allowed.check_worker("Dump", self._broker, request.worker)
            dump = await self._broker.dump(request.worker, allowed.actor(request.actor), request.reason)
            await stream.send_message(encode_dump(dump))


class _Answering:
    """Turns a broker's error into the status of a unary call."""

    def __init__(self, stream: Any, broker: Broker | None = None) -> None:
        """`broker`: the request is a call, which may have as many bytes as the largest pool allows."""
        self._stream = stream
        self._broker = broker
        limit_messages(stream, largest_message(broker) if broker else MAX_REQUEST)

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, MessageTooLarge):
            limit = self._broker.largest_payload if self._broker else MAX_REQUEST
            error = errors.PayloadTooLarge(
                f"The request is too large: {error}. Raise the pool's max_payload, send the data in parts, or pass the "
                "name of a file.",
                details={"limit": limit},
            )
        if not isinstance(error, errors.BrokerError):
            return False
        metadata = {"snakepit-code": error.code, "snakepit-outcome": error.outcome}
        if error.retry_after:
            metadata["snakepit-retry-after"] = f"{error.retry_after:g}"
        details = json.dumps(error.details, default=str) if error.details else ""
        if 0 < len(details) <= 2000 and details.isascii():
            metadata["snakepit-details"] = details
        await self._stream.send_trailing_metadata(
            status=Status[error.grpc_status],
            status_message=utf8(error.message)[:MAX_STATUS_MESSAGE],
            metadata=metadata,
        )
        return True


class _Collected:
    """The one answer of an Execute."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[tuple[Payload | None, Timing]] = asyncio.get_running_loop().create_future()

    def done(self, payload: Payload | None, timing: Timing) -> None:
        if not self.answer.done():
            self.answer.set_result((payload, timing))

    def failed(self, error: errors.BrokerError, timing: Timing) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # if the handler is gone, asyncio must not warn that the error was never retrieved

    def chunk(self, payload: Payload) -> None: ...

    def progress(self, fraction: float, message: str) -> None: ...

    def log(self, message: str) -> None: ...


class _Streamed(_Collected):
    """The chunks of an ExecuteStream; the credit bounds how many wait here."""

    def __init__(self) -> None:
        self.items: asyncio.Queue[Payload | errors.BrokerError | tuple[Payload | None, Timing]] = asyncio.Queue()

    def chunk(self, payload: Payload) -> None:
        self.items.put_nowait(payload)

    def done(self, payload: Payload | None, timing: Timing) -> None:
        self.items.put_nowait((payload, timing))

    def failed(self, error: errors.BrokerError, timing: Timing) -> None:
        self.items.put_nowait(error)


def _reply(payload: Payload | None, timing: Timing | None) -> pb.ExecuteReply:
    reply = pb.ExecuteReply(timing=timing_of(timing) if timing else None)
    if payload is None:
        return reply
    if payload.raw:
        reply.raw = payload.data
    else:
        reply.json = payload.data.decode()
    return reply


async def _receive(stream: Any) -> Any:
    try:
        request = await stream.recv_message()
    except DecodeError as error:
        raise errors.BadRequest(f"The request is not a protobuf message of this method: {error}") from None
    except NotImplementedError:  # of grpclib: as gRPC wants it where a server has no compression
        message = "Compressed messages are not supported: send them without compression."
        raise GRPCError(Status.UNIMPLEMENTED, message) from None
    if request is None:  # the client ended its side without a request
        raise errors.BadRequest("The request is missing.")
    return request


async def _called(stream: Any, credit: int, allowed: Allowed) -> Request:
    call = await _receive(stream)
    request = request_of(call, call.arguments.encode(), credit)
    allowed.take((request,))
    return request


async def _refuse_token(stream: Any) -> None:
    """Answer a request without the right token, as a method does that refuses: with code and outcome."""
    async with _Answering(stream):
        raise errors.Unauthenticated(
            "the metadata 'authorization: Bearer TOKEN' is missing or wrong; the token is in the runtime directory"
        )


def make_server(
    broker: Broker,
    token: str,
    recent: RecentEvents,
    metrics: Callable[[], str] = lambda: "",
    intake: BufferIntake | None = None,
) -> Server:
    """A server for the clients of the Unix socket, with health and reflection."""
    service = BrokerService(broker, recent, metrics)
    service.intake = intake
    server = Server(ServerReflection.extend([service, PoolHealth(broker)]))
    expected = f"Bearer {token}".encode()

    async def check_token(event: RecvRequest) -> None:
        if event.method_name.startswith(OPEN_TO_ALL):
            return
        given = event.metadata.get("authorization", "")
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(), expected):
            event.method_func = _refuse_token

    listen(server, RecvRequest, check_token)
    return server
