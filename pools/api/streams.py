"""A streaming call as server-sent events: chunk, progress, log, then one result or one error.

client.aevents() ─▶ frames() ─▶ ASGI: unchanged; a disconnect closes it and cancels the call
                             └▶ WSGI: on an event loop in the request's thread
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse

from snakepit.pools import conf
from snakepit.pools.api.auth import Caller, requester_of
from snakepit.pools.api.body import dumps
from snakepit.pools.api.errors import logger
from snakepit.pools.api.open_streams import OpenStream, open_streams
from snakepit.pools.broker.errors import BrokerError, Unauthenticated
from snakepit.pools.client import Answer, Chunk, Log, Progress
from snakepit.pools.jobs.leases import db_unit
from snakepit.pools.web.errors import body_of, seen_from_outside
from snakepit.pools.web.headers import UNCACHED

HEARTBEAT = ": alive\n\n"
RIGHTS_SECONDS = 3.0  # between two checks of the rights of an open stream's caller


async def stream_response(request: HttpRequest, begin: Callable[[], AsyncIterator[Any]]) -> StreamingHttpResponse:
    return await open_response(request, lambda: frames(begin(), conf.current().stream_heartbeat))


async def open_response(request: HttpRequest, begin: Callable[[], AsyncGenerator[str, None]]) -> StreamingHttpResponse:
    """The response with these frames. It counts as an open stream of its caller, and ends with the caller's rights."""
    opened = open_streams.enter(await _requester(request), conf.current().streams_limit)
    try:
        frames = guarded(begin(), opened)
    except BaseException:
        opened.close()
        raise
    # Under WSGI, Django would collect an asynchronous stream completely before it sends the first byte.
    content = frames if isinstance(request, ASGIRequest) else synchronous(frames)
    response = StreamingHttpResponse(content, content_type="text/event-stream; charset=utf-8")
    opened.close_with(response)
    response["Cache-Control"] = UNCACHED
    response["X-Accel-Buffering"] = "no"  # otherwise nginx buffers the events
    return response


async def frames(events: AsyncIterator[Any], heartbeat: float) -> AsyncGenerator[str, None]:
    """SSE frames with increasing ids. Closing this generator closes `events`, which cancels the call."""
    ids = itertools.count(1)
    waiting: asyncio.Task[Any] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(_next(events))
            done, _ = await asyncio.wait({waiting}, timeout=heartbeat)
            if not done:
                yield HEARTBEAT
                continue
            event, waiting = waiting.result(), None
            if event is None:
                return
            yield _frame(next(ids), *_named(event))
    except BrokerError as error:
        yield _frame(next(ids), "error", body_of(seen_from_outside(error)))
    except Exception:
        logger.exception("a stream failed")
        message = "Internal error of the web server. The traceback is in its log (logger snakepit.api)."
        yield _frame(next(ids), "error", body_of(BrokerError(message)))
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.wait({waiting})
        await events.aclose()  # type: ignore[attr-defined]


async def guarded(produced: AsyncGenerator[str, None], opened: OpenStream) -> AsyncGenerator[str, None]:
    """The same frames, until the caller's key is revoked or loses a right: then an error ends the stream."""
    waiting = None
    loop = asyncio.get_running_loop()
    checked = loop.time()
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(_next(produced))
            await asyncio.wait({waiting}, timeout=max(0.0, checked + RIGHTS_SECONDS - loop.time()))
            if loop.time() - checked >= RIGHTS_SECONDS:
                if not await opened.allowed(RIGHTS_SECONDS / 2):
                    error = Unauthenticated("The rights of the API key or user ended while this stream was open.")
                    yield f"event: error\ndata: {dumps(body_of(error))}\n\n"
                    return
                checked = loop.time()
            if waiting.done():
                frame, waiting = waiting.result(), None
                if frame is None:
                    return
                yield frame
    finally:
        opened.close()
        if waiting is not None:
            waiting.cancel()
            await asyncio.wait({waiting})
        await produced.aclose()


async def _requester(request: HttpRequest) -> Caller:
    found = getattr(request, "auth", None)
    return found if isinstance(found, Caller) else await sync_to_async(_signed_in)(request)


def _signed_in(request: HttpRequest) -> Caller:
    with db_unit():
        return requester_of(request)


def synchronous(produced: AsyncGenerator[str, None]) -> Iterator[str]:
    """The same frames for a synchronous server."""
    with asyncio.Runner() as runner:
        try:
            while (frame := runner.run(_next(produced))) is not None:
                yield frame
        finally:
            runner.run(produced.aclose())


async def _next(items: AsyncIterator[Any]) -> Any:
    """The next item; None at the end, because a task cannot raise StopAsyncIteration."""
    return await anext(items, None)


def _named(event: Any) -> tuple[str, Any]:
    if isinstance(event, Chunk):
        return "chunk", event.value
    if isinstance(event, Progress):
        return "progress", {"fraction": event.fraction, "message": event.message}
    if isinstance(event, Log):
        return "log", {"message": event.message}
    if isinstance(event, Answer):
        return "result", answer_body(event)
    raise TypeError(f"no frame for {type(event).__name__}")


def answer_body(answer: Answer) -> dict[str, Any]:
    call = {
        "id": answer.call,
        "worker": answer.worker,
        "queued_ms": round(answer.queued_seconds * 1000, 3),
        "run_ms": round(answer.run_seconds * 1000, 3),
    }
    return {"result": answer.value, "call": call}


def _frame(number: int, name: str, data: Any) -> str:
    return f"id: {number}\nevent: {name}\ndata: {dumps(data)}\n\n"
