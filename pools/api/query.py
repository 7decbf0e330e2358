"""Refusal of query parameters that a route does not have or has once, or whose values are longer than any that exists.

Such a filter would return the wrong rows.

names ─▶ request.query_names ─▶ authentication, validation ─▶ checked: 400 bad_request, or the route
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from ninja import NinjaAPI
from ninja.operation import Operation

from snakepit.pools.api.bounds import NAMES
from snakepit.pools.broker.errors import BadRequest

View = Callable[..., Awaitable[HttpResponseBase]]


def refuse_unknown_parameters(api: NinjaAPI) -> None:
    """Check every operation of this API. Call it before the routers are added."""
    api.add_decorator(_named, mode="view")
    api.add_decorator(_checked)


def wrong_query(request: HttpRequest) -> BadRequest | None:
    """The error of the parameters that the route does not have, or has once, or that are too long; or None."""
    known: tuple[str, ...] = getattr(request, "query_names", ())
    unknown = sorted(set(request.GET) - set(known))
    if not unknown:
        return _repeated(request) or _too_long(request)
    has = f"it has {', '.join(known)}" if known else "it has none"
    named = ", ".join(repr(name[:50]) for name in unknown[:5])
    fields = {name[:50]: "is not a query parameter of this route" for name in unknown[:5]}
    message = f"{named}: no query parameter of {request.path}; {has}"
    return BadRequest(message, details={"fields": fields, "known": list(known)})


def _repeated(request: HttpRequest) -> BadRequest | None:
    lists: frozenset[str] = getattr(request, "query_lists", frozenset())
    twice = sorted(name for name in request.GET if name not in lists and len(request.GET.getlist(name)) > 1)
    if not twice:
        return None
    fields = dict.fromkeys(twice, "is in the query more than once")
    return BadRequest(f"{', '.join(twice)}: is in the query more than once; give it once", details={"fields": fields})


def _too_long(request: HttpRequest) -> BadRequest | None:
    """The description has these bounds, too (`bounds`)."""
    path = request.resolver_match.kwargs if request.resolver_match else {}
    # Of a path with a command: a stream answers 200 before it knows the names.
    called = [(name, [str(path[name])]) for name in ("pool", "command") if "command" in path]
    fields = {
        name: f"has more than {NAMES[name]} characters"
        for name, values in (*request.GET.lists(), *called)
        if any(len(value) > NAMES.get(name, len(value)) for value in values)
    }
    if not fields:
        return None
    message = "; ".join(f"{name}: {problem}" for name, problem in fields.items())
    return BadRequest(message, details={"fields": fields})


def _named(run: View) -> View:
    """Give the request the names of the operation's parameters. `run` is a method of the operation."""
    operation: Operation = run.__self__  # type: ignore[attr-defined]
    names, lists = tuple(_names(operation)), frozenset(_lists(operation))

    @functools.wraps(run)
    async def named(request: HttpRequest, **values: Any) -> HttpResponseBase:
        request.query_names, request.query_lists = names, lists  # type: ignore[attr-defined]
        return await run(request, **values)

    return named


def _names(operation: Operation) -> list[str]:
    found: list[str] = []
    for model in operation.models:
        if model.__ninja_param_source__ == "query":
            found += model.__ninja_flatten_map__
    return found + [one["name"] for one in _described(operation)]


def _lists(operation: Operation) -> list[str]:
    """The parameters that may be repeated."""
    return [one["name"] for one in _described(operation) if "'array'" in str(one["schema"])]


def _described(operation: Operation) -> list[dict[str, Any]]:
    """The parameters of a route that reads its query by itself."""
    return [one for one in (operation.openapi_extra or {}).get("parameters", ()) if one["in"] == "query"]


def _checked(view: View) -> View:
    """Check after the authentication, so that a caller without a key gets 401."""

    @functools.wraps(view)
    async def checked(request: HttpRequest, *args: Any, **values: Any) -> HttpResponseBase:
        if error := wrong_query(request):
            raise error
        return await view(request, *args, **values)

    return checked
