"""The messages of a call: what is sent for it, and its replies as Python values or errors of the closed list.

    Session's outbox ──(next_message)─▶ bytes ─▶ Connection
    Connection ─▶ Reply, Results or Delivery ──(value_of, answer, event, exception)─▶ the caller

>>> decode(Value(json=b'{"@typed":{"label":7,"image":{"$bytes":"iVBO"}}}'))
{'label': 7, 'image': b'\\x89PN'}
>>> decode(Value(json=b'{"image":{"$bytes":"iVBO"}}'))  # of a JSON caller
{'image': {'$bytes': 'iVBO'}}
>>> decode(Value(raw=b"as it is"))
b'as it is'
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from snakepit.pools.broker.caller import CallerIdentity
from snakepit.pools.broker.errors import AdapterError, BrokerError, ResultUnreadable, from_code
from snakepit.pools.client.arguments import EncodedCall
from snakepit.pools.client.remote_cause import cause_of
from snakepit.pools.wire import broker_pb2 as pb
from snakepit.pools.wire.broker_pb2 import Error, Reply, Result, Results
from snakepit.workers.buffers import ATTACHMENT, BufferInvalid, Incoming, Outgoing
from snakepit.workers.report import utf8
from snakepit.workers.schema import json_text, typed
from snakepit.workers.schema.not_carried import NotCarried
from snakepit.workers.wire.worker_pb2 import Delivery, Value

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
                wire.arguments, wire.attachments[ATTACHMENT] = first.buffers.together(first.arguments)
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


@dataclass(frozen=True, slots=True)
class Answer:
    """A call's result with its timing."""

    value: Any
    call: str  # the call's id, as logs and the worker's Context name it
    worker: str
    queued_seconds: float
    run_seconds: float
    calls_left: int = -1  # that the caller may make now; -1: it has no rate
    calls_reset: float = 0.0  # seconds until its burst is complete


class Packed(NamedTuple):
    """One of several results that came together."""

    results: Results
    at: int
    ref: int
    json: bytes

    def value(self) -> Any:
        return _parse(self.json)

    def answer(self, value: Any) -> Answer:
        wire, at = self.results, self.at
        return Answer(value, wire.calls[at], wire.worker, wire.queued_seconds[at], wire.run_seconds[at])


class Delivered(NamedTuple):
    """What came to the reply socket, perhaps with buffers: a result, or the large parts of a stream's value."""

    delivery: Delivery
    buffers: Incoming | None = None

    def value(self) -> Any:
        wire = self.delivery
        if not wire.buffers and (self.buffers is None or not self.buffers.inline):
            return _parse(wire.json)
        try:
            data, buffers = self.checked()
            return _parse(data, buffers)
        except BufferInvalid as problem:
            raise ResultUnreadable(f"The result cannot be read: {problem}.") from None
        finally:
            self.close()

    def value_of(self, text: bytes) -> Any:
        """The value of a text whose large parts these are."""
        self.delivery.json = text
        return self.value()

    def close(self) -> None:
        if self.buffers is not None:
            self.buffers.close()

    def checked(self) -> tuple[bytes, Incoming]:
        """The text of the result, and its buffers, which are all there and sealed."""
        wire, buffers = self.delivery, Incoming() if self.buffers is None else self.buffers
        if len(buffers) != wire.buffers:
            raise ResultUnreadable(
                f"The result came with {len(buffers)} of its {wire.buffers} descriptors. Raise the limit of open "
                "files of this process (RLIMIT_NOFILE), or drop results that are not needed any more."
            )
        try:
            buffers.sizes()
            return bytes(buffers.view(list(wire.text))) if wire.text else wire.json, buffers
        except BufferInvalid as problem:
            raise ResultUnreadable(f"The result cannot be read: {problem}.") from None

    def answer(self, value: Any) -> Answer:
        wire = self.delivery
        return Answer(value, wire.call, wire.worker, wire.queued_seconds, wire.run_seconds)


def unpack(results: Results) -> list[Packed]:
    """Split results that came together; raises ValueError if their lists differ in length."""
    count = len(results.refs)
    if not count == len(results.json) == len(results.calls) == len(results.queued_seconds) == len(results.run_seconds):
        raise ValueError("the broker sent results whose lists differ in length")
    return [
        Packed(results, at, ref, json) for at, (ref, json) in enumerate(zip(results.refs, results.json, strict=True))
    ]


@dataclass(frozen=True, slots=True)
class Chunk:
    """One item that a streaming command yielded."""

    value: Any


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress that a command reports: `fraction` from 0 to 1."""

    fraction: float
    message: str


@dataclass(frozen=True, slots=True)
class Log:
    """A line that a command logged through its Context."""

    message: str


def names_parts(kind: str, reply: Reply) -> bool:
    """Whether the large parts of a reply's value came to the reply socket, before the reply."""
    return bool(reply.chunk.parts if kind == "chunk" else kind == "result" and reply.result.value.parts)


def decode(value: Value, parts: Delivered | None = None) -> Any:
    """Return the Python value that a worker sent; an unset one is None. `parts`: its large parts."""
    if value.parts:
        if parts is None:
            raise ResultUnreadable("The large parts of this value did not arrive.")
        return parts.value_of(value.json)
    kind = value.WhichOneof("value")
    if kind == "raw":
        return value.raw
    if kind is None:
        return None
    return _parse(value.json)


def _parse(data: bytes, buffers: Incoming | None = None) -> Any:
    """The value of a result's JSON. With tags, it is what the command returned; without, JSON is what it returned."""
    parsed = json_text.parse(data)
    if not data.startswith(typed.WRAPPER):
        return parsed
    try:
        return typed.restore(parsed, buffers)
    except NotCarried as problem:
        raise ResultUnreadable(f"{problem}.") from None


def value_of(result: Result | Packed | Delivered) -> Any:
    """Return what the command returned."""
    return decode(result.value) if isinstance(result, Result) else result.value()


def answer(result: Result | Packed | Delivered, value: Any = ...) -> Answer:
    """The Answer of a result; `value` replaces what the command returned."""
    if not isinstance(result, Result):
        return result.answer(result.value() if value is ... else value)
    timing = result.timing
    left = timing.calls_left if timing.HasField("calls_left") else -1
    return Answer(
        decode(result.value) if value is ... else value, timing.call, timing.worker, timing.queued_seconds,
        timing.run_seconds, left, timing.calls_reset,
    )  # fmt: skip


def exception(error: Error) -> BrokerError:
    """Return the typed exception of an Error message, with its cause and the worker's traceback as a note."""
    try:
        details = json.loads(error.details) if error.details else {}
    except ValueError:
        details = {"text": error.details}
    if not isinstance(details, dict):
        details = {"value": details}
    found = from_code(error.code, error.message, error.outcome, details, error.retry_after)
    if isinstance(found, AdapterError):
        found.__cause__ = cause_of(details, error.message)
    if traceback := details.get("traceback"):
        found.add_note(f"In the worker:\n{str(traceback).rstrip()}")
    return found


def event(kind: str, reply: Reply | Packed, parts: Mapping[int, Delivered]) -> Chunk | Progress | Log | Answer:
    """Return a reply as the value that a caller of `events` gets; raises an Error. `parts`: large ones by number."""
    if isinstance(reply, Packed):
        return reply.answer(reply.value())
    if kind == "chunk":
        return Chunk(decode(reply.chunk, parts.get(reply.chunk.parts)))
    if kind == "result":
        value = reply.result.value
        return answer(reply.result, decode(value, parts.get(value.parts)))
    if kind == "progress":
        return Progress(reply.progress.fraction, reply.progress.message)
    if kind == "log":
        return Log(reply.log)
    raise exception(reply.error)
