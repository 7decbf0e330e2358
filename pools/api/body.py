"""Read a request's body as arguments, and write a result as JSON, within the configured limits."""

from __future__ import annotations

import binascii
import json
from base64 import b64encode
from typing import Any

from django.http import HttpRequest

from snakepit.pools import conf
from snakepit.pools.broker.errors import FAILED, BadArguments, BadRequest, BrokerError, PayloadTooLarge
from snakepit.pools.client import Json
from snakepit.pools.models.strict_json import NotStrict, loads

LINE_TYPES = ("", "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")
JSON_TYPES = ("", "application/json", "text/json")


def read_object(request: HttpRequest) -> dict[str, Any]:
    """The JSON object in the body; an empty body is an empty object."""
    text = read_body(request)
    if not text.strip():
        return {}
    kind = (request.content_type or "").lower()
    if kind not in JSON_TYPES and not kind.endswith("+json"):
        fix = "with curl, add -H 'Content-Type: application/json'"
        raise BadRequest(f"Content-Type: must be application/json, not {kind}; {fix}")
    return json_object(text)


def json_object(text: bytes) -> dict[str, Any]:
    """The JSON object that a text is."""
    try:
        value = loads(text, max_depth=conf.current().max_depth)
    except NotStrict as error:
        raise BadRequest(f"The body {error}.") from None
    if not isinstance(value, dict):
        raise BadRequest(f"The body must be a JSON object of arguments, not {_json_type(value)}.")
    return value


def read_lines(request: HttpRequest, most: int) -> list[Json]:
    """The JSON objects in the body, one on each line (NDJSON)."""
    text = read_body(request)
    kind = (request.content_type or "").lower()
    if kind not in LINE_TYPES:
        fix = "with curl, add -H 'Content-Type: application/x-ndjson' and use --data-binary"
        raise BadRequest(f"Content-Type: must be application/x-ndjson, not {kind}; {fix}")
    lines = text.split(b"\n")
    while lines and not lines[-1].strip():
        del lines[-1]
    if not lines:
        raise BadRequest("The body is empty: it must have one JSON object of arguments on each line.")
    if len(lines) > most:
        raise PayloadTooLarge(
            f"The body has {len(lines):,} lines, more than the {most:,} that SNAKEPIT['JOBS_BATCH_ROWS'] allows. "
            "Send them in parts.",
            details={"limit": most, "lines": len(lines)},
        )
    return [_line(number, line) for number, line in enumerate(lines, 1)]


def _line(number: int, text: bytes) -> Json:
    try:
        value = loads(text, max_depth=conf.current().max_depth)
    except NotStrict as error:
        raise BadRequest(f"line {number}: the line {error}.", details={"line": number}) from None
    if not isinstance(value, dict):
        message = f"line {number}: must be a JSON object of arguments, not {_json_type(value)}"
        raise BadRequest(message, details={"line": number})
    return Json(value)


def read_arguments(request: HttpRequest) -> Json:
    """The arguments of a call. An argument {"$bytes": base64} reaches the command as bytes."""
    return Json(plain_arguments(read_object(request)))


def plain_arguments(given: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(name, value) for name, value in given.items()}


def _plain(name: str, value: Any) -> Any:
    if not isinstance(value, dict) or set(value) != {"$bytes"}:
        return value
    try:
        return binascii.a2b_base64(value["$bytes"], strict_mode=True)
    except (binascii.Error, TypeError, ValueError):
        raise BadArguments(f"{name}: the value of $bytes is not base64", details={"argument": name}) from None


def limit_of(request: HttpRequest) -> int:
    """The most bytes that the body of this caller may have."""
    limit, found = conf.current().max_body, getattr(request, "auth", None)
    return limit if found is None else int(min(limit, found.quota.smallest("body_bytes")))


def read_body(request: HttpRequest) -> bytes:
    """The body, within the caller's limit."""
    limit = limit_of(request)
    announced = request.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise too_large(limit, announced)
    # Not `request.body`, which reads everything first and responds to a large body with an HTML page.
    text = request.read(limit + 1)
    if len(text) > limit:
        raise too_large(limit)
    return bytes(text)


def too_large(limit: int, announced: str = "") -> PayloadTooLarge:
    """Return the error of a body above the limit. `announced`: its size in bytes, as its header has it."""
    size = int(announced[:20]) if announced.isdecimal() else 0
    has = (
        f"The body has {size:,} bytes, more than the {limit:,}"
        if size
        else f"The body has more than the {limit:,} bytes"
    )
    return PayloadTooLarge(
        f"{has} that SNAKEPIT['MAX_BODY'] allows. Raise MAX_BODY (a pool's max_payload limits its calls as well), "
        "send the data in parts, or pass the name of a file.",
        details={"limit": limit, "bytes": size} if size else {"limit": limit},
    )


def dumps(value: Any) -> str:
    """JSON of a response. Bytes become {"$bytes": base64}, because JSON has no bytes.

    >>> dumps({"image": b"PNG", "label": "ß"})
    '{"image":{"$bytes":"UE5H"},"label":"ß"}'
    """
    try:
        return json.dumps(value, default=_encode, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except ValueError:
        message = "The result contains NaN or infinity, which JSON cannot represent: return None instead."
        raise BrokerError(message, outcome=FAILED) from None


def _encode(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$bytes": b64encode(value).decode()}
    return str(value)


def _json_type(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
