"""The bytes of HTTP/2 frames and of gRPC messages; pure."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from typing import NamedTuple

HEADER = 9  # bytes: length (3), type (1), flags (1), stream (4); RFC 9113, section 4.1
DATA, HEADERS, RST_STREAM, SETTINGS, PING = 0, 1, 3, 4, 6  # types of frames
END_STREAM = 1  # a flag of DATA
PREFACE = 24  # bytes that a client sends before its first frame
PREFIX = 5  # bytes before each gRPC message: a flag and the length
read_length = struct.Struct(">BH").unpack_from  # of a frame; its high byte, and the rest
read_prefix = struct.Struct(">BI").unpack_from  # of a message: whether it is compressed, and its length
# Before a message that is one frame: the frame's length in two parts, its plain header, 0, the message's length.
pack_head = struct.Struct(">BH6sBI").pack


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


class CheapFrames(NamedTuple):
    """How many frames of a read cost the sender nothing. Requests and data are none of them."""

    cancels: int  # RST_STREAM
    questions: int  # PING and SETTINGS, which h2 answers
    others: int  # such as WINDOW_UPDATE, PRIORITY, empty DATA, and types that h2 skips


class FrameCounter:
    """Counts the cheap frames in the bytes that a client sends, before h2 reads them. h2 shows only some of them.

    >>> counter, empty = FrameCounter(), bytes(5) + b"\\0\\0\\0\\1"
    >>> counter.count(b"P" * 24 + empty + bytes((0, 0, 8, PING, 0, 0)))
    CheapFrames(cancels=0, questions=0, others=1)
    >>> counter.count(bytes(3) + b"8 bytes!")
    CheapFrames(cancels=0, questions=1, others=0)
    """

    def __init__(self) -> None:
        self._left = PREFACE  # bytes that are still to come before the next frame
        self._head = b""  # the beginning of its header

    def count(self, data: bytes) -> CheapFrames:
        data = self._head + data if self._head else data
        at, size = self._left, len(data)
        cancels = questions = others = 0
        while size - at >= HEADER:
            length, kind, flags = int.from_bytes(data[at : at + 3], "big"), data[at + 3], data[at + 4]
            at += HEADER + length
            if (kind == DATA and (length or flags & END_STREAM)) or kind == HEADERS:
                continue
            cancels += kind == RST_STREAM
            questions += kind in (PING, SETTINGS)
            others += kind not in (RST_STREAM, PING, SETTINGS)
        self._left, self._head = max(0, at - size), data[at:]
        return CheapFrames(cancels, questions, others)
