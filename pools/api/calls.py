"""POST /pools/{pool}/commands/{command}: call a command; the response is JSON, raw bytes or an event stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from ninja import Query, Router

from snakepit.pools import conf
from snakepit.pools.api.auth import caller
from snakepit.pools.api.binary_body import ARROW, FORM, NPY, RAW, arguments_of
from snakepit.pools.api.binary_result import accepted, binary_response, plain_value
from snakepit.pools.api.body import dumps
from snakepit.pools.api.schemas import BODIES, CallAnswer, Failure, answers
from snakepit.pools.api.streams import answer_body, stream_response
from snakepit.pools.api.turns import without_turn
from snakepit.pools.broker.caller import acting_for
from snakepit.pools.broker.errors import BadRequest, CommandUnknown
from snakepit.pools.broker.messages import MAX_AFFINITY
from snakepit.pools.broker.spec import ON_FAILURE
from snakepit.pools.client import Answer, shared

router = Router(tags=["calls"])

DESCRIBED = answers("text/event-stream", RAW, NPY, ARROW) | {
    "requestBody": {
        "description": "The command's arguments as one JSON object; an empty body means no arguments. "
        'Write bytes as {"$bytes": "<base64>"}.',
        "content": {
            "application/json": {"schema": {"type": "object"}},
            **{kind: {"schema": BODIES[kind]} for kind in (RAW, NPY, ARROW)},
            FORM: {
                "schema": {
                    "type": "object",
                    "properties": {"arguments": {"type": "string", "description": "The other arguments, as JSON."}},
                    "additionalProperties": {"type": "string", "format": "binary"},
                }
            },
        },
        "required": False,
    },
}


@router.post(
    "/pools/{pool}/commands/{command}",
    response={200: CallAnswer, frozenset({400, 401, 403, 404, 413, 422, 429, 500, 502, 503, 504}): Failure},
    openapi_extra=DESCRIBED,
    operation_id="call",
    summary="Call a command",
)
async def call(
    request: HttpRequest,
    pool: str,
    command: str,
    timeout: Annotated[float | None, Query(gt=0, allow_inf_nan=False)] = None,
    priority: Annotated[int, Query(ge=-100, le=100)] = 0,
    *,
    stream: bool = False,
    argument: Annotated[str, Query(max_length=100)] = "",
    affinity: Annotated[str, Query(max_length=MAX_AFFINITY)] = "",
) -> HttpResponseBase:
    """Call a command of a pool and wait for its result.

    A body of `application/octet-stream` is the argument that `?argument=` names. So is the array of a body of
    `application/x-npy`, and the table of `application/vnd.apache.arrow.stream`. In a body of `multipart/form-data`,
    each file is the argument of its field's name, and the field `arguments` has the others as one JSON object.

    `affinity` is a key, such as the id of a session: calls with the same one go to the same node and worker while it
    has a free slot.

    With `Accept: text/event-stream` (or `?stream=true`) the response is a stream of server-sent events: `chunk`,
    `progress`, `log`, and last `result` or `error`. With `Accept: application/octet-stream`, a result of type bytes is
    the raw body; with `application/x-npy` an array, with `application/vnd.apache.arrow.stream` a table. Every other
    result is JSON.
    """
    caller(request).allow("call", pool)
    refuse_hook(command)
    check_timeout(timeout)
    arguments = await arguments_of(request, argument)
    accept = request.headers.get("Accept", "")
    quota = caller(request).quota
    options: Any = {"timeout": timeout, "priority": priority, "affinity": affinity}
    if stream or "text/event-stream" in accept:

        def begin() -> AsyncIterator[Any]:
            with acting_for(quota):
                return shared.client().aevents(pool, command, arguments, **options)

        return await stream_response(request, begin)
    types = accepted(accept)
    execute = shared.client().aexecute_encoded if types else shared.client().aexecute
    with acting_for(quota):
        answer = await without_turn(execute(pool, command, arguments, **options))
    request.rate_left = answer.calls_left, answer.calls_reset  # type: ignore[attr-defined]
    return answer_response(request, answer, types)


def check_timeout(timeout: float | None) -> None:
    longest = conf.current().max_timeout
    if timeout is not None and timeout > longest:
        message = f"timeout: {timeout} is more than {longest} seconds (SNAKEPIT['MAX_TIMEOUT'])"
        raise BadRequest(message, details={"fields": {"timeout": longest}})


def answer_response(request: HttpRequest, answer: Answer, types: frozenset[str]) -> HttpResponseBase:
    """The response with a result, in one of these types of body if it has one; else JSON."""
    if not types:
        return json_response(answer_body(answer))
    if response := binary_response(request, answer, types):
        return response
    return json_response(answer_body(replace(answer, value=json.loads(plain_value(answer.value)))))


def refuse_hook(command: str) -> None:
    """Refuse a call of the hook `on_failure`: its adapter trusts what it receives."""
    if command == ON_FAILURE:
        raise CommandUnknown("command: on_failure is a hook of the adapter, which runs after a job has failed")


def json_response(data: Any, status: int = 200) -> HttpResponse:
    return HttpResponse(dumps(data), content_type="application/json", status=status)
