"""Every error in one format: {"error": {"code", "message", "outcome", "details"}}.

Errors of the broker keep their code and status. The API adds the codes `not_found`, `method_not_allowed` and
`internal`.
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
from collections.abc import Callable
from typing import Any

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.db import Error
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.multipartparser import MultiPartParserError
from django.urls import URLPattern, URLResolver
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from snakepit.pools.api.query import wrong_query
from snakepit.pools.broker.errors import (
    NOT_STARTED,
    UNKNOWN,
    BadRequest,
    BrokerError,
    DatabaseUnavailable,
    PayloadTooLarge,
    PermissionDenied,
    Unauthenticated,
)
from snakepit.pools.web.errors import (
    DATABASE_PAUSE,
    FULL,
    database_is_away,
    database_is_full,
    error_body,
    error_response,
    seen_from_outside,
)
from snakepit.pools.web.headers import UNCACHED

logger = logging.getLogger("snakepit.api")
SAFE = ("GET", "HEAD", "OPTIONS")


def on_broker_error(request: HttpRequest, error: BrokerError) -> HttpResponse:
    return error_response(seen_from_outside(error) if getattr(request, "auth", None) else error)


def _error_response(status: int, code: str, message: str) -> JsonResponse:
    return JsonResponse(error_body(code, message, NOT_STARTED, {}), status=status)


def on_validation_error(request: HttpRequest, error: ValidationError) -> HttpResponse:
    """A query or body field that ninja rejected. Field names leave out ninja's outer location."""
    if unknown := wrong_query(request):  # a misspelt name is often why a required one is missing
        return error_response(unknown)
    problems = {".".join(str(part) for part in one["loc"][1:]) or "body": str(one["msg"]) for one in error.errors}
    message = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
    return error_response(BadRequest(message, details={"fields": problems}))


def on_http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    if isinstance(error, AuthenticationError):
        hint = "Send `Authorization: Bearer snk_...` with an API key, or sign in."
        return error_response(Unauthenticated(f"The request has neither an API key nor a session. {hint}"))
    by_status = {403: PermissionDenied, 413: PayloadTooLarge}
    if error.status_code in by_status or error.status_code < 500:
        return error_response(by_status.get(error.status_code, BadRequest)(str(error)))
    return error_response(BrokerError(str(error)))


def on_missing(request: HttpRequest, error: Http404) -> HttpResponse:
    return _error_response(404, "not_found", str(error) or f"There is no resource at {request.path}.")


def on_suspicious(request: HttpRequest, error: SuspiciousOperation | MultiPartParserError) -> HttpResponse:
    if isinstance(error, RequestDataTooBig):
        message = "The request's body is larger than Django's setting DATA_UPLOAD_MAX_MEMORY_SIZE allows: raise it."
        return error_response(PayloadTooLarge(message))
    return error_response(BadRequest("Django rejected the request as malformed."))


def on_database_error(request: HttpRequest, error: Error) -> HttpResponse:
    """The database's message may contain hosts and users, so it goes only to the log."""
    if not database_is_away(error):
        return on_bug(request, error)
    logger.warning("%s %s: the database is unavailable: %s", request.method, request.path, error)
    outcome = NOT_STARTED if request.method in SAFE else UNKNOWN
    message = FULL if database_is_full(error) else ""
    return error_response(DatabaseUnavailable(message, outcome=outcome, retry_after=DATABASE_PAUSE))


def on_bug(request: HttpRequest, error: Exception) -> HttpResponse:
    """A bug of the server: the traceback goes only to the log."""
    logger.error("%s %s failed", request.method, request.path, exc_info=error)
    message = "Internal error of the web server. The traceback is in its log (logger snakepit.api)."
    return JsonResponse(error_body("internal", message, UNKNOWN, {}), status=500)


def register(api: NinjaAPI) -> None:
    handlers: dict[type[Exception], Any] = {
        BrokerError: on_broker_error,
        ValidationError: on_validation_error,
        HttpError: on_http_error,
        Http404: on_missing,
        SuspiciousOperation: on_suspicious,
        MultiPartParserError: on_suspicious,  # of a session's form, which the check of its token reads
        Error: on_database_error,
        Exception: on_bug,
    }
    for kind, handler in handlers.items():
        api.add_exception_handler(kind, handler)


def add_rate_limit(request: HttpRequest, response: HttpResponse) -> None:
    """The headers of the IETF draft: the policy of the caller's rate, and what is left of it after a call."""
    found = getattr(request, "auth", None)
    rated = [one for _, _, one, _ in found.quota.scopes() if one.calls_per_second] if found else []
    if not rated:
        return
    slowest = min(rated, key=lambda one: one.calls_per_second)
    window = max(1, math.ceil(slowest.burst / slowest.calls_per_second))
    response["RateLimit-Policy"] = f'"calls_per_second";q={slowest.burst};w={window}'
    left, reset = getattr(request, "rate_left", (-1, 0.0))
    if left >= 0:
        response.setdefault("RateLimit", f'"calls_per_second";r={left};t={math.ceil(reset)}')


@csrf_exempt
def not_found(request: HttpRequest, path: str = "") -> HttpResponse:
    """Paths under the API's root without a route. Exempt from CSRF, so that a POST gets this error too."""
    message = f"There is no route {request.path}; the page /docs under the API's root lists all routes."
    return _error_response(404, "not_found", message)


def with_error_format(patterns: list[URLPattern | URLResolver]) -> list[URLPattern | URLResolver]:
    """Convert ninja's response to a wrong method, which is plain text and bypasses its error handlers."""
    for pattern in patterns:
        if isinstance(pattern, URLPattern):
            pattern.callback = _converting(pattern.callback)
    return patterns


def _converting(view: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(view):

        @functools.wraps(view)
        async def asynchronous(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            return _convert(request, await view(request, *args, **kwargs))

        return asynchronous

    @functools.wraps(view)
    def synchronous(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return _convert(request, view(request, *args, **kwargs))

    return synchronous


def _convert(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    response.setdefault("Cache-Control", UNCACHED)  # results and state, of one caller
    add_rate_limit(request, response)
    if response.status_code != 405:
        return response
    allowed = ", ".join(sorted(part.strip() for part in response["Allow"].split(",")))
    message = f"{request.path} does not support {request.method}; use {allowed}."
    error = _error_response(405, "method_not_allowed", message)
    error["Allow"], error["Cache-Control"] = allowed, UNCACHED
    return error
