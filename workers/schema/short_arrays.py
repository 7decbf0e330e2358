"""The short way of arrays of numbers: the text of a value that is one, or an object of some and of texts and numbers.

It writes what a Tagger writes (typed.py) without its tree. Most large arguments and results are such values, and the
general way takes a third of the time that 100 kB add to a call: its code is not in the caches between two calls.
"""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Any

from snakepit.workers.buffers import LARGEST_INLINE, TAG, THRESHOLD, Outgoing
from snakepit.workers.memory_file import aligned
from snakepit.workers.schema.json_text import encode_scalar

NUMBERS = frozenset({"<f8", "<f4", "<f2", "<i8", "<i4", "<i2", "|i1", "<u8", "<u4", "<u2", "|u1", "|b1"})

Buffers = Outgoing | Callable[[], Outgoing] | None


def text_of(value: Any, buffers: Buffers) -> str:
    """The text; empty: the value takes the general way, and `buffers` has nothing of it."""
    numpy: Any = sys.modules.get("numpy")
    kind = getattr(numpy, "ndarray", None)
    if kind is None:
        return ""
    if type(value) is kind:
        return _text(numpy, value, buffers() if callable(buffers) else buffers) if _size(value) else ""
    if type(value) is not dict or kind not in map(type, value.values()):
        return ""
    if len(value) == 1 and str(next(iter(value)))[:1] == "$":
        return ""
    members, room = [], LARGEST_INLINE
    for name, item in value.items():
        if type(name) is not str:
            return ""
        if type(item) is kind:
            room -= (size := aligned(_size(item)))
            text = None
            if not size or room < 0:
                return ""
        elif not (text := _scalar(item)):
            return ""
        members.append((name, text, item))
    made = buffers() if callable(buffers) else buffers
    # The arrays last: what a buffer takes stays there.
    parts = [f"{encode_basestring(name)}:{text or _text(numpy, item, made)}" for name, text, item in members]
    return "{" + ",".join(parts) + "}"


def _scalar(value: Any) -> str:
    try:
        return encode_scalar(value)
    except ValueError:  # an integer with too many digits
        return ""


def _size(array: Any) -> int:
    """The bytes of an array of numbers that fits into the message; 0: it does not, or is of another kind."""
    size: int = array.nbytes
    fits = size <= LARGEST_INLINE and array.dtype.str in NUMBERS and array.ndim and array.flags.c_contiguous
    return size if fits else 0


def _text(numpy: Any, array: Any, buffers: Outgoing | None) -> str:
    data = array.reshape(-1).view(numpy.uint8)
    if buffers is None or array.nbytes < THRESHOLD:
        place = f'"{b64encode(data).decode("ascii")}"'
    else:
        number, at, size = buffers.add(data)
        place = f'{{"{TAG}":[{number},{at},{size}]}}'
    return f'{{"$ndarray":["{array.dtype.str}",[{",".join(map(str, array.shape))}],{place}]}}'
