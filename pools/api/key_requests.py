"""Calls with an API key over ASGI skip what Django does for browsers.

     POST .../pools/{pool}/commands/{command} with Authorization ─▶ KeyHandler: the project's middleware without
                                                                    sessions, CSRF, users, messages, static files
     every other request ─────────────────────────────────────────▶ the application

Django runs each synchronous step of its middleware and its signals in another thread: some fifteen changes of thread a
request, which take longer than the call. KeyHandler runs them on the event loop, since none of them blocks. It is used
only if it has all middleware of the project in its lists, so that no middleware of a project is left out.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core import signals
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.handlers.exception import convert_exception_to_response
from django.dispatch import Signal
from django.http import HttpRequest, HttpResponseBase
from django.urls import set_script_prefix
from django.utils.module_loading import import_string

Scope = dict[str, Any]

# A request with a key has no use for them.
FOR_BROWSERS = frozenset({
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
})  # fmt: skip
# They only compute, and never wait.
ON_LOOP = frozenset({
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "snakepit.pools.middleware.TrustedProxies",
    "snakepit.pools.middleware.HostCheck",
    "snakepit.pools.middleware.ContentSecurityPolicy",
    "snakepit.pools.middleware.DatabaseAway",
})  # fmt: skip


class KeyRequests:
    """Wraps an ASGI application of Django. `prefix`: the root of the API."""

    def __init__(self, application: Any, prefix: str = "/api/") -> None:
        self.application = application
        self._is_call = re.compile(rf"{re.escape(prefix)}pools/[^/]+/commands/[^/]+").fullmatch
        self._handler = KeyHandler() if has_names() and knows_middleware() else application

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        is_call = scope["type"] == "http" and scope["method"] == "POST" and self._is_call(scope["path"])
        with_key = is_call and any(name == b"authorization" for name, _ in scope["headers"])
        await (self._handler if with_key else self.application)(scope, receive, send)


def knows_middleware() -> bool:
    """Whether the project has only middleware that a request with a key can do without, or run on the loop."""
    return FOR_BROWSERS.union(ON_LOOP).issuperset(settings.MIDDLEWARE)


def has_names() -> bool:
    """Whether Django still has its two private names that KeyHandler uses."""
    return hasattr(ASGIHandler, "_get_response_async") and hasattr(Signal, "_live_receivers")


class OnLoop:
    """Runs the two steps of a MiddlewareMixin without a thread."""

    get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]]

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        before, after = getattr(self, "process_request", None), getattr(self, "process_response", None)
        response: HttpResponseBase = (before(request) if before else None) or await self.get_response(request)
        return after(request, response) if after else response


class KeyHandler(ASGIHandler):
    """Django's handler with the middleware of ON_LOOP."""

    def load_middleware(self, is_async: bool = False) -> None:
        self._view_middleware: list[Any] = []
        self._template_response_middleware: list[Any] = []
        self._exception_middleware: list[Any] = []
        innermost: Any = self._get_response_async  # type: ignore[attr-defined]
        chain: Any = convert_exception_to_response(innermost)
        for path in reversed([one for one in settings.MIDDLEWARE if one in ON_LOOP]):
            kind = import_string(path)
            made = type(kind.__name__, (OnLoop, kind), {})(chain)
            if hasattr(made, "process_exception"):
                self._exception_middleware.append(self.adapt_method_mode(True, made.process_exception))
            chain = convert_exception_to_response(made)
        self._middleware_chain = chain

    async def handle(self, scope: Scope, receive: Any, send: Any) -> None:
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        set_script_prefix(get_script_prefix(scope))
        await _emit(signals.request_started, sender=type(self), scope=scope)
        request, refused = self.create_request(scope, body)
        response: HttpResponseBase | None = refused
        try:
            if request is not None:
                response = await self._answer(request, receive, send)
            elif refused is not None:
                await self.send_response(refused, send)
        finally:
            if response is None:  # the client has gone
                await _emit(signals.request_finished, sender=type(self))
            elif runs_on_loop(signals.request_finished):
                response.close()
            else:
                await sync_to_async(response.close)()
            body.close()

    async def _answer(self, request: HttpRequest, receive: Any, send: Any) -> HttpResponseBase | None:
        """The response, once it is sent; None: the client has gone, and the view was cancelled."""
        answer: asyncio.Future[Any] = asyncio.ensure_future(self.run_get_response(request))
        gone = asyncio.ensure_future(self.listen_for_disconnect(receive))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                return None
            response: HttpResponseBase = answer.result()
            sending = answer = asyncio.ensure_future(self.send_response(response, send))
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            return response
        finally:
            for task in (answer, gone):
                task.cancel()
            await asyncio.wait({answer, gone})


async def _emit(signal: Signal, **named: Any) -> None:
    if runs_on_loop(signal):
        signal.send(**named)
    else:
        await signal.asend(**named)


def runs_on_loop(signal: Signal) -> bool:
    """Whether all receivers of a signal are Django's own, which do nothing in a thread without a connection."""
    synchronous, asynchronous = signal._live_receivers(KeyHandler)
    return not asynchronous and all(one.__module__.startswith("django.") for one in synchronous)
