"""A bound on incoming messages, checked when their length is read and before their bytes are buffered."""

from __future__ import annotations

from typing import Any

HEADER = 5  # bytes before each gRPC message: a flag and the length
MAX_FRAME = 2**28 + 2**24  # bytes: the largest max_payload, and room for what travels along


class FrameTooLarge(Exception):
    """The peer announced a message that is larger than any it may send."""


def bound_messages(stream: Any, limit: int = MAX_FRAME) -> None:
    """Make a grpclib stream refuse messages above `limit` bytes.

    grpclib has no option for this: it reads the length and then waits for that many bytes, up to 4 GiB. The one
    place to step in is the HTTP/2 stream's `recv_data`, which it calls once for the header and once for the body.
    """
    inner = stream._stream
    receive = inner.recv_data

    async def recv_data(size: int) -> bytes:
        if size > limit:
            raise FrameTooLarge(f"a message of {size} bytes; {limit} are allowed")
        data: bytes = await receive(size)
        return data

    inner.recv_data = recv_data
