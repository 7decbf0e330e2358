"""Sends the result of a lone call straight to the client that waits for it.

    broker ── Assign(reply_socket) ──▶ worker ── Delivery ──▶ the client's reply socket
       ▲─────────── DeliveredReport ────────┘

A client with one call in flight waits for every hop of it. The way back through the broker is one more wake-up, two
passes through HTTP/2, and the broker's statistics, which the client need not wait for. A datagram is written whole or
not at all, and needs no connection. A result that the reply socket does not take goes through the broker: its owner is
gone, or has not read for long.
"""

from __future__ import annotations

import socket

from snakepit.workers.call import AssignedCall
from snakepit.workers.report import DeliveredReport, FailureReport, ResultReport
from snakepit.workers.wire.worker_pb2 import Delivery

LARGEST_RESULT = 128 * 1024  # bytes; by default a socket has room for datagrams of some 200 KB
LARGEST_DELIVERY = LARGEST_RESULT + 4096  # bytes: a reader of a reply socket needs room for all of it


class DirectReplySender:
    """Sends from any thread: a datagram leaves whole."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def deliver(
        self, call: AssignedCall, last: ResultReport | FailureReport
    ) -> ResultReport | DeliveredReport | FailureReport:
        """Send a call's last report to its client; return the report that the broker gets."""
        value = last.value if type(last) is ResultReport else None
        if value is None or value.raw or len(value.data) > LARGEST_RESULT:
            return last
        delivery = Delivery(
            ref=call.ref,
            json=value.data,
            call=call.call_id,
            worker=self._worker,
            queued_seconds=call.queued,
            run_seconds=last.seconds,
        )
        try:
            self._socket.sendto(delivery.SerializeToString(), call.reply_socket)
        except OSError:  # no process has the socket, or it is full
            return last
        return DeliveredReport(last.sequence, last.seconds)

    def close(self) -> None:
        self._socket.close()
