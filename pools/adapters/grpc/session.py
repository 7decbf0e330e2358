"""One client's stream: many calls in, many replies out; all that waits travels in one message."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from snakepit.pools.adapters.grpc import MAX_MESSAGE
from snakepit.pools.adapters.grpc.buffer_intake import BufferCount, BufferIntake
from snakepit.pools.adapters.grpc.error_replies import end_in_order, error_message
from snakepit.pools.adapters.grpc.large_call import LargeCalls
from snakepit.pools.adapters.grpc.peer import FollowedRights
from snakepit.pools.adapters.runtime_directory import REPLY_SOCKET
from snakepit.pools.broker import errors
from snakepit.pools.broker.broker import Broker
from snakepit.pools.broker.caller import CallerIdentity, Limits
from snakepit.pools.broker.handle import CallHandle
from snakepit.pools.broker.messages import DELIVERED, MAX_AFFINITY, PARTS, Request, Timing
from snakepit.pools.broker.ports import Payload
from snakepit.pools.wire import broker_pb2 as pb
from snakepit.workers.report import utf8
from snakepit.workers.transport import DIRECT_REPLY, is_on
from snakepit.workers.transport.grpclib_internals import MessageTooLarge
from snakepit.workers.transport.message_stream import Batch, MessageStream
from snakepit.workers.wire import worker_pb2

MAX_WAITING = 64 * 2**20  # bytes of replies that wait for a slow client; beyond it its calls are refused
OVERRUN = 4  # times MAX_WAITING: refusals and granted chunks wait too; beyond it the session of the client ends
NOTHING: Mapping[str, bytes] = {}
NO_HANDLE = CallHandle(None, 0)  # of a call that is being submitted
TAKES, CALLS = "snakepit-takes", "calls"  # initial metadata: a client may send Calls
REPLY_SOCKET_NAME = "snakepit-reply-socket"  # initial metadata: a socket beside the broker's that takes Deliveries
REPORT_GRACE = 0.25  # seconds for the worker's report of a delivered result after the client disconnects
LEAVE_GRACE = 0.25  # seconds for a client to read its last replies when the broker stops


def timing_of(timing: Timing) -> pb.Timing:
    wire = pb.Timing(call=timing.call, worker=timing.worker, queued_seconds=timing.queued, run_seconds=timing.ran)
    if timing.calls_left >= 0:
        wire.calls_left, wire.calls_reset = timing.calls_left, timing.calls_reset
    return wire


def caller_of(wire: pb.Caller) -> CallerIdentity:
    """The caller that a trusted client names."""
    keys, owners = wire.key_limits, wire.owner_limits
    return CallerIdentity(
        wire.key, wire.owner, _limits_of(keys), _limits_of(owners), keys.share or 1.0, owners.share or 1.0
    )


def _limits_of(wire: pb.Limits) -> Limits:
    return Limits(wire.calls_per_second, wire.calls_burst, wire.calls_in_flight, wire.calls_waiting)


def _check(timeout: float, priority: int) -> None:
    if not 0 <= timeout < math.inf:
        raise errors.BadRequest(f"timeout: {timeout} is not a number of seconds; 0 takes the default")
    if not -100 <= priority <= 100:
        raise errors.BadRequest(f"priority: {priority} is outside -100 to 100")


def request_of(call: Any, arguments: bytes, credit: int, credit_bytes: int = 0) -> Request:
    """A checked Request from a Call or an ExecuteRequest; raises BadRequest naming the field."""
    timeout, priority, affinity, attachments = call.timeout, call.priority, call.affinity, call.attachments
    _check(timeout, priority)
    if len(affinity) > MAX_AFFINITY:
        raise errors.BadRequest(f"affinity: {len(affinity)} characters are more than {MAX_AFFINITY}")
    beside = dict(attachments) if attachments else NOTHING
    # By position: with keywords it takes seven times as long.
    request = Request(call.pool, call.command, arguments or b"{}", beside, timeout, priority, credit, credit_bytes)
    request.affinity = affinity
    if call.HasField("caller"):
        request.caller = caller_of(call.caller)
    return request


def requests_of(calls: pb.Calls, buffer_socket: str = "") -> list[Request]:
    """Checked Requests; raises BadRequest naming the field."""
    if len(calls.refs) != len(calls.arguments):
        lengths = f"{len(calls.refs)} refs, {len(calls.arguments)} arguments"
        raise errors.BadRequest(f"arguments: as many as refs are needed ({lengths})")
    pool, command, timeout, priority = calls.pool, calls.command, calls.timeout, calls.priority
    _check(timeout, priority)
    credit = calls.credit, calls.credit_bytes
    if not buffer_socket:
        return [
            Request(pool, command, given or b"{}", NOTHING, timeout, priority, *credit) for given in calls.arguments
        ]
    return [
        Request(pool, command, given or b"{}", NOTHING, timeout, priority, *credit, "", ref, buffer_socket)
        for ref, given in zip(calls.refs, calls.arguments, strict=True)
    ]


class ClientSession:
    def __init__(
        self, broker: Broker, stream: Any, rights: FollowedRights | None = None, intake: BufferIntake | None = None
    ) -> None:
        """`rights`: those of a network client; None: a client of the Unix socket."""
        self._intake = intake
        self._buffer_count = intake.session() if intake else BufferCount(0, 0)
        self._broker = broker
        self._stream = stream
        self._rights = rights
        self._handles: dict[int, CallHandle] = {}
        self._messages: MessageStream | None = None
        self.batch = Batch(pb.Replies)
        self._results: pb.Results | None = None  # where results of the same worker may be added
        self._results_of: pb.Replies | None = None
        self._task: asyncio.Task[Any] | None = None
        self._overrun = False
        self._reply_socket = ""
        self._direct: set[int] = set()  # calls whose results may reach the client before the worker's report

    async def run(self) -> None:
        """Serve until the client ends the stream; then cancel the calls that it still waits for."""
        self._reply_socket = self._find_reply_socket()
        await self._stream.send_initial_metadata(metadata={TAKES: CALLS})
        self._task = asyncio.current_task()
        self._broker.open_sessions.add(self)
        try:
            self._messages = MessageStream(
                self._stream, pb.Replies, self._receive, MAX_MESSAGE, LargeCalls(self._broker, self._take, self._refuse)
            )
            self.batch.open(self._messages)
            self._messages.open()
            await self._messages.ended()
        except (MessageTooLarge, DecodeError) as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
        except asyncio.CancelledError:
            if not self._overrun:
                if not self._broker.node.stopping:
                    raise
                await self._take_leave()
                return
            message = f"more than {OVERRUN * MAX_WAITING} bytes of answers waited to be read by this client"
            raise GRPCError(Status.RESOURCE_EXHAUSTED, message) from None
        finally:
            self._broker.open_sessions.discard(self)
            self.batch.close()  # a client that closes its session must not read that it cancelled its calls
            for ref, handle in tuple(self._handles.items()):
                if ref in self._direct:  # a client that disconnects after it read its result has not cancelled the call
                    asyncio.get_running_loop().call_later(REPORT_GRACE, handle.cancel)
                else:
                    handle.cancel()
            if self._messages:
                self._messages.close()
            if self._reply_socket:  # a client that was killed has not removed it
                with contextlib.suppress(OSError):
                    os.unlink(self._reply_socket)

    def leave(self) -> asyncio.Task[Any] | None:
        if self._task is not None:
            self._task.cancel()
        return self._task

    async def _take_leave(self) -> None:
        """Answer the calls that arrive too late by the end of the session: no pool is left that could run them."""
        if self._messages is None:
            return
        self.batch.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._messages.drained(), LEAVE_GRACE)
        # A client that does not read its last replies cannot tell which of its calls have run.
        outcome = errors.UNKNOWN if self._messages.waiting or self._handles else errors.NOT_STARTED
        await end_in_order(self._stream, errors.ShuttingDown(outcome=outcome))

    def _find_reply_socket(self) -> str:
        """Return the path of the client's reply socket, empty if it has none. It sends a name and never a path."""
        name = str(self._stream.metadata.get(REPLY_SOCKET_NAME, ""))
        if not name or self._rights is not None or not is_on(DIRECT_REPLY):
            return ""
        if not REPLY_SOCKET.fullmatch(name):
            message = f"the metadata {REPLY_SOCKET_NAME!r} is {name[:40]!r}, not r- and eight hexadecimal digits"
            raise GRPCError(Status.INVALID_ARGUMENT, message)
        path = os.path.join(os.path.dirname(os.path.abspath(self._broker.facts.address)), name)
        return path if utf8(path) == path else ""  # no worker could receive a path that is not UTF-8

    def _receive(self, message: bytes) -> None:
        for request in pb.Requests.FromString(message).requests[:]:  # a list, as in workers/transport/server.py
            self._take(request)

    def _take(self, request: pb.Request) -> None:
        kind = request.WhichOneof("request")
        if kind == "call":
            self._call(request.call)
        elif kind == "calls":
            self._call_many(request.calls)
        elif kind == "cancel":
            if handle := self._handles.get(request.cancel.ref):
                handle.cancel()
        elif kind == "credit" and (handle := self._handles.get(request.credit.ref)):
            handle.credit(request.credit.chunks)

    def _call(self, call: pb.Call) -> None:
        try:
            request = request_of(call, call.arguments, call.credit, call.credit_bytes)
        except errors.BadRequest as wrong:
            self._refuse(call.ref, wrong)
            return
        if call.buffer and not self._claim(call, request):
            return
        if self._reply_socket and call.direct_reply:
            request.reply_socket, request.ref = self._reply_socket, call.ref
        if self._reply_socket and call.buffers:
            request.buffer_socket, request.ref = self._reply_socket, call.ref
        self._submit((call.ref,), (request,), together=False)

    def _claim(self, call: pb.Call, request: Request) -> bool:
        """Take the buffers of the arguments; False: the call is refused."""
        try:
            if self._intake is None:
                raise errors.BadRequest("buffer: this broker takes no descriptors; send the arguments in the call")
            parts = self._intake.claim(call.buffer, self._buffer_count)
        except errors.BrokerError as wrong:
            self._refuse(call.ref, wrong)
            return False
        if isinstance(parts, memoryview):
            request.attachments = {**request.attachments, PARTS: parts}
        else:
            request.buffers = parts
        return True

    def _call_many(self, calls: pb.Calls) -> None:
        try:
            requests = requests_of(calls, self._reply_socket if calls.buffers else "")
        except errors.BadRequest as wrong:
            for ref in calls.refs:
                self._refuse(ref, wrong)
            return
        self._submit(calls.refs, requests, together=True)

    def _submit(self, refs: Sequence[int], requests: Sequence[Request], *, together: bool) -> None:
        """Pass calls to the broker. `together`: the client reads Results."""
        if self._rights is not None and self._are_denied(self._rights, refs, requests):
            return
        handles, asked = self._handles, []
        crowded = self.batch.waiting > MAX_WAITING
        for ref, request in zip(refs, requests, strict=True):
            if ref in handles:  # the open call goes on; this one is refused without a `_Reply`
                self._refuse(ref, errors.BadRequest(f"ref: {ref} names another open call of this session"))
            elif crowded:
                busy = f"{self.batch.waiting} bytes of answers wait to be read by this client; read them first"
                self._refuse(ref, errors.QueueFull(busy, retry_after=1.0))
            else:
                handles[ref] = NO_HANDLE
                if request.reply_socket:
                    self._direct.add(ref)
                asked.append((request, _Reply(self, ref, together)))
        if asked:
            for (_, reply), handle in zip(asked, self._broker.submit_alike(asked), strict=True):
                if not reply.over:
                    handles[reply.ref] = handle

    def _are_denied(self, rights: FollowedRights, refs: Sequence[int], requests: Sequence[Request]) -> bool:
        """Give a network client's calls their caller, or refuse them all."""
        try:
            rights.allowed.take(requests)
        except errors.BrokerError as denied:
            for ref in refs:
                self._refuse(ref, denied)
            return True
        return False

    def end_calls(self, reason: errors.BrokerError) -> None:
        """Answer every open call with this error, and cancel it."""
        ended = errors.from_code(reason.code, reason.message, errors.UNKNOWN, reason.details)
        for ref, handle in tuple(self._handles.items()):
            self._refuse(ref, ended)
            handle.cancel()

    def _refuse(self, ref: int, error: errors.BrokerError) -> None:
        self.send(pb.Reply(ref=ref, error=error_message(error, pb.Timing())))

    def over(self, ref: int) -> None:
        self._handles.pop(ref, None)
        self._direct.discard(ref)

    def takes(self) -> bool:
        """Whether replies may still be sent; ends the session of a client that reads none."""
        if self._overrun:
            return False
        if self.batch.waiting > OVERRUN * MAX_WAITING and self._task:
            self._overrun = True
            self._task.cancel()
            return False
        return True

    def add_result(self, ref: int, data: bytes, timing: Timing) -> None:
        """Add a result to those of the same worker, for a client that reads Results."""
        message, results = self.batch.message, self._results
        if results is None or message is not self._results_of or results.worker != timing.worker:
            results = self._results = message.replies.add().results
            results.worker = timing.worker
            self._results_of = message
        results.refs.append(ref)
        results.json.append(data)
        results.calls.append(timing.call)
        results.queued_seconds.append(timing.queued)
        results.run_seconds.append(timing.ran)
        self.batch.added(len(data))

    def close_results(self) -> None:
        """Let later results not join those before the next reply: it may be of the same call."""
        self._results = None

    def send(self, reply: pb.Reply, size: int = 0) -> None:
        self.close_results()
        if self.takes():
            self.batch.message.replies.append(reply)
            self.batch.added(size)


def _fill(value: worker_pb2.Value, payload: Payload) -> None:
    if payload.raw:
        value.raw = payload.data
    else:
        value.json = payload.data
    if payload.parts:
        value.parts, value.parts_bytes = payload.parts, payload.parts_bytes


class _Reply:
    """Sends the replies of one call."""

    __slots__ = ("_session", "_together", "over", "ref")

    def __init__(self, session: ClientSession, ref: int, together: bool) -> None:
        self._session = session
        self._together = together
        self.ref = ref
        self.over = False

    def done(self, payload: Payload | None, timing: Timing) -> None:
        session = self._session
        self.over = True
        session.over(self.ref)
        if payload is DELIVERED or not session.takes():
            return
        if self._together and payload is not None and not (payload.raw or payload.parts):
            session.add_result(self.ref, payload.data, timing)
            return
        reply = session.batch.message.replies.add()
        reply.ref = self.ref
        result = reply.result
        wire = result.timing
        wire.call, wire.worker = timing.call, timing.worker
        wire.queued_seconds, wire.run_seconds = timing.queued, timing.ran
        if timing.calls_left >= 0:
            wire.calls_left, wire.calls_reset = timing.calls_left, timing.calls_reset
        if payload is not None:
            _fill(result.value, payload)
        session.batch.added(len(payload.data) if payload else 0)

    def failed(self, error: errors.BrokerError, timing: Timing) -> None:
        self.over = True
        self._session.over(self.ref)
        message = error_message(error, timing_of(timing))
        self._session.send(pb.Reply(ref=self.ref, error=message), message.ByteSize())

    def chunk(self, payload: Payload) -> None:
        session = self._session
        if session.takes():
            session.close_results()
            reply = session.batch.message.replies.add()
            reply.ref = self.ref
            _fill(reply.chunk, payload)
            session.batch.added(len(payload.data))

    def progress(self, fraction: float, message: str) -> None:
        self._session.send(pb.Reply(ref=self.ref, progress=pb.Progress(fraction=fraction, message=message)))

    def log(self, message: str) -> None:
        self._session.send(pb.Reply(ref=self.ref, log=message))
