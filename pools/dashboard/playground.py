"""The playground: a form from the command's schema; runs a call with its stream and timings, or submits a job."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.urls import reverse
from django.views.decorators.http import require_POST

from snakepit.pools import conf
from snakepit.pools import jobs as durable
from snakepit.pools.api.body import read_object
from snakepit.pools.api.calls import refuse_hook
from snakepit.pools.api.streams import stream_response
from snakepit.pools.broker.caller import acting_for
from snakepit.pools.broker.errors import BadRequest, BrokerError, PermissionDenied
from snakepit.pools.broker.spec import ON_FAILURE
from snakepit.pools.client import Json, shared
from snakepit.pools.dashboard.access import rights_of
from snakepit.pools.dashboard.form import fields
from snakepit.pools.dashboard.page import Visit, page, show
from snakepit.pools.dashboard.snippets import api_url
from snakepit.pools.jobs.leases import db_unit
from snakepit.pools.models import Job, Pool
from snakepit.pools.models.apikey import quota_of
from snakepit.pools.web.errors import all_or_nothing, error_response, seen_from_outside
from snakepit.pools.web.headers import csrf_header
from snakepit.pools.web.last_status import PATIENCE
from snakepit.pools.web.type_text import named_types, signature_text


@page("playground", right="run")
def playground(request: HttpRequest, visit: Visit) -> HttpResponse:
    """`?pool=&command=` chooses a command; `?job=` copies the arguments of a job."""
    copied = _copied_job(request, visit)
    names = list(Pool.objects.filter(enabled=True).values_list("name", flat=True))
    chosen = copied.pool if copied else request.GET.get("pool", "")
    pool = chosen if chosen in names else (names[0] if names else "")
    context: dict[str, Any] = {"pools": names, "pool": pool, "longest": conf.current().max_timeout}
    if trouble := visit.state().trouble:
        context["trouble"] = trouble
    try:
        found = shared.client().commands(pool, PATIENCE) if pool and not trouble else ()
        commands = tuple(one for one in found if one.name != ON_FAILURE)
    except BrokerError as error:
        commands, context["trouble"] = (), seen_from_outside(error).message
    wanted = copied.command if copied else request.GET.get("command", "")
    command = next((one for one in commands if one.name == wanted), commands[0] if commands else None)
    context |= {"commands": commands, "command": command}
    if command:
        context["csrf_header"] = csrf_header()
        context["fields"] = fields(command.arguments, copied.arguments if copied else None)
        context["signature"] = signature_text(command)
        context["types"] = dict.fromkeys((*named_types(command.arguments), *named_types(command.result)))
        context["call_url"] = api_url(request, "call", pool, command.name)
    return show(request, visit, "snakepit/playground.html", context)


def _copied_job(request: HttpRequest, visit: Visit) -> Job | None:
    try:
        row = Job.objects.filter(pk=uuid.UUID(request.GET.get("job", ""))).first()
    except ValueError:
        return None
    sees = row is not None and ("payload" in visit.rights or row.owner == request.user.get_username())
    return row if sees else None


@require_POST
async def run(request: HttpRequest) -> HttpResponseBase:
    """One call as server-sent events; closing the connection cancels it. Errors have the shape of the API."""
    try:
        await sync_to_async(_check)(request)
        asked = _read(request)
        timeout, longest = asked["timeout"], conf.current().max_timeout
        if timeout is not None and not _is_time(timeout, longest):
            raise BadRequest(f"timeout: {timeout!r} is not a number of seconds up to {longest:g}")
    except BrokerError as error:
        return error_response(error)
    quota = quota_of(request.user.get_username())

    def begin() -> AsyncIterator[Any]:
        with acting_for(quota):
            return shared.client().aevents(
                asked["pool"], asked["command"], asked["arguments"], timeout=timeout, priority=0
            )

    try:
        return await stream_response(request, begin)
    except BrokerError as error:
        return error_response(error)


@require_POST
def submit(request: HttpRequest) -> HttpResponse:
    """Submit a durable job in the user's name; returns the URL of its page."""
    try:
        _check(request)
        asked = _read(request)
        options = {"tags": asked["tags"], "timeout": asked["timeout"], "owner": request.user}
        with acting_for(quota_of(request.user.get_username())), all_or_nothing():
            job = durable.submit(asked["pool"], asked["command"], asked["arguments"], **options)
    except BrokerError as error:
        return error_response(error)
    return JsonResponse({"id": str(job.pk), "url": reverse("snakepit:job", args=[job.pk])}, status=201)


def _is_time(value: Any, longest: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= longest


def _check(request: HttpRequest) -> None:
    with db_unit():
        allowed = "run" in rights_of(request.user)
    if not allowed:
        raise PermissionDenied("This takes the right to run commands.", details={"scope": "run"})


def _read(request: HttpRequest) -> dict[str, Any]:
    body = read_object(request)
    arguments = body.get("arguments", {})
    if not isinstance(arguments, dict):
        raise BadRequest("arguments: must be a JSON object")
    names = {"pool": body.get("pool"), "command": body.get("command")}
    if wrong := [name for name, value in names.items() if not isinstance(value, str) or not value]:
        raise BadRequest(f"{wrong[0]}: must be a name")
    refuse_hook(str(names["command"]))
    tags = body.get("tags", [])
    if not isinstance(tags, list):
        raise BadRequest("tags: must be a list")
    return {**names, "arguments": Json(arguments), "timeout": body.get("timeout"), "tags": tags}
