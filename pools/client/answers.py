"""Replies to a call as Python values: results, chunks, progress, log lines, and the errors of the closed list.

>>> decode(Value(json=b'{"@typed":{"label":7,"image":{"$bytes":"iVBO"}}}'))
{'label': 7, 'image': b'\\x89PN'}
>>> decode(Value(json=b'{"image":{"$bytes":"iVBO"}}'))  # of a JSON caller
{'image': {'$bytes': 'iVBO'}}
>>> decode(Value(raw=b"as it is"))
b'as it is'
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from snakepit.pools.broker.errors import AdapterError, BrokerError, ResultUnreadable, from_code
from snakepit.pools.client.remote_cause import cause_of
from snakepit.pools.wire.broker_pb2 import Error, Reply, Result, Results
from snakepit.workers.buffers import BufferInvalid, Incoming
from snakepit.workers.schema import json_text, typed
from snakepit.workers.schema.not_carried import NotCarried
from snakepit.workers.wire.worker_pb2 import Delivery, Value


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
        if not wire.buffers and not wire.inline:
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
        wire, buffers = self.delivery, self.buffers or Incoming()
        if len(buffers) != wire.buffers:
            raise ResultUnreadable(
                f"The result came with {len(buffers)} of its {wire.buffers} descriptors. Raise the limit of open "
                "files of this process (RLIMIT_NOFILE), or drop results that are not needed any more."
            )
        try:
            buffers.inline = wire.inline
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
