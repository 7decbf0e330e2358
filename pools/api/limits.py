"""The body limit of a site, on every path, before Django stores the body and before authentication.

Wrap the project's applications: `application = BodyLimit(get_asgi_application())`, and
`application = WsgiBodyLimit(get_wsgi_application())`. Without a wrapper, Django's ASGI handler stores the whole body
before a view can check it.

    declared size ─▶ too large: 413, nothing is read
    counted size  ─▶ too large: 413 at the limit
    time          ─▶ the body takes longer than BODY_SECONDS: 408
    charset       ─▶ no encoding of text: 400, nothing is read
    all together  ─▶ incomplete bodies without a proven key or session have more than INCOMPLETE_BYTES, or those of one
                     key or user more than IDENTITY_BYTES: 429 for the oldest

Inside of RequestTurns a body is incomplete until its request has a turn.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any
from weakref import WeakValueDictionary

from django.conf import settings

from snakepit.pools import conf
from snakepit.pools.api import charset
from snakepit.pools.api.body import too_large
from snakepit.pools.api.identities import Identity, identities
from snakepit.pools.broker.errors import NOT_STARTED
from snakepit.pools.web.errors import body_of, error_body

BODY_SECONDS = 30.0  # from a request's headers to the end of its body and its turn
INCOMPLETE_BYTES = 8_388_608  # of all incomplete bodies of a process without a proven key or session
IDENTITY_BYTES = 67_108_864  # of the incomplete bodies of one key or user, or four times MAX_BODY if that is more
RETRY_SECONDS = 5.0
LINGER_SECONDS = 1.0  # after a response until the application, if it still waits, hears that the request is over

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class _Refusal:
    """The body is too large or too slow: a status and a JSON body."""

    def __init__(self, status: int, body: dict[str, Any], retry_after: float = 0) -> None:
        self.status = status
        self._retry_after = retry_after
        self.content = json.dumps(body).encode()

    @property
    def headers(self) -> list[tuple[str, str]]:
        # The rest of the body stays unread, so the connection cannot be reused.
        length = str(len(self.content))
        retry = [("retry-after", f"{self._retry_after:g}")] if self._retry_after else []
        return [("content-type", "application/json"), ("content-length", length), ("connection", "close"), *retry]


def _too_large(path: str, prefix: str, announced: str = "") -> _Refusal:
    error = too_large(limit_of(path, prefix), announced)
    return _Refusal(error.http_status, body_of(error))


def _too_slow() -> _Refusal:
    message = f"The body did not arrive, or the request had no turn, within {BODY_SECONDS:g} seconds."
    return _Refusal(408, error_body("request_timeout", message, NOT_STARTED, {"limit": BODY_SECONDS}))


def _too_many(most: int, *, proven: bool) -> _Refusal:
    whose, of = ("of this key or user", "identity") if proven else ("without a valid key or session", "process")
    message = f"The incomplete bodies {whose} have more than {most} bytes together."
    details = {"limit": "body_bytes", "value": most, "of": of}
    return _Refusal(429, error_body("limit_reached", message, NOT_STARTED, details), RETRY_SECONDS)


def _without_length() -> _Refusal:
    message = "This server needs the header Content-Length: it cannot read a chunked body."
    return _Refusal(411, error_body("bad_request", message, NOT_STARTED, {}))


def _bad_charset(problem: str) -> _Refusal:
    return _Refusal(400, error_body("bad_request", problem, NOT_STARTED, {}))


def limit_of(path: str, prefix: str) -> int:
    """The limit of a path in bytes. A form of the admin may be as large as Django allows."""
    limit = conf.current().max_body
    return limit if path.startswith(prefix) else max(limit, settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 0)


class BodyLimit:
    """The limit under ASGI. `prefix`: the root of the API, where SNAKEPIT["MAX_BODY"] alone decides."""

    def __init__(self, application: Any, prefix: str = "/api/") -> None:
        self.application = application
        self.prefix = prefix
        self._anonymous = _Incomplete()
        self._proven: WeakValueDictionary[str, _Incomplete] = WeakValueDictionary()  # by the name of an identity

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if problem := charset.find_problem(headers.get(b"content-type", b"").decode("latin-1")):
            await _answer(send, _bad_charset(problem))
            return
        announced = headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced[:20]) > limit_of(scope["path"], self.prefix):
            await _answer(send, _too_large(scope["path"], self.prefix, announced.decode()))
            return
        incomplete = self._incomplete_of(await identities.of(scope))
        body, began = _Body(receive, scope["path"], self.prefix, incomplete), False

        async def sent(message: Message) -> None:
            nonlocal began
            began = True
            body.answered = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            await self.application(scope, body.receive, sent)
        finally:
            incomplete.remove(body)
        if body.refusal and not began:
            await _answer(send, body.refusal)

    def _incomplete_of(self, identity: Identity) -> _Incomplete:
        if not identity.proven:
            return self._anonymous
        return self._proven.setdefault(identity.name, _Incomplete(proven=True))


class _Body:
    """Counts a body and its time. To the application, a refused body looks like a client that has disconnected."""

    def __init__(self, receive: Receive, path: str, prefix: str, incomplete: _Incomplete) -> None:
        self.refusal: _Refusal | None = None
        self.answered = False  # the response is complete
        self._receive = receive
        self._path, self._prefix = path, prefix
        self._left = limit_of(path, prefix)
        self._until = asyncio.get_running_loop().time() + BODY_SECONDS
        self._wait: asyncio.Timeout | None = None  # set while this body waits for more
        self._incomplete = incomplete
        self._ended = False

    async def receive(self) -> Message:
        if self._ended:  # Django waits here for a disconnect, as long as the response takes
            last = await self._receive()
            if self.answered:
                # Django cancels its wait after the response. If 5.2 heard of the end before, it would keep an exception
                # whose traceback holds the request in a cycle, until the garbage collector runs (its ticket 36700).
                # The task group of 6.1 keeps such a cycle in any case.
                await asyncio.sleep(LINGER_SECONDS)
            return last
        if message := None if self.refusal else await self._in_time():
            size, self._ended = len(message.get("body", b"")), not message.get("more_body", False)
            self._left -= size
            if self._left < 0:
                self.refusal = _too_large(self._path, self._prefix)
            elif self._ended:
                self._incomplete.remove(self)
            else:
                self._incomplete.add(self, size)
            if not self.refusal:
                return message
        self._ended = True
        self._incomplete.remove(self)
        return {"type": "http.disconnect"}

    async def _in_time(self) -> Message | None:
        try:
            async with asyncio.timeout_at(self._until) as self._wait:
                return await self._receive()
        except TimeoutError:
            self.refusal = self.refusal or _too_slow()
            return None
        finally:
            self._wait = None

    def refuse(self, refusal: _Refusal) -> None:
        """Refuse this body also while it waits for more."""
        self.refusal = refusal
        if self._wait and not self._wait.expired():
            self._wait.reschedule(0)


class _Incomplete:
    """The bytes of incomplete bodies. Beyond the bound, the oldest body is refused: a slow one. One alone is not."""

    def __init__(self, *, proven: bool = False) -> None:
        self._is_proven = proven
        self._bytes: dict[_Body, int] = {}
        self._total = 0

    def add(self, body: _Body, size: int) -> None:
        self._bytes[body] = self._bytes.get(body, 0) + size
        self._total += size
        most = max(IDENTITY_BYTES, 4 * conf.current().max_body) if self._is_proven else INCOMPLETE_BYTES
        while self._total > most and len(self._bytes) > 1:
            oldest = next(iter(self._bytes))
            self.remove(oldest)
            oldest.refuse(_too_many(most, proven=self._is_proven))

    def remove(self, body: _Body) -> None:
        self._total -= self._bytes.pop(body, 0)


async def _answer(send: Send, refusal: _Refusal) -> None:
    headers = [(name.encode(), value.encode()) for name, value in refusal.headers]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": refusal.content})


class WsgiBodyLimit:
    """The limit under WSGI, by the declared size. Django reads no more than that; the server bounds the time."""

    def __init__(self, application: Any, prefix: str = "/api/") -> None:
        self.application = application
        self.prefix = prefix

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path, announced = environ.get("PATH_INFO", ""), environ.get("CONTENT_LENGTH") or ""
        refused = None
        if announced.isdecimal() and int(announced[:20]) > limit_of(path, self.prefix):
            refused = _too_large(path, self.prefix, announced)
        elif "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
            refused = _without_length()  # Django would read an empty body, and call the command without arguments
        elif problem := charset.find_problem(environ.get("CONTENT_TYPE") or ""):
            refused = _bad_charset(problem)
        if refused is None:
            answer: Iterable[bytes] = self.application(environ, start_response)
            return answer
        start_response(f"{refused.status} {HTTPStatus(refused.status).phrase}", refused.headers)
        return [refused.content]
