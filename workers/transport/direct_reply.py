"""Carries the result of a lone call straight to who waits for it.

    broker ── Assign(reply_socket) ──▶ worker ── Delivery ──▶ the caller's own socket
       ▲─────────── DeliveredReport ────────┘

A caller with one call in flight waits for every hop of it. The way back through the broker is a wake-up, two passes
through HTTP/2 and the broker's own books, none of which the caller needs to wait for. One datagram is: it is written or
it is not, there is nothing to connect and nothing that could be half there. What the socket does not take, because
its owner is gone or does not read, goes the usual way.
"""

from __future__ import annotations

import socket

from snakepit.workers.call import AssignedCall
from snakepit.workers.report import DeliveredReport, FailureReport, ResultReport
from snakepit.workers.wire.worker_pb2 import Delivery

LARGEST = 128 * 1024  # bytes of a result; a socket's own room for a datagram is some 200 KB by default
LETTER = LARGEST + 4096  # bytes of a Delivery at most: what reads a reply_socket must have room for all of it


class DirectReplySender:
    """Any thread may send: a datagram leaves whole."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def deliver(
        self, call: AssignedCall, last: ResultReport | FailureReport
    ) -> ResultReport | DeliveredReport | FailureReport:
        """What is left to be told to the broker: that the result was delivered, or the last word itself."""
        if type(last) is not ResultReport or (value := last.value) is None or value.raw or len(value.data) > LARGEST:
            return last
        letter = Delivery(
            ref=call.ref,
            json=value.data,
            call=call.call_id,
            worker=self._worker,
            queued_seconds=call.queued,
            run_seconds=last.seconds,
        )
        try:
            self._socket.sendto(letter.SerializeToString(), call.reply_socket)
        except OSError:  # nobody is there, or it is full
            return last
        return DeliveredReport(last.sequence, last.seconds)

    def close(self) -> None:
        self._socket.close()
