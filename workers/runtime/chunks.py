"""The values of a stream on their way: encoded, within credit, their large parts ahead of them.

     chunk ─ encode ─▶ EncodedValue ─ credit for all its bytes ─▶ parts ═▶ the client's reply socket
                                                                  text ──▶ broker ──▶ client

The text follows its parts, so a client that reads the text has the parts. Those of a client that takes none are in the
text.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any, Protocol

from snakepit.workers.call import AssignedCall
from snakepit.workers.context import ReportSink
from snakepit.workers.report import ChunkReport, EncodedValue
from snakepit.workers.runtime.async_commands import TaskWatch
from snakepit.workers.schema.not_carried import ValueTooLarge
from snakepit.workers.schema.typed import SCALARS
from snakepit.workers.schema.value import encode

_BYTES = re.compile(rb'\{"@typed":\{"\$bytes":\{"\$buffer":\[(\d+),(\d+),(\d+)\]\}\}\}')
FULL_PAUSE = 0.001  # seconds between two tries of an async command to send parts
FULL_TRIES = 2000


class PartsSender(Protocol):
    """Sends large parts directly to callers; the worker's DirectReplySender."""

    def send_parts(self, call: AssignedCall, value: EncodedValue, *, wait: bool) -> bool:
        """Whether the caller has them. Raises BlockingIOError if its socket is full, and `wait` is not set."""
        ...


def encode_chunk(call: AssignedCall, chunk: Any) -> EncodedValue:
    buffers = None if type(chunk) in SCALARS else call.new_buffers()
    try:
        return encode(chunk, call.max_result, "chunk", tags=call.typed, buffers=buffers)
    except BaseException:
        if buffers is not None:
            buffers.close()
        raise


class ChunkSender:
    """Sends chunks from any slot."""

    def __init__(self, reports: ReportSink, sender: PartsSender | None) -> None:
        self._reports = reports
        self._sender = sender

    def send(self, call: AssignedCall, chunk: Any) -> bool:
        """Send a chunk when there is credit for it. False: the call was cancelled meanwhile, or its deadline passed."""
        # Encoded before the wait: the chunk may be a buffer that the generator uses again.
        value = encode_chunk(call, chunk)
        try:
            if not call.take_credit(value.size):
                return False
            sent = self._goes_directly(call, value) and self._send_parts(call, value, wait=True)
            self._reports.put(ChunkReport(call.sequence, following(call, value, sent=sent)))
        finally:
            release(call, value)
        return True

    async def asend(self, call: AssignedCall, chunk: Any, watch: TaskWatch) -> None:
        """As `send`, for an async command: its task is cancelled with the call."""
        value = encode_chunk(call, chunk)
        try:
            await watch.take_credit(value.size)
            sent = self._goes_directly(call, value) and await self._asend_parts(call, value)
            self._reports.put(ChunkReport(call.sequence, following(call, value, sent=sent)))
        finally:
            release(call, value)

    def _goes_directly(self, call: AssignedCall, value: EncodedValue) -> bool:
        return self._sender is not None and goes_directly(call, value)

    def _send_parts(self, call: AssignedCall, value: EncodedValue, *, wait: bool) -> bool:
        assert self._sender is not None
        return self._sender.send_parts(call, value, wait=wait)

    async def _asend_parts(self, call: AssignedCall, value: EncodedValue) -> bool:
        for _ in range(FULL_TRIES):
            try:
                return self._send_parts(call, value, wait=False)
            except BlockingIOError:  # a wait in the kernel would stop the loop of all async commands
                await asyncio.sleep(FULL_PAUSE)
        call.buffer_socket = ""  # each further chunk would wait as long
        return False


def goes_directly(call: AssignedCall, value: EncodedValue) -> bool:
    """Whether the large parts of a stream's value go directly to its client."""
    return bool(call.buffer_socket) and value.buffers is not None and value.buffers.is_used


def following(call: AssignedCall, value: EncodedValue, *, sent: bool) -> EncodedValue:
    """What goes through the broker. Raises ValueTooLarge if parts that were not sent do not fit into the text."""
    buffers = value.buffers
    if buffers is None:
        return value
    if sent:
        return replace(value, buffers=None, parts=call.parts, parts_bytes=buffers.size)
    plain = without_buffers(value)
    if len(plain.data) > call.max_result:
        raise ValueTooLarge(len(plain.data), call.max_result, "chunk")
    return plain


def without_buffers(value: EncodedValue) -> EncodedValue:
    """The same value with its large parts in the text; bytes alone as they are, since base64 is a third larger."""
    buffers = value.buffers
    if buffers is None or not buffers.is_used:
        return replace(value, buffers=None)
    if alone := _BYTES.fullmatch(value.data):
        return EncodedValue(bytes(buffers.view([int(one) for one in alone.groups()])), raw=True)
    return EncodedValue(buffers.inlined(value.data))


def release(call: AssignedCall, value: EncodedValue) -> None:
    """Close the files of a value that has left, or never will. The next chunk may be computed in another one."""
    if value.buffers is not None:
        call.placed = [one for one in call.placed if one not in value.buffers.placed]
        value.buffers.close()
