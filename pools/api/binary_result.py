"""A result as the bytes that the caller accepts: raw bytes, a .npy file or an Arrow IPC stream.

     Encoded ─▶ one of the accepted types ─▶ a streamed response, read piece by piece from its memory file
            └─▶ every other value ─▶ None: JSON

A result of 100 MB thereby is never in the web process as a whole, and NumPy and pyarrow are not needed there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from snakepit.pools.api import npy
from snakepit.pools.api.binary_body import ARROW, NPY, RAW
from snakepit.pools.broker.errors import FAILED, ResultTooLarge, ResultUnreadable
from snakepit.pools.client import Answer
from snakepit.pools.client.encoded import Encoded, Part
from snakepit.workers.schema.not_carried import NotCarried, ValueTooLarge
from snakepit.workers.schema.value import encode_json

TYPES = {"$bytes": RAW, "$ndarray": NPY, "$frame": ARROW}  # of a result's tag
LARGEST_JSON = 16 * 2**20  # bytes of a result that has none of the accepted types


def accepted(accept: str) -> frozenset[str]:
    """The binary types that an Accept header names.

    >>> sorted(accepted("application/x-npy, application/json;q=0.5")), accepted("*/*")
    (['application/x-npy'], frozenset())
    """
    return frozenset(one.partition(";")[0].strip().lower() for one in accept.split(",")).intersection(TYPES.values())


def binary_response(request: HttpRequest, answer: Answer, types: frozenset[str]) -> HttpResponseBase | None:
    """The response with the bytes of a result; None if the result has none of these types."""
    found: Encoded = answer.value
    kind = TYPES.get(found.tag, "")
    if kind not in types:
        return None
    head, part = _parts(found)
    headers = {"X-Snakepit-Call": answer.call, "X-Snakepit-Worker": answer.worker}
    if part.descriptor < 0:
        found.close()
        return HttpResponse(head + part.memory, content_type=kind, headers=headers)
    headers["Content-Length"] = str(len(head) + part.size)
    # Under WSGI, Django would collect an asynchronous stream completely before it sends the first byte.
    content: Any = _achunks(found, head, part) if isinstance(request, ASGIRequest) else _chunks(found, head, part)
    return StreamingHttpResponse(content, content_type=kind, headers=headers)


def _parts(found: Encoded) -> tuple[bytes, Part]:
    """What comes before the bytes of a result, and the bytes."""
    content = found.content
    if found.tag == "$bytes":
        return b"", found.part(content)
    try:
        if found.tag == "$frame":
            if not isinstance(content[2], str | dict) or (isinstance(content[2], dict) and "columns" in content[2]):
                fix = "ask for application/json, or install pyarrow where the worker runs"
                raise ResultUnreadable(f"The result is a table that was not sent as Arrow; {fix}.")
            return b"", found.part(content[2])
        dtype, shape, data = content
        return npy.header_of(dtype, shape), found.part(data)
    except (ValueError, TypeError, IndexError):
        raise ResultUnreadable("The result cannot be read: its tag has another form.") from None


def _chunks(found: Encoded, head: bytes, part: Part) -> Iterator[bytes]:
    try:
        if head:
            yield head
        yield from part.chunks()
    finally:
        found.close()


async def _achunks(found: Encoded, head: bytes, part: Part) -> AsyncIterator[bytes]:
    for chunk in _chunks(found, head, part):
        yield chunk


def plain_value(found: Encoded) -> bytes:
    """The JSON of a result that has none of the accepted types. Raises ResultTooLarge and ResultUnreadable."""
    try:
        return encode_json(found.value(), LARGEST_JSON)
    except ValueTooLarge as error:
        fix = "accept the binary type of the result, or return less"
        message = f"The result has more than {LARGEST_JSON:,} bytes as JSON; {fix}."
        raise ResultTooLarge(message, outcome=FAILED, details={"limit": LARGEST_JSON, "size": error.size}) from None
    except NotCarried as problem:
        raise ResultUnreadable(f"{problem}.", outcome=FAILED) from None
    finally:
        found.close()
