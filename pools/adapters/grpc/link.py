"""The broker's end of the stream to one worker: orders out and reports in, many in one message."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Sequence

from google.protobuf.message import DecodeError
from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError

from snakepit.pools.adapters.grpc import MAX_MESSAGE
from snakepit.pools.broker.ports import Assignment, Greeting, Payload, Race, WorkerFailure, WorkerReports
from snakepit.pools.broker.status import CommandInfo
from snakepit.workers.transport.grpclib_internals import MessageTooLarge, configuration
from snakepit.workers.transport.message_stream import OVERHEAD, Batch, MessageStream
from snakepit.workers.wire import worker_pb2 as pb
from snakepit.workers.wire.worker_grpc import WorkerStub

PROTOCOL = 1
MAX_COMMANDS = 1000
MAX_BATCH = 1024  # calls
MAX_STACK = 4096  # characters of one of a race's two stacks
WINDOW = 16 * 2**20  # bytes a worker may send before the broker has read them

logger = logging.getLogger("snakepit.link")


class GrpcLink:
    """One worker's Work stream. Orders of one turn of the loop travel in one message."""

    def __init__(self, socket_path: str, reports: WorkerReports) -> None:
        self._path = socket_path
        self._reports = reports
        self._stream: MessageStream | None = None
        self._batch = Batch(pb.Orders)
        self._assigns: pb.Assigns | None = None  # where calls like the last one may be added
        self._assigns_of: pb.Orders | None = None
        self._next = 0  # the sequence that would fit there
        self._connected = False
        self._greeted = False
        self._closed = False
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"link {socket_path}")

    # Link

    def assign(self, assignment: Assignment) -> None:
        if assignment.attachments or assignment.reply_socket or assignment.buffers:
            self._assign_alone(assignment)
            return
        takers = ((assignment.ref, assignment.queued),) if assignment.buffer_socket else ()
        self.assign_alike(assignment, (assignment.call,), (assignment.arguments,), (assignment.budget,), takers)

    def assign_alike(
        self,
        first: Assignment,
        calls: Sequence[str],
        arguments: Sequence[bytes],
        budgets: Sequence[float],
        takers: Sequence[tuple[int, float]] = (),
    ) -> None:
        batch, sequence = self._batch, first.sequence
        message, assigns = batch.message, self._assigns
        if (
            assigns is None
            or message is not self._assigns_of
            or sequence != self._next
            or assigns.command != first.command
            or assigns.max_result != first.max_result
            or assigns.buffer_socket != first.buffer_socket
            or assigns.batch != first.batch
            or assigns.credit != first.credit
            or assigns.credit_bytes != first.credit_bytes
        ):
            assigns = self._assigns = message.orders.add().assigns
            assigns.first, assigns.command, assigns.max_result = sequence, first.command, first.max_result
            assigns.batch, assigns.credit, assigns.credit_bytes = first.batch, first.credit, first.credit_bytes
            if first.buffer_socket:
                assigns.buffer_socket, assigns.max_buffer = first.buffer_socket, first.max_buffer
            self._assigns_of = message
        if takers:
            assigns.refs.extend([ref for ref, _ in takers])
            assigns.queued.extend([queued for _, queued in takers])
        assigns.calls.extend(calls)
        assigns.arguments.extend(arguments)
        assigns.budgets.extend(budgets)
        self._next = sequence + len(calls)
        batch.added(sum(map(len, arguments)) + (len(calls) - 1) * OVERHEAD)

    def _assign_alone(self, assignment: Assignment) -> None:
        self._assigns = None
        batch = self._batch
        order = batch.message.orders.add().assign
        order.sequence = assignment.sequence
        order.call = assignment.call
        order.command = assignment.command
        order.arguments = assignment.arguments
        order.budget = assignment.budget
        order.max_result = assignment.max_result
        if assignment.batch or assignment.buffers:
            order.batch, order.buffers = assignment.batch, assignment.buffers
        size = len(assignment.arguments)
        if assignment.credit:
            order.credit = assignment.credit
            order.credit_bytes = assignment.credit_bytes
        if assignment.reply_socket:
            order.reply_socket, order.ref, order.queued = assignment.reply_socket, assignment.ref, assignment.queued
        if assignment.buffer_socket:
            order.max_buffer = assignment.max_buffer
            if not assignment.reply_socket:  # otherwise it is the same one
                order.buffer_socket = assignment.buffer_socket
                order.ref, order.queued = assignment.ref, assignment.queued
        if assignment.attachments:
            for name, value in assignment.attachments.items():
                order.attachments[name] = bytes(value)
                size += len(value)
        batch.added(size, urgent=bool(assignment.reply_socket))

    def cancel(self, sequence: int, reason: str) -> None:
        self._assigns = None  # later calls must not be sent before this
        cancel = self._batch.message.orders.add().cancel
        cancel.sequence, cancel.reason = sequence, reason
        self._batch.added(0)

    def credit(self, sequence: int, chunks: int) -> None:
        credit = self._batch.message.orders.add().credit
        credit.sequence, credit.chunks = sequence, chunks
        self._batch.added(0)

    def drain(self) -> None:
        self._assigns = None
        self._batch.message.orders.add().drain.SetInParent()
        self._batch.added(0)

    def probe(self) -> None:
        self._batch.message.orders.add().probe.nonce = 1
        self._batch.added(0)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._task.cancel()

    # The stream

    async def _run(self) -> None:
        channel = Channel(path=self._path, config=configuration(WINDOW))
        try:
            async with WorkerStub(channel).Work.open() as stream:
                await stream.send_request()
                self._stream = MessageStream(stream, pb.Orders, self._receive, MAX_MESSAGE)
                self._stream.open()
                self._batch.open(self._stream)
                await self._stream.ended()
                await stream.cancel()
        except (OSError, GRPCError, StreamTerminatedError, MessageTooLarge, DecodeError, _ProtocolError) as error:
            logger.debug("link %s ended: %s", self._path, error)
        finally:
            if self._stream:
                self._stream.close()
            channel.close()
            if not self._closed:
                self._closed = True
                self._reports.lost()

    def _receive(self, message: bytes) -> None:
        if not self._connected:  # the path is not needed any more, and a removed socket cannot go stale
            self._connected = True
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        for report in pb.Reports.FromString(message).reports[:]:  # a list, as in workers/transport/server.py
            if self._closed:
                return
            kind = report.WhichOneof("report")
            if kind == "results":  # nearly all of them
                self._reports.results(_triples(report.results))
                continue
            if kind == "delivered":
                delivered = report.delivered
                buffered = (delivered.buffer_bytes,) if delivered.buffer_bytes else ()
                self._reports.delivered(delivered.sequence, _checked(delivered.seconds), *buffered)
                continue
            if kind == "chunk":
                chunk = report.chunk
                self._reports.chunk(chunk.sequence, _payload(chunk.value))
                continue
            deliver = _DELIVERIES.get(kind or "")
            if deliver is None:
                raise _ProtocolError("a report of an unknown kind")
            if kind == "hello":
                if self._greeted:  # it would replace the commands of the pool
                    raise _ProtocolError("a second greeting")
                self._greeted = True
            deliver(self._reports, report)


class _ProtocolError(Exception):
    """A worker sent what this protocol does not have."""


def _triples(results: pb.Results) -> Iterable[tuple[int, Payload, float]]:
    """Sequence, value and run time of each result."""
    if not len(results.sequences) == len(results.json) == len(results.seconds):
        raise _ProtocolError("results whose lists differ in length")
    _checked(sum(results.seconds))
    return zip(results.sequences, map(Payload, results.json), results.seconds, strict=True)


def _checked(seconds: float) -> float:
    """Return a run time; raise if it is none. NaN in one report would stay in the means of a command."""
    if not 0.0 <= seconds < math.inf:
        raise _ProtocolError(f"{seconds} seconds")
    return seconds


def _fraction(value: float) -> float:
    return min(value, 1.0) if value >= 0.0 else 0.0  # also NaN


def _payload(value: pb.Value) -> Payload:
    if value.HasField("json"):
        return Payload(value.json, parts=value.parts, parts_bytes=value.parts_bytes)
    return Payload(value.raw, raw=value.HasField("raw"))


def _hello(reports: WorkerReports, report: pb.Report) -> None:
    hello = report.hello
    if hello.protocol != PROTOCOL:
        failure = f"the worker has protocol {hello.protocol}, this broker {PROTOCOL}; install the same version in both"
        reports.boot_failed(WorkerFailure("internal", failure))
        raise _ProtocolError(failure)
    if len(hello.commands) > MAX_COMMANDS:
        raise _ProtocolError(f"{len(hello.commands)} commands; {MAX_COMMANDS} are allowed")
    reports.hello(
        Greeting(
            python=hello.python,
            implementation=hello.implementation,
            executable=hello.executable,
            free_threaded=hello.free_threaded,
            gil_enabled=hello.gil_enabled,
            gil_culprit=hello.gil_culprit,
            load_seconds=hello.load_seconds,
            blas_threads=hello.blas_threads,
            parallelism=hello.parallelism,
            cores=hello.cores,
            sandbox=hello.sandbox[:64],
            commands=tuple(_command(command) for command in hello.commands),
        )
    )


def _command(command: pb.Command) -> CommandInfo:
    for text in (command.schema, command.result_schema):
        try:
            schema = json.loads(text or "{}")
        except ValueError:
            schema = None
        if not isinstance(schema, dict):
            raise _ProtocolError(f"a schema of {command.name!r} is no JSON object")
    return CommandInfo(
        name=command.name,
        summary=command.summary,
        description=command.description,
        streams=command.streams,
        idempotent=command.idempotent,
        timeout=_checked(command.timeout),
        schema=command.schema or "{}",
        batch=min(command.batch, MAX_BATCH),
        batch_wait=_checked(command.batch_wait),
        result_schema=command.result_schema or "{}",
    )


def _result(reports: WorkerReports, report: pb.Report) -> None:
    result = report.result
    payload = _payload(result.value) if result.HasField("value") else None
    reports.results(((result.sequence, payload, _checked(result.seconds)),))


def _boot_failure(reports: WorkerReports, report: pb.Report) -> None:
    failure = report.boot_failure
    reports.boot_failed(WorkerFailure("internal", failure.message[:4096], failure.type, failure.traceback[:16384]))


def _failure(reports: WorkerReports, report: pb.Report) -> None:
    failure = report.failure
    try:
        details = json.loads(failure.details) if failure.details else {}
    except ValueError:
        details = {}
    known = WorkerFailure(
        failure.code,
        failure.message[:4096],
        failure.type[:256],
        failure.traceback[:16384],
        details if isinstance(details, dict) else {},
    )
    reports.failure(failure.sequence, known, _checked(failure.seconds))


def _race(reports: WorkerReports, report: pb.Report) -> None:
    race = report.race
    reports.raced(
        Race(
            race.attribute[:200],
            race.first_thread[:100],
            race.first_stack[:MAX_STACK],
            race.second_thread[:100],
            race.second_stack[:MAX_STACK],
        )
    )


_DELIVERIES: dict[str, Callable[[WorkerReports, pb.Report], None]] = {
    "hello": _hello,
    "boot_failure": _boot_failure,
    "result": _result,
    "failure": _failure,
    "revoked": lambda reports, report: reports.revoked(report.revoked.sequence),
    "progress": lambda reports, report: reports.progress(
        report.progress.sequence, _fraction(report.progress.fraction), report.progress.message
    ),
    "log": lambda reports, report: reports.log(report.log.sequence, report.log.message),
    "race": _race,
    "vitals": lambda reports, report: reports.vitals(report.vitals.gil_enabled, report.vitals.gil_culprit),
}


class GrpcLinker:
    def link(self, socket_path: str, reports: WorkerReports) -> GrpcLink:
        return GrpcLink(socket_path, reports)
