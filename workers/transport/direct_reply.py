"""Sends the result of a lone call straight to the client that waits for it.

    broker ── Assign(reply_socket) ──▶ worker ── Delivery ──▶ the client's reply socket
       ▲─────────── DeliveredReport ────────┘

A client with one call in flight waits for every hop of it. The way back through the broker is one more wake-up, two
passes through HTTP/2, and the broker's statistics, which the client need not wait for. A datagram is written whole or
not at all, and needs no connection. A result that the reply socket does not take goes through the broker: its owner is
gone, or has not read for long.

Large parts of a result are in sealed memory files (buffers.py), whose descriptors go with the datagram. If the client
ends or does not read it, the kernel closes them with its socket.

The values of a stream go through the broker, which keeps their order and bounds them by credit. Their large parts go
ahead of them, to the reply socket.
"""

from __future__ import annotations

import socket
import struct
import threading
from dataclasses import replace

from snakepit.workers.buffers import FILE_FROM, LARGEST_INLINE, Incoming, Outgoing, rights
from snakepit.workers.call import AssignedCall
from snakepit.workers.report import DeliveredReport, EncodedValue, FailureReport, ResultReport
from snakepit.workers.runtime.chunks import following, goes_directly, release, without_buffers
from snakepit.workers.schema.not_carried import ValueTooLarge
from snakepit.workers.transport.own_files import OwnSocket
from snakepit.workers.wire.worker_pb2 import Delivery

LARGEST_RESULT = 128 * 1024  # bytes; by default a socket has room for datagrams of some 200 KB
LARGEST_TEXT = 16 * 1024  # bytes of JSON beside buffers; more goes into one of them
# Bytes of a datagram. A reader of a reply socket needs room for all of it: the kernel cuts off what does not fit.
LARGEST_DELIVERY = max(LARGEST_RESULT, LARGEST_INLINE + LARGEST_TEXT) + 4096
BUSY_SECONDS = 2  # that a client may leave its socket full; then the result goes through the broker
PARTED = b"\0"  # no message of protobuf begins with it
HEAD_BYTES = 5  # before a Delivery with parts behind it: PARTED and a length


def datagram(delivery: Delivery, inline: bytes | bytearray) -> list[bytes | bytearray]:
    """The pieces of a datagram. Parts stand behind their Delivery, since a message copies its bytes three times."""
    message = delivery.SerializeToString()
    return [PARTED + len(message).to_bytes(HEAD_BYTES - 1, "little"), message, inline] if inline else [message]


def opened(data: memoryview, incoming: Incoming | None) -> tuple[Delivery, Incoming | None]:
    """The Delivery of a datagram, and its parts. Raises DecodeError: any process may have written it."""
    if not data or data[0] != PARTED[0]:
        return Delivery.FromString(bytes(data)), incoming
    end = HEAD_BYTES + int.from_bytes(data[1:HEAD_BYTES], "little")
    delivery = Delivery.FromString(bytes(data[HEAD_BYTES:end]))
    incoming = Incoming() if incoming is None else incoming
    incoming.inline = bytearray(data[end:])
    return delivery, incoming


class DirectReplySender:
    """Sends from any thread: a datagram leaves whole."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._socket = OwnSocket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._connected = ""  # the path of the socket of the last lone call's client; sends to others name theirs
        self._connecting = threading.Lock()
        self._patient = OwnSocket(socket.AF_UNIX, socket.SOCK_DGRAM)  # waits until the client has read
        self._patient.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", BUSY_SECONDS, 0))

    def deliver(
        self, call: AssignedCall, last: ResultReport | FailureReport
    ) -> ResultReport | DeliveredReport | FailureReport:
        """Send a call's last report to its client; return the report that the broker gets."""
        if not isinstance(last, ResultReport) or (value := last.value) is None or value.raw:
            return last
        if call.streaming:
            return self._deliver_in_order(call, last, value)
        if call.buffer_socket and ((value.buffers and value.buffers.is_used) or len(value.data) >= FILE_FROM):
            return self._deliver_buffers(call, last, value)
        if not call.reply_socket or len(value.data) > LARGEST_RESULT:
            return last
        delivery = Delivery()
        delivery.ref, delivery.json, delivery.call, delivery.worker = call.ref, value.data, call.call_id, self._worker
        delivery.queued_seconds, delivery.run_seconds = call.queued, last.seconds
        try:
            self._send(delivery.SerializeToString(), call.reply_socket)
        except OSError:  # no process has the socket, or it is full
            return last
        return DeliveredReport(last.sequence, last.seconds)

    def _send(self, message: bytes, path: str) -> None:
        """Connect once for all calls of a client: the kernel searches a path for as long as it takes to send."""
        with self._connecting:
            if path != self._connected:
                self._connected = ""
                self._socket.connect(path)
                self._connected = path
            try:
                self._socket.send(message)
            except OSError:
                self._connected = ""
                raise

    def _deliver_in_order(
        self, call: AssignedCall, last: ResultReport, value: EncodedValue
    ) -> ResultReport | FailureReport:
        """The result of a call whose reader gets chunks, progress and log lines: it follows them through the broker."""
        try:
            sent = goes_directly(call, value) and self.send_parts(call, value, wait=True)
            return ResultReport(last.sequence, following(call, value, sent=sent), last.seconds)
        except ValueTooLarge as error:
            return self._too_large(call, last, error.size)
        finally:
            release(call, value)

    def send_parts(self, call: AssignedCall, value: EncodedValue, *, wait: bool) -> bool:
        """Send the large parts of a stream's value ahead of it. False: the caller cannot take any, now or later.

        Raises BlockingIOError if its socket is full, and `wait` is not set.
        """
        assert value.buffers is not None
        parts = Delivery(ref=call.ref, parts=call.parts + 1)
        try:
            descriptors = value.buffers.seal()
            parts.buffers = len(descriptors)
            end = self._patient if wait else self._socket
            end.sendmsg(datagram(parts, value.buffers.inline), rights(descriptors), 0, call.buffer_socket)
        except OSError as error:
            if isinstance(error, BlockingIOError) and not wait:
                raise
            call.buffer_socket = ""
            return False
        call.parts += 1
        return True

    def _deliver_buffers(
        self, call: AssignedCall, last: ResultReport, value: EncodedValue
    ) -> ResultReport | DeliveredReport | FailureReport:
        buffers = value.buffers or Outgoing(call.max_buffer)
        try:
            plain = replace(value, buffers=None)
            size = self._send_buffers(call, last.seconds, plain.data, buffers)
            if size >= 0:
                return DeliveredReport(last.sequence, last.seconds, size)
            plain = without_buffers(value)
        finally:
            buffers.close()
        if len(plain.data) <= call.max_result:
            return ResultReport(last.sequence, plain, last.seconds)
        return self._too_large(call, last, len(plain.data))

    def _too_large(self, call: AssignedCall, last: ResultReport, size: int) -> FailureReport:
        message = (
            f"the result has {size:,} bytes, its caller did not take it in shared memory, and the pool's "
            f"max_payload is {call.max_result:,}; read results as they come, or raise max_payload"
        )
        details = {"size": size, "limit": call.max_result}
        return FailureReport(last.sequence, "result_too_large", message, seconds=last.seconds, details=details)

    def _send_buffers(self, call: AssignedCall, seconds: float, data: bytes, buffers: Outgoing) -> int:
        """Send the descriptors and what belongs to them; return the bytes of the buffers, -1 if it was not possible."""
        delivery = Delivery(
            ref=call.ref, call=call.call_id, worker=self._worker, queued_seconds=call.queued, run_seconds=seconds
        )
        try:
            if len(data) <= LARGEST_TEXT:
                delivery.json = data
            else:
                buffers.limit = max(buffers.limit, buffers.size + len(data))  # text counts as max_payload
                delivery.text.extend(buffers.add(data))
            descriptors = buffers.seal()
            delivery.buffers = len(descriptors)
            self._patient.sendmsg(datagram(delivery, buffers.inline), rights(descriptors), 0, call.buffer_socket)
        except OSError:  # no process has the socket, it stayed full, or there is no memory or descriptor
            return -1
        return buffers.size

    def close(self) -> None:
        self._socket.close()
        self._patient.close()
