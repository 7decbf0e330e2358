"""The messages that carry calls to the broker: one call, calls that are alike, and requests, as one Requests message.

Session's outbox ──(next_message)─▶ bytes ─▶ Connection
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from snakepit.pools.broker.caller import CallerIdentity
from snakepit.pools.client.arguments import EncodedCall
from snakepit.pools.wire import broker_pb2 as pb
from snakepit.workers.buffers import ATTACHMENT, Outgoing
from snakepit.workers.report import utf8

BATCH_BYTES = 2**18  # a message to the broker is closed when it is this large


class Parts(Protocol):
    """How a connection passes the large parts of values."""

    @property
    def taken(self) -> bool:
        """Whether results may have descriptors beside them."""
        ...

    def send(self, buffers: Outgoing) -> int:
        """Pass the descriptors of arguments to the broker; return their number, 0 if that is not possible."""
        ...


class CallTaker(Protocol):
    """What a message to the broker depends on; the session's Connection."""

    @property
    def parts(self) -> Parts: ...

    @property
    def takes_calls(self) -> bool: ...


Outbox = deque[tuple[int, EncodedCall | pb.Request]]  # a call with its number; anything else with 0


def next_message(outbox: Outbox, taker: CallTaker, *, alone: bool) -> bytes:
    """Take what waits longest as one message: serialised protobuf messages put one after the other are their sum.

    `alone`: at most one call is in flight.
    """
    part = _next_part(outbox, BATCH_BYTES, taker, alone=alone)
    if not outbox:
        return part
    parts, size = [part], len(part)
    while outbox and size < BATCH_BYTES:
        part = _next_part(outbox, BATCH_BYTES - size, taker, alone=alone)
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _next_part(outbox: Outbox, room: int, taker: CallTaker, *, alone: bool) -> bytes:
    """Take what waits longest: a plain call with the calls like it behind it, if the broker takes Calls."""
    ref, first = outbox.popleft()
    if isinstance(first, pb.Request):
        return pb.Requests(requests=[first]).SerializeToString()
    calls = [(ref, first)]
    if outbox and taker.takes_calls and first.is_plain:
        room -= len(first.arguments)
        while outbox:
            ref, call = outbox[0]
            if not isinstance(call, EncodedCall) or not call.is_like(first):
                break
            if (room := room - len(call.arguments)) < 0:  # alone, so that the broker can refuse it alone
                break
            outbox.popleft()
            calls.append((ref, call))
    # The next call with a key must not reach the broker before the worker's report: its worker would not be free.
    direct_reply = alone and first.result_only and not first.affinity
    return message_of(calls, direct_reply=direct_reply, parts=taker.parts)


def message_of(
    calls: Sequence[tuple[int, EncodedCall]],
    *,
    direct_reply: bool = False,
    parts: Parts | None = None,
) -> bytes:
    """Serialise one call, or plain calls that are alike, with their numbers, as a Requests message.

    `direct_reply`: the result of the one call may come to the reply socket. `parts`: how large parts travel.
    """
    message = pb.Requests()
    request = message.requests.add()
    ref, first = calls[0]
    wire: pb.Call | pb.Calls
    if len(calls) == 1:
        wire = request.call
        wire.ref, wire.arguments = ref, first.arguments
        if first.caller:  # its reply has what is left of its limits
            _name_caller(wire.caller, first.caller)
        else:
            wire.direct_reply = direct_reply
        if first.affinity:
            wire.affinity = first.affinity
        if first.attachments:
            for name, value in first.attachments.items():
                wire.attachments[name] = value
        if first.buffers:
            wire.buffer = parts.send(first.buffers) if parts else 0
            if not wire.buffer:
                wire.attachments[ATTACHMENT] = first.buffers.copied()
    else:
        wire = request.calls
        wire.refs.extend([ref for ref, _ in calls])
        wire.arguments.extend([call.arguments for _, call in calls])
    if first.credit:
        wire.credit, wire.credit_bytes = first.credit, first.credit_bytes
    if first.priority:
        wire.priority = first.priority
    wire.buffers = parts is not None and parts.taken and (first.result_only or first.takes_parts)
    wire.pool, wire.command, wire.timeout = first.pool, first.command, first.timeout
    return message.SerializeToString()


def _name_caller(wire: pb.Caller, caller: CallerIdentity) -> None:
    wire.key, wire.owner = utf8(caller.key), utf8(caller.owner)
    for part, limits, share in (
        (wire.key_limits, caller.key_limits, caller.key_share),
        (wire.owner_limits, caller.owner_limits, caller.owner_share),
    ):
        part.calls_per_second, part.calls_burst = limits.calls_per_second, limits.calls_burst
        part.calls_in_flight, part.calls_waiting, part.share = limits.calls_in_flight, limits.calls_waiting, share
