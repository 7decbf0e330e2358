"""One client's stream: many calls in, many answers out, whatever waits in one message."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

from pools.adapters.limits import bound_messages
from pools.broker import errors
from pools.broker.broker import Broker, Handle
from pools.broker.ports import Payload
from pools.broker.staff import Request, Timing
from pools.wire import broker_pb2 as pb
from workers.wire import worker_pb2

MAX_WAITING = 64 * 2**20  # bytes of answers that wait for a slow reader; beyond it its requests are not read
MAX_BATCH = 2**20  # bytes in one message, beyond the first answer
MAX_DETAILS = 64 * 1024  # characters of an error's details


def value_of(payload: Payload) -> worker_pb2.Value:
    return worker_pb2.Value(raw=payload.data) if payload.raw else worker_pb2.Value(json=payload.data)


def timing_of(timing: Timing) -> pb.Timing:
    return pb.Timing(call=timing.call, worker=timing.worker, queued_seconds=timing.queued, run_seconds=timing.ran)


def request_of(call: Any, arguments: bytes, credit: int) -> Request:
    """A checked Request from a Call or an ExecuteRequest; raises BadRequest naming the field."""
    if not 0 <= call.timeout < math.inf:
        raise errors.BadRequest(f"timeout: {call.timeout} is not a number of seconds; 0 takes the default")
    if not -100 <= call.priority <= 100:
        raise errors.BadRequest(f"priority: {call.priority} is outside -100 to 100")
    return Request(
        pool=call.pool,
        command=call.command,
        arguments=arguments or b"{}",
        attachments=dict(call.attachments),
        timeout=call.timeout,
        priority=call.priority,
        credit=credit,
    )


def error_message(error: errors.BrokerError, timing: Timing) -> pb.Error:
    details = json.dumps(error.details, default=str) if error.details else ""
    return pb.Error(
        code=error.code,
        message=error.message,
        outcome=error.outcome,
        details=details if len(details) <= MAX_DETAILS else "",
        retry_after=error.retry_after,
        timing=timing_of(timing),
    )


class Session:
    def __init__(self, broker: Broker, stream: Any) -> None:
        self._broker = broker
        self._stream = stream
        self._handles: dict[int, Handle] = {}
        self._waiting: list[tuple[pb.Reply, int]] = []
        self._bytes = 0
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()

    async def run(self) -> None:
        """Serve until the client ends the stream; what it still waits for then is cancelled."""
        bound_messages(self._stream)
        writer = asyncio.get_running_loop().create_task(self._write())
        self._broker.sessions += 1
        try:
            while (message := await self._stream.recv_message()) is not None:
                for request in message.requests:
                    self._take(request)
                while self._bytes > MAX_WAITING:
                    self._drained.clear()
                    await self._drained.wait()
        finally:
            self._broker.sessions -= 1
            writer.cancel()
            for handle in tuple(self._handles.values()):
                handle.cancel()

    def _take(self, request: pb.Request) -> None:
        kind = request.WhichOneof("request")
        if kind == "call":
            self._call(request.call)
        elif kind == "cancel":
            if handle := self._handles.get(request.cancel.ref):
                handle.cancel()
        elif kind == "credit" and (handle := self._handles.get(request.credit.ref)):
            handle.credit(request.credit.chunks)

    def _call(self, call: pb.Call) -> None:
        reply = _Reply(self, call.ref)
        if call.ref in self._handles:
            reply.failed(errors.BadRequest(f"ref: {call.ref} names another open call of this session"), Timing())
            return
        try:
            request = request_of(call, call.arguments, call.credit)
        except errors.BadRequest as error:
            reply.failed(error, Timing())
            return
        handle = self._broker.submit(request, reply)
        if not reply.over:
            self._handles[call.ref] = handle

    def over(self, ref: int) -> None:
        self._handles.pop(ref, None)

    def send(self, reply: pb.Reply, size: int = 0) -> None:
        self._waiting.append((reply, size))
        self._bytes += size
        self._wake.set()

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, []
            batch: list[pb.Reply] = []
            size = 0
            for reply, length in waiting:
                if batch and size + length > MAX_BATCH:
                    await self._flush(batch, size)
                    batch, size = [], 0
                batch.append(reply)
                size += length
            await self._flush(batch, size)

    async def _flush(self, batch: list[pb.Reply], size: int) -> None:
        await self._stream.send_message(pb.Replies(replies=batch))
        self._bytes -= size
        self._drained.set()


class _Reply:
    """Where one call's answers go."""

    __slots__ = ("_ref", "_session", "over")

    def __init__(self, session: Session, ref: int) -> None:
        self._session = session
        self._ref = ref
        self.over = False

    def done(self, payload: Payload | None, timing: Timing) -> None:
        result = pb.Result(timing=timing_of(timing))
        if payload is not None:
            result.value.CopyFrom(value_of(payload))
        self._last(pb.Reply(ref=self._ref, result=result), len(payload.data) if payload else 0)

    def failed(self, error: errors.BrokerError, timing: Timing) -> None:
        self._last(pb.Reply(ref=self._ref, error=error_message(error, timing)), 0)

    def _last(self, reply: pb.Reply, size: int) -> None:
        self.over = True
        self._session.over(self._ref)
        self._session.send(reply, size)

    def chunk(self, payload: Payload) -> None:
        self._session.send(pb.Reply(ref=self._ref, chunk=value_of(payload)), len(payload.data))

    def progress(self, fraction: float, message: str) -> None:
        self._session.send(pb.Reply(ref=self._ref, progress=pb.Progress(fraction=fraction, message=message)))

    def log(self, message: str) -> None:
        self._session.send(pb.Reply(ref=self._ref, log=message))
