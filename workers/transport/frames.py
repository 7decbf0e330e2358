"""The bytes of HTTP/2 DATA frames and of gRPC messages; pure."""

from __future__ import annotations

import functools
from collections.abc import Iterator

HEADER = 9  # bytes: length (3), type (1), flags (1), stream (4); RFC 9113, section 4.1
PREFIX = 5  # bytes before each gRPC message: a flag and the length


def framed(message: bytes) -> bytes:
    """Return a message as gRPC sends it: an uncompressed flag, the length, the message.

    >>> framed(b"abc").hex(" ")
    '00 00 00 00 03 61 62 63'
    """
    return b"\0" + len(message).to_bytes(4, "big") + message


@functools.lru_cache
def plain_header(stream: int) -> bytes:
    """Return what follows the length in the header of a DATA frame without flags.

    >>> plain_header(3).hex()
    '000000000003'
    """
    return b"\0\0" + stream.to_bytes(4, "big")


def data_frames(stream: int, data: bytes, largest: int) -> Iterator[bytes | memoryview]:
    """Yield headers and contents of DATA frames of at most `largest` bytes each.

    >>> b"".join(data_frames(3, b"abcde", 4)).hex(" ", -1)
    '00 00 04 00 00 00 00 00 03 61 62 63 64 00 00 01 00 00 00 00 00 03 65'
    """
    header, view = plain_header(stream), memoryview(data)
    for start in range(0, len(data), largest):
        piece = view[start : start + largest]
        yield len(piece).to_bytes(3, "big") + header
        yield piece
