"""Errors of the broker and of the database as HTTP responses, in one format.

The format is {"error": {"code", "message", "outcome", "details"}}. Errors of the broker keep their code and status.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.db import Error, InterfaceError, OperationalError
from django.http import JsonResponse

from snakepit.pools.broker.errors import (
    NOT_STARTED,
    BrokerError,
    BrokerUnreachable,
    DatabaseUnavailable,
    LimitReached,
    Unauthenticated,
)

DATABASE_PAUSE = 5.0  # seconds until a caller should retry; a PostgreSQL that restarts is usually back by then

FULL = "The database cannot store anything: its disk is full."


def error_body(code: str, message: str, outcome: str, details: Mapping[str, Any]) -> dict[str, Any]:
    """The body of every error."""
    return {"error": {"code": code, "message": message, "outcome": outcome, "details": dict(details)}}


def body_of(error: BrokerError) -> dict[str, Any]:
    """The body of an error of the broker."""
    return error_body(error.code, error.message, error.outcome, error.details)


def error_response(error: BrokerError) -> JsonResponse:
    """The HTTP response for an error of the broker: status, body and Retry-After."""
    response = JsonResponse(body_of(error), status=error.http_status, json_dumps_params={"default": str})
    if error.http_status == 401:
        response["WWW-Authenticate"] = 'Bearer realm="snakepit"'
    if error.retry_after > 0 and error.http_status in (429, 503):
        pause = str(math.ceil(error.retry_after))  # whole seconds, by RFC 9110
        response["Retry-After"] = pause
        if isinstance(error, LimitReached):
            response["RateLimit"] = f'"{error.details["limit"]}";r=0;t={pause}'
    return response


def seen_from_outside(error: BrokerError) -> BrokerError:
    """The error for an authenticated caller: `Unauthenticated` is about this server's token, not the caller's key."""
    if isinstance(error, Unauthenticated):
        message = f"The broker rejected the web server's token: {error.message}"
        return BrokerUnreachable(message, outcome=NOT_STARTED)
    return error


def database_is_away(error: BaseException) -> bool:
    """Whether the error means that the database is unavailable, rather than that a query is wrong."""
    # SQLite raises OperationalError for a missing table too.
    return isinstance(error, InterfaceError) or (isinstance(error, OperationalError) and "no such" not in str(error))


def database_is_full(error: BaseException) -> bool:
    """Whether the database cannot store anything, because its disk is full."""
    text = str(error).lower()
    # SQLite; PostgreSQL and the system.
    return "disk is full" in text or "no space left" in text


@contextmanager
def all_or_nothing() -> Iterator[None]:
    """Around what one transaction stores: a full disk undoes it, so the outcome is known. Another error of a database
    may have come after the commit."""
    try:
        yield
    except Error as error:
        if not database_is_full(error):
            raise
        raise DatabaseUnavailable(FULL, outcome=NOT_STARTED, retry_after=DATABASE_PAUSE) from error
