"""Every refusal in one shape: {"error": {"code", "message", "outcome", "details"}}.

Errors of the broker keep their code and status. The web adds two codes of its own, `not_found` and
`method_not_allowed`, for URLs that are none of ours.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.db import Error
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, URLResolver
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

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
from snakepit.pools.web.errors import DATABASE_PAUSE, database_is_away, error_body, error_response, seen_from_outside

logger = logging.getLogger("snakepit.api")
SAFE = ("GET", "HEAD", "OPTIONS")


def on_broker_error(request: HttpRequest, error: BrokerError) -> HttpResponse:
    return error_response(seen_from_outside(error) if getattr(request, "auth", None) else error)


def _refusal(status: int, code: str, message: str) -> JsonResponse:
    return JsonResponse(error_body(code, message, NOT_STARTED, {}), status=status)


def on_validation_error(request: HttpRequest, error: ValidationError) -> HttpResponse:
    """A query or body field that ninja refused; the places are named without ninja's own nesting."""
    problems = {".".join(str(part) for part in one["loc"][1:]) or "body": str(one["msg"]) for one in error.errors}
    message = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
    return error_response(BadRequest(message, details={"fields": problems}))


def on_http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    if isinstance(error, AuthenticationError):
        hint = "Send `Authorization: Bearer snk_...` with an API key, or sign in."
        return error_response(Unauthenticated(f"No API key and no session came with the request. {hint}"))
    by_status = {403: PermissionDenied, 413: PayloadTooLarge}
    if error.status_code in by_status or error.status_code < 500:
        return error_response(by_status.get(error.status_code, BadRequest)(str(error)))
    return error_response(BrokerError(str(error)))


def on_missing(request: HttpRequest, error: Http404) -> HttpResponse:
    return _refusal(404, "not_found", str(error) or f"Nothing is at {request.path}.")


def on_suspicious(request: HttpRequest, error: SuspiciousOperation) -> HttpResponse:
    if isinstance(error, RequestDataTooBig):
        return error_response(PayloadTooLarge("The request's body is too large."))
    return error_response(BadRequest("The request cannot be read."))


def on_database_error(request: HttpRequest, error: Error) -> HttpResponse:
    """What went wrong may name hosts and users: the log has it, the caller does not."""
    if not database_is_away(error):
        return on_bug(request, error)
    logger.warning("%s %s: the database does not answer: %s", request.method, request.path, error)
    outcome = NOT_STARTED if request.method in SAFE else UNKNOWN
    return error_response(DatabaseUnavailable(outcome=outcome, retry_after=DATABASE_PAUSE))


def on_bug(request: HttpRequest, error: Exception) -> HttpResponse:
    """Our own fault: the log has the traceback, the caller gets the shape and nothing of our insides."""
    logger.error("%s %s failed", request.method, request.path, exc_info=error)
    message = "The server failed to answer; its log says why."
    return JsonResponse(error_body("internal", message, UNKNOWN, {}), status=500)


def register(api: NinjaAPI) -> None:
    handlers: dict[type[Exception], Any] = {
        BrokerError: on_broker_error,
        ValidationError: on_validation_error,
        HttpError: on_http_error,
        Http404: on_missing,
        SuspiciousOperation: on_suspicious,
        Error: on_database_error,
        Exception: on_bug,
    }
    for kind, handler in handlers.items():
        api.add_exception_handler(kind, handler)


@csrf_exempt
def not_found(request: HttpRequest, path: str = "") -> HttpResponse:
    """What is under the API's root and no route of it. (CSRF: it does nothing, and must answer in the shape.)"""
    return _refusal(404, "not_found", f"Nothing is at {request.path}; the routes are listed at the page /docs.")


def shaped(patterns: list[URLPattern | URLResolver]) -> list[URLPattern | URLResolver]:
    """Ninja answers a wrong method in plain text, past its own handlers: give that answer the shape as well."""
    for pattern in patterns:
        if isinstance(pattern, URLPattern):
            pattern.callback = _shaping(pattern.callback)
    return patterns


def _shaping(view: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(view):

        @functools.wraps(view)
        async def asynchronous(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            return _shape(request, await view(request, *args, **kwargs))

        return asynchronous

    @functools.wraps(view)
    def synchronous(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return _shape(request, view(request, *args, **kwargs))

    return synchronous


def _shape(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    if response.status_code != 405:
        return response
    allowed = ", ".join(sorted(part.strip() for part in response["Allow"].split(",")))
    refusal = _refusal(405, "method_not_allowed", f"{request.method} is not possible here; {allowed} is.")
    refusal["Allow"] = allowed
    return refusal
