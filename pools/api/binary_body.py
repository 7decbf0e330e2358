"""Arguments in a body that is not JSON: one argument, or a form whose files are arguments.

application/octet-stream             ?argument=image: the body is this argument, as bytes
application/x-npy                    ?argument=pixels: the array of a .npy file
application/vnd.apache.arrow.stream  ?argument=table: the table of an Arrow IPC stream
multipart/form-data                  each file is the argument of its field's name, by the type of the file; the field
                                     `arguments` has the others as JSON

A body above some hundred kilobytes goes piece by piece into a memory file, whose descriptor the call passes on. The web
process never has it as a whole, and needs neither NumPy nor pyarrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation, TooManyFilesSent
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler
from django.http import HttpRequest
from django.http.multipartparser import MultiPartParserError

from snakepit.pools.api import npy
from snakepit.pools.api.body import json_object, limit_of, plain_arguments, read_arguments, too_large
from snakepit.pools.broker.errors import BadArguments, BadRequest
from snakepit.pools.client import Json
from snakepit.pools.client.encoded import PartWriter, Spool

RAW, FORM = "application/octet-stream", "multipart/form-data"
NPY, ARROW = "application/x-npy", "application/vnd.apache.arrow.stream"
ONE_ARGUMENT = (RAW, NPY, ARROW)
OTHERS = "arguments"  # the field with the arguments that are no files
PIECE = 256 * 1024  # bytes that one read returns
SHORT = 512 * 1024  # bytes of a body that the event loop reads itself


async def arguments_of(request: HttpRequest, argument: str) -> Json:
    """The arguments of a call, by the body's type. `argument`: the parameter that gets a body of one argument."""
    kind = (request.content_type or "").lower()
    if kind in ONE_ARGUMENT:
        if not argument:
            raise BadRequest("argument: name the parameter that gets the body, as in ?argument=image")
        read = _one
    elif argument:
        raise BadRequest(f"argument: is for a body of {RAW}, {NPY} or {ARROW}; this one is {kind or 'without a type'}")
    elif kind == FORM:
        read = _form
    else:
        return read_arguments(request)
    announced = request.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced[:20]) <= SHORT:
        return read(request, argument)
    return await sync_to_async(read, thread_sensitive=False)(request, argument)


def _one(request: HttpRequest, argument: str) -> Json:
    limit, announced = limit_of(request), request.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise too_large(limit, announced)
    spool = Spool()
    part = spool.writer()
    while data := request.read(min(PIECE, limit + 1 - part.size)):
        part.write(data)
        if part.size > limit:
            raise too_large(limit)
    found = Json({argument: _value(argument, part, (request.content_type or "").lower())})
    found.buffers = spool.buffers
    return found


def _value(argument: str, part: PartWriter, kind: str) -> Any:
    """The argument of a part, in the JSON form of its type."""
    if kind == NPY:
        try:
            header = npy.read_header(part.head(npy.HEAD), part.size)
        except npy.NotNpy as problem:
            message = f"{argument}: is no .npy file: {problem}"
            raise BadArguments(message, details={"argument": argument}) from None
        order = ["F"] if header.fortran else []
        return {"$ndarray": [header.dtype, header.shape, part.content(header.size), *order]}
    if kind == ARROW:
        return {"$frame": ["pyarrow.Table", {}, part.content(0)]}
    return part.value()


class _PartFile(UploadedFile):  # type: ignore[type-arg]
    """A file of a form that is in a spool."""

    def __init__(self, part: PartWriter, name: str | None, kind: str | None) -> None:
        super().__init__(None, name, kind, part.size)
        self.part = part

    def close(self) -> None: ...


class _Parts(FileUploadHandler):
    """Writes the files of a form to a spool, and not to memory or a disk."""

    def __init__(self, spool: Spool) -> None:
        super().__init__()
        self._spool = spool

    def new_file(self, *args: Any, **options: Any) -> None:
        super().new_file(*args, **options)
        self._part = self._spool.writer()

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        self._part.write(raw_data)

    def file_complete(self, file_size: int) -> _PartFile:
        return _PartFile(self._part, self.file_name, self.content_type)


def _form(request: HttpRequest, argument: str) -> Json:
    announced, limit = request.headers.get("Content-Length", ""), limit_of(request)
    if not announced.isdecimal():
        raise BadRequest(f"Content-Length: a body of {FORM} needs it")
    if int(announced[:20]) > limit:
        raise too_large(limit, announced)
    spool = Spool()
    with suppress(AttributeError):  # the check of a session's CSRF token has read the form already
        request.upload_handlers = [_Parts(spool)]
    try:
        fields, files = request.POST, request.FILES
    except RequestDataTooBig:
        raise too_large(limit) from None
    except (MultiPartParserError, TooManyFilesSent, SuspiciousOperation) as error:
        raise BadRequest(f"The body is not a form: {error}") from None
    found = _fields(fields)
    for name, values in files.lists():
        if name in found or len(values) > 1:
            raise BadArguments(f"{name[:100]}: is given twice", details={"argument": name[:100]})
        file = values[0]
        part = file.part if isinstance(file, _PartFile) else _part_of(file, spool)
        found[name] = _value(name[:100], part, (file.content_type or "").lower())
    made = Json(found)
    made.buffers = spool.buffers
    return made


def _part_of(file: UploadedFile[Any], spool: Spool) -> PartWriter:
    """A file that Django's own handlers have stored."""
    part = spool.writer()
    for data in file.chunks(PIECE):
        part.write(data)
    return part


def _fields(fields: Mapping[str, str]) -> dict[str, Any]:
    """The arguments that are no files."""
    if unknown := sorted(fields.keys() - {OTHERS, "csrfmiddlewaretoken"}):
        fix = f"send it as a file, or in the field {OTHERS!r}, which is one JSON object"
        raise BadRequest(f"{unknown[0][:100]}: is a field of text; {fix}")
    text = fields.get(OTHERS, "")
    return plain_arguments(json_object(text.encode("utf-8", "replace"))) if text else {}
