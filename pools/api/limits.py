"""The body limit under ASGI, where Django stores the whole body before a view can check it.

Wrap the project's ASGI application: `application = BodyLimit(get_asgi_application(), "/api/")`. Without this wrapper
the limit applies only after the whole body has been received.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from snakepit.pools import conf
from snakepit.pools.api.body import too_large
from snakepit.pools.web.errors import body_of

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class _TooLarge(Exception):
    """The received part of the body exceeds the limit."""


class BodyLimit:
    """Rejects a body larger than SNAKEPIT["MAX_BODY"] for every path that begins with `prefix`."""

    def __init__(self, application: Any, prefix: str = "/") -> None:
        self.application = application
        self.prefix = prefix

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(self.prefix):
            await self.application(scope, receive, send)
            return
        limit = conf.current().max_body
        announced = dict(scope["headers"]).get(b"content-length", b"")
        if announced.isdigit() and int(announced[:20]) > limit:
            await _reject(send, limit)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise _TooLarge
            return message

        try:
            await self.application(scope, counted, send)
        except _TooLarge:
            await _reject(send, limit)


async def _reject(send: Send, limit: int) -> None:
    error = too_large(limit)
    content = json.dumps(body_of(error)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    # The rest of the body stays unread, so the connection cannot be reused.
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
