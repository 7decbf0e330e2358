r"""The header of a .npy file, read and written without NumPy, which a web server need not have.

>>> file = header_of("<f8", [2, 3]) + bytes(48)
>>> read_header(file[:200], len(file))
Header(dtype='<f8', shape=[2, 3], fortran=False, size=128)
>>> read_header(file[:200], len(file) - 8)
Traceback (most recent call last):
    ...
snakepit.pools.api.npy.NotNpy: the array has 40 bytes, and its shape [2, 3] and dtype <f8 need 48
"""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass
from typing import Any

MAGIC = b"\x93NUMPY"
MOST = 10_000  # bytes of a header's text, as NumPy itself allows
HEAD = len(MAGIC) + 6 + MOST  # bytes that hold every header
ALIGNMENT = 64  # bytes
MOST_DIMENSIONS = 64
MOST_ITEMS = 2**63 - 1  # of one dimension, as in NumPy; Python writes no number of more than 4300 digits as text
MOST_FIELDS, MOST_NESTED = 1000, 8
SIMPLE = re.compile(r"[<>|=]([biufcSUMmV])(\d{1,9})(?:\[[^\]]{1,20}\])?")
CHARACTER = 4  # bytes of one in a text of NumPy
KEYS = {"descr", "fortran_order", "shape"}


class NotNpy(ValueError):
    """The bytes are no .npy file of numbers, times or text."""


@dataclass(frozen=True, slots=True)
class Header:
    dtype: Any  # text, or a list of fields
    shape: list[int]
    fortran: bool
    size: int  # bytes of the header: the items come behind it


def read_header(head: bytes, total: int) -> Header:
    """The header of a file of `total` bytes that begins with `head`. Raises NotNpy."""
    if not head.startswith(MAGIC) or len(head) < 12:
        raise NotNpy("it does not begin as a .npy file")
    wide = head[6] >= 2  # the major version
    if head[6] not in (1, 2, 3):
        raise NotNpy(f"its version {head[6]} of the format is not known")
    start = 12 if wide else 10
    length = int.from_bytes(head[8:start], "little")
    if length > MOST or start + length > len(head):
        raise NotNpy(f"its header has {length} bytes, more than {min(MOST, len(head))}")
    try:
        facts = ast.literal_eval(head[start : start + length].decode("utf-8" if head[6] == 3 else "latin-1").strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        raise NotNpy("its header cannot be read") from None
    if not isinstance(facts, dict) or facts.keys() != KEYS:
        raise NotNpy("its header must have descr, fortran_order and shape")
    shape, fortran = facts["shape"], facts["fortran_order"]
    if not isinstance(shape, tuple) or len(shape) > MOST_DIMENSIONS or any(type(n) is not int or n < 0 for n in shape):
        raise NotNpy("its shape must be a tuple of sizes")
    if any(size > MOST_ITEMS for size in shape):
        raise NotNpy(f"a size in its shape is more than {MOST_ITEMS}")
    if type(fortran) is not bool:
        raise NotNpy("its fortran_order must be True or False")
    dtype, item = _dtype(facts["descr"])
    found, needed = total - start - length, math.prod(shape) * item
    if found != needed:
        shown = dtype if isinstance(dtype, str) else "with fields"
        raise NotNpy(f"the array has {found} bytes, and its shape {list(shape)} and dtype {shown} need {needed}")
    return Header(dtype, list(shape), fortran, start + length)


def _dtype(given: Any, depth: int = 0) -> tuple[Any, int]:
    """A dtype in the form of the tags of arrays, and the bytes of one item."""
    if isinstance(given, str):
        found = SIMPLE.fullmatch(given)
        if found is None:
            hint = ": it holds Python objects" if given[1:2] == "O" or given == "O" else ""
            raise NotNpy(f"the dtype {given[:40]!r} is not allowed{hint}; save numbers, times or text")
        size = int(found[2]) * (CHARACTER if found[1] == "U" else 1)
        if not size:
            raise NotNpy(f"the items of dtype {given!r} have no bytes")
        return given, size
    if not isinstance(given, list) or not 0 < len(given) <= MOST_FIELDS or depth > MOST_NESTED:
        raise NotNpy("its dtype must be text or a list of fields")
    fields, total = [], 0
    for field in given:
        if not isinstance(field, tuple) or len(field) not in (2, 3) or not isinstance(field[0], str) or not field[0]:
            raise NotNpy("a field of its dtype must have a name and a dtype; save a packed array without padding")
        kind, size = _dtype(field[1], depth + 1)
        inner = field[2] if len(field) == 3 else ()
        inner = (inner,) if type(inner) is int else inner
        if not isinstance(inner, tuple) or any(type(n) is not int or not 0 < n <= MOST_ITEMS for n in inner):
            raise NotNpy(f"the shape of a field must be a tuple of sizes from 1 to {MOST_ITEMS}")
        fields.append([field[0], kind, *([list(inner)] if inner else [])])
        total += size * math.prod(inner)
    return fields, total


def header_of(dtype: Any, shape: list[int]) -> bytes:
    """The header of an array in C order; `dtype` as in the tags of arrays."""
    text = repr({"descr": _tuples(dtype), "fortran_order": False, "shape": tuple(shape)})
    version, encoding = (1, "latin-1") if text.isascii() and len(text) < 60_000 else (3, "utf-8")
    data = text.encode(encoding)
    start = 10 if version == 1 else 12
    padding = -(start + len(data) + 1) % ALIGNMENT
    length = (len(data) + padding + 1).to_bytes(start - 8, "little")
    return MAGIC + bytes((version, 0)) + length + data + b" " * padding + b"\n"


def _tuples(dtype: Any) -> Any:
    if isinstance(dtype, str):
        return dtype
    return [(name, _tuples(kind), *(tuple(part) for part in shape)) for name, kind, *shape in dtype]
