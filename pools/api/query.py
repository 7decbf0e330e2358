"""Refusal of query parameters that a route does not have: a misspelt filter would return the wrong rows.

names ─▶ request.query_names ─▶ authentication, validation ─▶ checked: 400 bad_request, or the route
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from ninja import NinjaAPI
from ninja.operation import Operation

from snakepit.pools.broker.errors import BadRequest

View = Callable[..., Awaitable[HttpResponseBase]]


def refuse_unknown_parameters(api: NinjaAPI) -> None:
    """Check every operation of this API. Call it before the routers are added."""
    api.add_decorator(_named, mode="view")
    api.add_decorator(_checked)


def unknown_query(request: HttpRequest) -> BadRequest | None:
    """The error of the parameters that the route of this request does not have, or None."""
    known: tuple[str, ...] = getattr(request, "query_names", ())
    unknown = sorted(set(request.GET) - set(known))
    if not unknown:
        return None
    has = f"it has {', '.join(known)}" if known else "it has none"
    named = ", ".join(repr(name[:50]) for name in unknown[:5])
    fields = {name[:50]: "is not a query parameter of this route" for name in unknown[:5]}
    message = f"{named}: no query parameter of {request.path}; {has}"
    return BadRequest(message, details={"fields": fields, "known": list(known)})


def _named(run: View) -> View:
    """Give the request the names of the operation's parameters. `run` is a method of the operation."""
    names = tuple(_names(run.__self__))  # type: ignore[attr-defined]

    @functools.wraps(run)
    async def named(request: HttpRequest, **values: Any) -> HttpResponseBase:
        request.query_names = names  # type: ignore[attr-defined]
        return await run(request, **values)

    return named


def _names(operation: Operation) -> list[str]:
    found: list[str] = []
    for model in operation.models:
        if model.__ninja_param_source__ == "query":
            found += model.__ninja_flatten_map__
    # A route that reads its query by itself describes it there.
    described = (operation.openapi_extra or {}).get("parameters", ())
    return found + [one["name"] for one in described if one["in"] == "query"]


def _checked(view: View) -> View:
    """Check after the authentication, so that a caller without a key gets 401."""

    @functools.wraps(view)
    async def checked(request: HttpRequest, *args: Any, **values: Any) -> HttpResponseBase:
        if error := unknown_query(request):
            raise error
        return await view(request, *args, **values)

    return checked
