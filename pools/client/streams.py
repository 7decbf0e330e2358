"""Iterators over the chunks of a streaming command; the reader controls the flow.

The command may be `WINDOW` chunks ahead of the reader, and sends none while `WINDOW_BYTES` are unacknowledged. When the
reader has read half a window, of either kind, it acknowledges it. A reader that stops reading stops the generator in
the worker; a reader that leaves (`break`, `close`, garbage collection) cancels the call.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.client.address import Target
from snakepit.pools.client.arguments import EncodedCall
from snakepit.pools.client.call_messages import Answer, Chunk, Delivered, Log, Packed, Progress, event
from snakepit.pools.client.loop_thread import run_short_step
from snakepit.pools.client.pending import Discarded, LoopPending, SentCall, ThreadPending

# Large enough for worker, broker and reader to work at the same time: with 32 they took turns.
WINDOW = 128  # chunks that may be ahead of the reader
WINDOW_BYTES = 2**20  # maximum unacknowledged chunk bytes

Event = Chunk | Progress | Log | Answer


class CreditWindow:
    """Counts what was read, and acknowledges it in steps of half a window."""

    __slots__ = ("_bytes", "_sent", "_taken", "_urgent")

    def __init__(self, sent: SentCall, *, urgent: bool) -> None:
        self._sent = sent
        self._urgent = urgent  # the reader does not run the loop next
        self._taken = self._bytes = 0

    def take(self, size: int) -> None:
        """Note that a chunk of `size` bytes was read."""
        self._taken += 1
        self._bytes += size
        if self._taken >= WINDOW // 2 or self._bytes >= WINDOW_BYTES // 2:
            session = self._sent.session
            run_short_step(session.loop_thread, session.grant, self._sent.ref, self._taken, self._urgent)
            self._taken = self._bytes = 0


class StreamReader:
    """The common part of all kinds of streams: send the call, and cancel it when the reader leaves early."""

    _sent: SentCall | None = None
    _ended = False

    def __init__(self, target: Target, message: EncodedCall, pending: Any, only_chunks: bool) -> None:
        self._only_chunks = only_chunks
        self._pending = pending
        self.chunks = 0
        self.answer: Answer | None = None  # set once the stream has ended
        self._parts: dict[int, Delivered] = {}  # large parts whose values follow, by number
        message.result_only = False
        self._sent = SentCall(target, message, pending)
        self._window = CreditWindow(self._sent, urgent=not pending.runs_loop)
        self._sent.send()

    def _leave(self) -> None:
        if not self._ended:
            self._ended = True
            if self._sent is not None:
                self._sent.cancel()
                self._pending.discard()  # after the cancel: what comes now is closed by the session
                self._parts.clear()

    def __del__(self) -> None:
        self._leave()

    def _check_reader(self) -> None:
        if self._pending.waits:
            raise BadRequest("Another thread or task reads this stream. Read it in one, and pass on what it brings.")

    def _read(self, item: tuple[str, Any]) -> tuple[bool, Any]:
        """Return whether the caller gets it, and the value."""
        kind, reply = item
        if kind == "parts":
            self._parts[reply.delivery.parts] = reply
            return False, None
        found = event(kind, reply, self._parts)
        if isinstance(found, Chunk):
            wire = reply.chunk
            self.chunks += 1
            self._parts.pop(wire.parts, None)
            self._window.take((len(wire.json) or len(wire.raw)) + wire.parts_bytes)
            return True, found.value if self._only_chunks else found
        if isinstance(found, Answer):
            self._ended = True
            self.answer = found
            self._parts.clear()
            # A plain command is a stream of one; a stream's own end carries no value.
            has_value = isinstance(reply, Packed) or reply.result.value.WhichOneof("value") is not None
            single = not self.chunks and has_value
            return (single, found.value) if self._only_chunks else (True, found)
        return not self._only_chunks, found


class Stream(StreamReader):
    """The chunks or events of one call, for a thread. Also a context manager, which closes it."""

    def __init__(self, target: Target, message: EncodedCall, *, only_chunks: bool) -> None:
        super().__init__(target, message, ThreadPending(), only_chunks)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        while not self._ended:
            assert self._sent is not None
            self._check_reader()
            try:
                wanted, found = self._read(self._pending.take(self._sent))
            except Discarded:
                break
            except BaseException:
                self._leave()
                raise
            if wanted:
                return found
        raise StopIteration

    def close(self) -> None:
        """Cancel the call unless it has ended. Reading ends immediately, also in a thread that waits."""
        self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncStream(StreamReader):
    """The chunks or events of one call, for an event loop. Sent when first read; also a context manager."""

    def __init__(self, target: Target, message: EncodedCall, *, only_chunks: bool) -> None:
        # The first read sends the call: `client.astream(...)` may be called without a running event loop.
        self._call = (target, message, only_chunks)
        self.answer = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._sent is None and not self._ended:
            target, message, only_chunks = self._call
            super().__init__(target, message, LoopPending(), only_chunks)
        while not self._ended:
            assert self._sent is not None
            self._check_reader()
            try:
                wanted, found = self._read(await self._pending.take(self._sent))
            except Discarded:
                break
            except BaseException:
                self._leave()
                raise
            if wanted:
                return found
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Cancel the call unless it has ended. Reading ends immediately, also in a task that waits."""
        self._leave()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
