"""Errors of the broker and of the database as HTTP answers, in one shape.

The shape is {"error": {"code", "message", "outcome", "details"}}. Errors of the broker keep their code and status.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from django.db import InterfaceError, OperationalError
from django.http import JsonResponse

from snakepit.pools.broker.errors import NOT_STARTED, BrokerError, BrokerUnreachable, Unauthenticated

DATABASE_PAUSE = 5.0  # seconds after which a caller may ask again; a PostgreSQL that restarts is back by then


def error_body(code: str, message: str, outcome: str, details: Mapping[str, Any]) -> dict[str, Any]:
    """The one shape of every error."""
    return {"error": {"code": code, "message": message, "outcome": outcome, "details": dict(details)}}


def body_of(error: BrokerError) -> dict[str, Any]:
    """The shape of an error of the broker."""
    return error_body(error.code, error.message, error.outcome, error.details)


def error_response(error: BrokerError) -> JsonResponse:
    """The HTTP answer for an error of the broker: its status, its body, and when to try again."""
    response = JsonResponse(body_of(error), status=error.http_status, json_dumps_params={"default": str})
    if error.http_status == 401:
        response["WWW-Authenticate"] = 'Bearer realm="snakepit"'
    if error.retry_after > 0 and error.http_status in (429, 503):
        response["Retry-After"] = str(math.ceil(error.retry_after))  # whole seconds, by RFC 9110
    return response


def seen_from_outside(error: BrokerError) -> BrokerError:
    """The error that an authenticated caller sees: the broker refused this server's token, not the caller's key."""
    if isinstance(error, Unauthenticated):
        return BrokerUnreachable(f"The web server cannot talk to its broker: {error.message}", outcome=NOT_STARTED)
    return error


def database_is_away(error: BaseException) -> bool:
    """Whether the database does not answer, as opposed to a query that is wrong."""
    # Of SQLite, a missing table is an OperationalError as well.
    return isinstance(error, InterfaceError) or (isinstance(error, OperationalError) and "no such" not in str(error))
