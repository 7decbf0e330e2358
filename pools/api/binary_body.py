"""Arguments in a body that is not JSON: the bytes of one argument, or a form whose files are arguments.

application/octet-stream   ?argument=image: the body is this argument
multipart/form-data        each file is the argument of its field's name; the field `arguments` has the others as JSON
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation, TooManyFilesSent
from django.http import HttpRequest
from django.http.multipartparser import MultiPartParserError

from snakepit.pools.api.body import json_object, limit_of, plain_arguments, read_arguments, read_body, too_large
from snakepit.pools.broker.errors import BadArguments, BadRequest
from snakepit.pools.client import Json

RAW, FORM = "application/octet-stream", "multipart/form-data"
OTHERS = "arguments"  # the field with the arguments that are no files


def arguments_of(request: HttpRequest, argument: str) -> Json:
    """The arguments of a call, by the body's type. `argument`: the parameter that gets a body of bytes."""
    kind = (request.content_type or "").lower()
    if kind == RAW:
        if not argument:
            raise BadRequest("argument: name the parameter that gets the body, as in ?argument=image")
        return Json({argument: read_body(request)})
    if argument:
        raise BadRequest(f"argument: is for a body of {RAW}, and this one is {kind or 'without a type'}")
    return _form(request) if kind == FORM else read_arguments(request)


def _form(request: HttpRequest) -> Json:
    announced, limit = request.headers.get("Content-Length", ""), limit_of(request)
    if not announced.isdecimal():
        raise BadRequest(f"Content-Length: a body of {FORM} needs it")
    if int(announced[:20]) > limit:
        raise too_large(limit, announced)
    try:
        fields, files = request.POST, request.FILES
    except RequestDataTooBig:
        raise too_large(limit) from None
    except (MultiPartParserError, TooManyFilesSent, SuspiciousOperation) as error:
        raise BadRequest(f"The body is not a form: {error}") from None
    if unknown := sorted(fields.keys() - {OTHERS, "csrfmiddlewaretoken"}):
        fix = f"send it as a file, or in the field {OTHERS!r}, which is one JSON object"
        raise BadRequest(f"{unknown[0][:100]}: is a field of text; {fix}")
    found: dict[str, Any] = {}
    if text := fields.get(OTHERS, ""):
        found = plain_arguments(json_object(text.encode("utf-8", "replace")))
    for name, values in files.lists():
        if name in found or len(values) > 1:
            raise BadArguments(f"{name[:100]}: is given twice", details={"argument": name[:100]})
        with values[0] as file:
            found[name] = file.read()
    return Json(found)
