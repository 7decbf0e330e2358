"""The worker's end of the link to its broker.

     broker ══ Work stream ══▶ MessageStream ─ carry_out ─▶ Runtime.assign, cancel, credit, drain
            ◀══════════════════ MessageStream ◀─ to_wire ── Outbox.take

The main thread runs the event loop while it waits for calls. The backup thread runs it while a command takes long
(loop_owner.py), so probes and cancels are always read. A worker that loses the stream ends: its broker is gone.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any, Protocol

import grpclib
from grpclib.const import Status
from grpclib.server import Server, Stream

from snakepit.workers.call import AssignedCall
from snakepit.workers.kept_files import files
from snakepit.workers.report import (
    BootFailureReport,
    ChunkReport,
    DeliveredReport,
    EncodedValue,
    FailureReport,
    HelloReport,
    LogReport,
    Outbox,
    ProgressReport,
    RaceReport,
    Report,
    ResultReport,
    RevokedReport,
    VitalsReport,
)
from snakepit.workers.transport.buffer_inbox import BufferInbox
from snakepit.workers.transport.fast_path_check import has_fast_path
from snakepit.workers.transport.loop_owner import LoopOwner
from snakepit.workers.transport.message_stream import PUBLIC_TURNS, MessageStream
from snakepit.workers.transport.own_files import GuardedLoop, OwnSocket
from snakepit.workers.wire import worker_pb2 as pb
from snakepit.workers.wire.worker_grpc import WorkerBase

MESSAGE_ROOM = 16 << 20  # bytes beyond max_payload: several orders travel in one message
START_SECONDS = 30.0
FLUSH_SECONDS = 10.0  # for the broker to read the last reports
CLOSE_SECONDS = 1.0  # for the broker to close its end after the last report


class Orders(Protocol):
    """What the broker can order; the worker's Runtime."""

    def assign(self, call: AssignedCall) -> None: ...

    def cancel(self, sequence: int, reason: str) -> None: ...

    def credit(self, sequence: int, chunks: int) -> None: ...

    def drain(self) -> None: ...


class WorkerService(WorkerBase):
    """Serves the one Work stream of this worker."""

    def __init__(
        self, listen_fd: int, max_payload: int, probe: Callable[[int], VitalsReport], buffer_fd: int = 0
    ) -> None:
        self._inbox = BufferInbox(buffer_fd) if buffer_fd else None
        self._listen_fd = listen_fd
        self._max_payload = max_payload
        self._probe = probe
        self._orders: Orders | None = None
        self._on_lost: Callable[[], None] | None = None
        self._stream: MessageStream | None = None
        self._has_broker = False
        self._finishing = False
        self._ended = False
        self._farewell: asyncio.Task[None] | None = None
        self._started = threading.Event()
        self._flushed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="io", daemon=True)
        self._broken: BaseException | None = None
        self.lost = False
        self.loop = GuardedLoop()
        self.loop_owner = LoopOwner(self.loop, turns=1 if has_fast_path() else PUBLIC_TURNS)
        self.outbox = Outbox(self._wake)

    # From other threads.

    def start(self, orders: Orders, on_lost: Callable[[], None]) -> None:
        """Listen; returns when connections are accepted."""
        self._orders = orders
        self._on_lost = on_lost
        self._thread.start()
        if not self._started.wait(START_SECONDS) or self._broken is not None:
            raise RuntimeError(f"the worker's link could not be opened: {self._broken}")

    def finish(self) -> None:
        """Send what waits, end the stream, and stop; bounded in time."""
        self._finishing = True
        self.loop_owner.leave_to_backup()
        if self.lost:
            return
        self._wake(last=False)
        self._flushed.wait(FLUSH_SECONDS)
        self._thread.join(CLOSE_SECONDS + 0.5)

    def _wake(self, last: bool = False) -> None:
        """Have the outbox sent. After a call's last report its thread comes to the loop itself."""
        try:
            self.loop_owner.call_soon(self._send_waiting)
        except RuntimeError:
            self._flushed.set()  # the loop has ended: nothing can be sent
        if not last:
            self.loop_owner.ensure_running()

    # On the thread that runs the loop.

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            server = self.loop.run_until_complete(self._serve())
            self._started.set()
            self.loop_owner.run_backup(lambda: self._ended)
            self.loop.run_until_complete(_close(server))
        except BaseException as error:
            self._broken = error
        finally:
            self._flushed.set()
            self._started.set()
            self._lose()

    async def _serve(self) -> Server:
        server = Server([self])
        await server.start(sock=OwnSocket(fileno=self._listen_fd))
        if self._inbox is not None:
            self._inbox.open(self.loop)
            files.start(self.loop)
        return server

    async def Work(self, stream: Stream[pb.Orders, pb.Reports]) -> None:
        if self._has_broker:
            raise grpclib.GRPCError(Status.FAILED_PRECONDITION, "this worker has a broker already")
        self._has_broker = True
        await stream.send_initial_metadata()
        try:
            self._stream = MessageStream(stream, pb.Reports, self._receive, MESSAGE_ROOM + self._max_payload)
            self._stream.open()
            self._send_waiting()
            await self._stream.ended()
        except Exception as error:
            print_error(f"the link is closed: {type(error).__name__}: {error}")
        finally:
            self._lose()
            if not self.lost:  # the loop is still needed to end a worker whose main thread is stuck
                self._end()

    def _receive(self, message: bytes) -> None:
        assert self._orders is not None
        for order in pb.Orders.FromString(message).orders[:]:  # a list: to iterate over the field takes twice as long
            carry_out(order, self._orders, self._max_payload, self.outbox, self._probe, self._inbox)

    def _send_waiting(self) -> None:
        stream = self._stream
        if stream is None:
            return  # the broker has not come yet; its stream begins with this
        while batch := self.outbox.take():
            stream.send(to_wire(batch))
        if self._finishing and not self._farewell:
            self._farewell = self.loop.create_task(self._finish_stream(stream))

    async def _finish_stream(self, stream: MessageStream) -> None:
        """End the stream, and wait for the broker to close the connection.

        A worker that closes first, while the broker still writes (a window update is enough), breaks the broker's end
        of the socket with the last reports unread in it.
        """
        await stream.drained()
        await stream.end()
        self._flushed.set()
        self.loop.call_later(CLOSE_SECONDS, self._end)

    def _end(self) -> None:
        self._ended = True
        self.loop.stop()

    def _lose(self) -> None:
        if self._finishing or self.lost:
            return
        self.lost = True
        print_error("the link to the broker is lost")
        if self._on_lost is not None:
            self._on_lost()


def carry_out(
    order: pb.Order,
    orders: Orders,
    max_payload: int,
    outbox: Outbox,
    probe: Callable[[int], VitalsReport],
    inbox: BufferInbox | None = None,
) -> None:
    """Carry out one order of the broker."""
    match order.WhichOneof("order"):
        case "assigns":  # nearly all of them
            for call in calls_of(order.assigns, max_payload):
                orders.assign(call)
        case "assign":
            orders.assign(call_of(order.assign, max_payload, inbox))
        case "cancel":
            orders.cancel(order.cancel.sequence, order.cancel.reason)
        case "credit":
            orders.credit(order.credit.sequence, order.credit.chunks)
        case "drain":
            orders.drain()
        case "probe":
            outbox.put(probe(order.probe.nonce))


def print_error(sentence: str) -> None:
    try:
        sys.stderr.write(sentence + "\n")
    except (OSError, ValueError):
        return  # the broker held the other end of stderr too


async def _close(server: Server) -> None:
    server.close()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=CLOSE_SECONDS)


def call_of(assign: pb.Assign, max_payload: int, inbox: BufferInbox | None = None) -> AssignedCall:
    # By attributes, here and below: a constructor with so many keywords takes three times as long.
    call = AssignedCall(assign.sequence, assign.command, assign.arguments, assign.budget)
    call.call_id, call.max_result, call.batch = assign.call, assign.max_result or max_payload, assign.batch
    call.ref, call.queued, call.max_buffer = assign.ref, assign.queued, assign.max_buffer
    call.reply_socket = reply_socket = assign.reply_socket
    call.buffer_socket = assign.buffer_socket or (reply_socket if call.max_buffer else "")
    if attachments := assign.attachments:
        call.attachments = dict(attachments)
    if credit := assign.credit:
        call.stream(credit, assign.credit_bytes)
    if assign.buffers and inbox:
        call.buffers = inbox.take(assign.sequence)
    return call


def calls_of(assigns: pb.Assigns, max_payload: int) -> Iterator[AssignedCall]:
    command, max_result, batch = assigns.command, assigns.max_result or max_payload, assigns.batch
    credit, credit_bytes = assigns.credit, assigns.credit_bytes
    taker, max_buffer = assigns.buffer_socket, assigns.max_buffer
    given = zip(assigns.calls, assigns.arguments, assigns.budgets, strict=True)
    callers = zip(assigns.refs, assigns.queued, strict=True) if taker else repeat((0, 0.0), len(assigns.calls))
    for sequence, ((call_id, arguments, budget), (ref, queued)) in enumerate(
        zip(given, callers, strict=True), assigns.first
    ):
        call = AssignedCall(sequence, command, arguments, budget)
        call.call_id, call.max_result, call.batch = call_id, max_result, batch
        if taker:
            call.ref, call.queued, call.buffer_socket, call.max_buffer = ref, queued, taker, max_buffer
        if credit:
            call.stream(credit, credit_bytes)
        yield call


def to_wire(batch: list[Report]) -> bytes:
    """Serialise reports as one message. Results with a JSON value, which nearly all are, share one report."""
    message = pb.Reports()
    reports = message.reports
    results: pb.Results | None = None
    for report in batch:
        if type(report) is ResultReport and (value := report.value) is not None and is_text(value):
            if results is None:
                results = reports.add().results
            results.sequences.append(report.sequence)
            results.json.append(value.data)
            results.seconds.append(report.seconds)
            continue
        results = None
        if type(report) is DeliveredReport:  # of nearly all lone calls
            delivered = reports.add().delivered
            delivered.sequence, delivered.seconds = report.sequence, report.seconds
            if report.buffer_bytes:
                delivered.buffer_bytes = report.buffer_bytes
        elif type(report) is ChunkReport:
            chunk = reports.add().chunk
            chunk.sequence = report.sequence
            fill(chunk.value, report.value)
        else:
            reports.append(TO_WIRE[type(report)](report))
    return message.SerializeToString()


def is_text(value: EncodedValue) -> bool:
    """Whether a value is JSON and nothing else."""
    return not (value.raw or value.parts)


def fill(wire: pb.Value, value: EncodedValue) -> None:
    if value.raw:
        wire.raw = value.data
    else:
        wire.json = value.data
    if value.parts:
        wire.parts, wire.parts_bytes = value.parts, value.parts_bytes


def _result(report: ResultReport) -> pb.Report:
    wire = pb.Report(result=pb.Result(sequence=report.sequence, seconds=report.seconds))
    if report.value is not None:
        fill(wire.result.value, report.value)
    return wire


def _failure(report: FailureReport) -> pb.Report:
    return pb.Report(
        failure=pb.Failure(
            sequence=report.sequence,
            code=report.code,
            message=report.message,
            type=report.type,
            traceback=report.traceback,
            seconds=report.seconds,
            details=json.dumps(report.details, default=str) if report.details else "",
        )
    )


def _progress(report: ProgressReport) -> pb.Report:
    progress = pb.Progress(sequence=report.sequence, fraction=report.fraction, message=report.message)
    return pb.Report(progress=progress)


def _vitals(report: VitalsReport) -> pb.Report:
    return pb.Report(
        vitals=pb.Vitals(
            nonce=report.nonce,
            served=report.served,
            load=report.load,
            gil_enabled=report.gil_enabled,
            gil_culprit=report.gil_culprit,
        )
    )


def _race(report: RaceReport) -> pb.Report:
    return pb.Report(
        race=pb.Race(
            attribute=report.attribute,
            first_thread=report.first_thread,
            first_stack=report.first_stack,
            second_thread=report.second_thread,
            second_stack=report.second_stack,
        )
    )


def _hello(report: HelloReport) -> pb.Report:
    commands = [
        pb.Command(**{**facts, **{name: json.dumps(facts[name]) for name in ("schema", "result_schema")}})
        for facts in report.commands
    ]
    return pb.Report(hello=pb.Hello(**report.facts, commands=commands))


def _boot_failure(report: BootFailureReport) -> pb.Report:
    failure = pb.BootFailure(type=report.type, message=report.message, traceback=report.traceback)
    return pb.Report(boot_failure=failure)


TO_WIRE: dict[type[Report], Callable[[Any], pb.Report]] = {
    ResultReport: _result,
    FailureReport: _failure,
    RevokedReport: lambda report: pb.Report(revoked=pb.Revoked(sequence=report.sequence)),
    ProgressReport: _progress,
    LogReport: lambda report: pb.Report(log=pb.Log(sequence=report.sequence, message=report.message)),
    VitalsReport: _vitals,
    RaceReport: _race,
    HelloReport: _hello,
    BootFailureReport: _boot_failure,
}
