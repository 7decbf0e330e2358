"""The tags of NumPy: arrays and scalars as their bytes, with dtype and shape. NumPy is imported when one arrives.

     ndarray ──▶ {"$ndarray": [dtype, shape, base64]}      scalar ──▶ {"$scalar": [dtype, base64]}
     masked array ──▶ {"$masked": [ndarray, mask, fill value, true if the mask is hard]}, or [] for np.ma.masked

A dtype is NumPy's text for it, or the list of fields of a structured one. No dtype that holds objects is written or
read. Where NumPy is not installed, an array arrives as nested lists of numbers and a scalar as a number.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import struct
import sys
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Callable
from typing import Any

from snakepit.workers.schema.not_carried import NotCarried

KINDS = frozenset("biufcSUMmV")
NUMBERS = frozenset("biufcmM")  # kinds of which any bytes are valid items
MAX_DIMENSIONS = 64
MOST_EMPTY = 1_000_000
_SIZES = frozenset({int})


def tree(tagger: Any, value: Any, depth: int) -> Any:
    """The tree of an array or scalar; None for other values."""
    numpy: Any = sys.modules.get("numpy")
    generic, ndarray = getattr(numpy, "generic", None), getattr(numpy, "ndarray", None)
    if generic is not None and isinstance(value, generic):
        return _scalar(numpy, value)
    if ndarray is None or not isinstance(value, ndarray):
        return None
    tagger.reserve(value.nbytes)
    if isinstance(value, numpy.ma.MaskedArray):
        return {"$masked": _masked(tagger, numpy, value)}
    return _array(tagger, numpy, value)


def _masked(tagger: Any, numpy: Any, value: Any) -> list[Any]:
    if value is numpy.ma.masked:  # what a masked array has at a masked place; it has no fill value
        return []
    mask = numpy.ma.getmaskarray(value)
    fill = numpy.asarray(value.fill_value, dtype=value.dtype)
    parts: list[Any] = [_array(tagger, numpy, one) for one in (value.data, mask, fill)]
    return [*parts, True] if value.hardmask else parts


def _array(tagger: Any, numpy: Any, value: Any) -> Any:
    dtype = dtype_tree(numpy, value.dtype)
    found = numpy.ascontiguousarray(value)  # also without the subclass, such as a matrix
    # The memory itself as bytes: not every dtype has the buffer protocol. A view of no items is not possible.
    data = found.reshape(-1).view(numpy.uint8) if found.nbytes else b""
    return {"$ndarray": [dtype, list(value.shape), tagger.blob(data, final=not has_numbers(dtype))]}


def _scalar(numpy: Any, value: Any) -> Any:
    made = numpy.asarray(value)
    if made.dtype.kind in "SU" and made[()] != value:
        raise NotCarried("is a NumPy text that ends in NUL characters, which NumPy drops; pass str(...)")
    return {"$scalar": [dtype_tree(numpy, made.dtype), b64encode(made.tobytes()).decode("ascii")]}


def dtype_tree(numpy: Any, dtype: Any) -> Any:
    """A dtype as text, or as the list of its fields. Raises NotCarried."""
    if dtype.hasobject or dtype.kind not in KINDS:
        fix = "pass .tolist(), or convert it with .astype(...)"
        raise NotCarried(f"is an array of dtype {dtype}, which has no form in bytes; {fix}")
    if not dtype.itemsize:
        raise NotCarried(f"is an array of dtype {dtype}, whose items have no bytes; pass .tolist()")
    made = _listed(dtype.descr) if dtype.names else dtype.str
    if dtype.subdtype is not None or read_dtype(numpy, made) != dtype:
        raise NotCarried(f"is an array of the dtype {dtype}, which NumPy cannot write as text; pass a dict of arrays")
    return made


def has_numbers(dtype: Any) -> bool:
    """Whether a dtype's tree names numbers or times: their bytes may change while they are read."""
    return isinstance(dtype, str) and dtype[1:2] in NUMBERS


def _listed(description: Any) -> Any:
    return [_listed(item) for item in description] if isinstance(description, list | tuple) else description


def read_dtype(numpy: Any, content: Any, depth: int = 0) -> Any:
    """A dtype from its tree. Raises ValueError for one that could hold objects."""
    if isinstance(content, list):
        if depth > 8 or len(content) > 1000:
            raise ValueError("the dtype has too many fields")
        fields = [
            (name, read_dtype(numpy, kind, depth + 1), *(tuple(part) for part in shape))
            for name, kind, *shape in content
        ]
        dtype = numpy.dtype(fields)
    elif isinstance(content, str) and len(content) < 64 and content[1:2] in KINDS and content[0] in "<>|=":
        dtype = numpy.dtype(content)
    else:
        raise ValueError(f"{str(content)[:40]!r} is no dtype")
    if dtype.hasobject:
        raise ValueError("the dtype holds objects")
    return dtype


@functools.lru_cache(maxsize=1)
def _library() -> Any:
    """NumPy, or None where it is not installed."""
    if "numpy" not in sys.modules and importlib.util.find_spec("numpy") is None:
        return None
    return importlib.import_module("numpy")


def _restore_array(restorer: Any, content: Any) -> Any:
    dtype_text, shape, text, *order = content  # "F" of a .npy file whose first index varies fastest
    data = restorer.blob(text, final=not has_numbers(dtype_text))
    if not (
        isinstance(shape, list)
        and len(shape) <= MAX_DIMENSIONS
        and _SIZES.issuperset(map(type, shape))
        and min(shape, default=0) >= 0
    ):
        raise ValueError("the shape must be a list of sizes")
    if order not in ([], ["F"]):
        raise ValueError("the order of an array can only be F")
    numpy = _library()
    if numpy is None:
        if order:
            raise NotCarried(
                "is an array in Fortran's order, and NumPy is not installed in this process; pip install numpy"
            )
        return _nested(_unpacked(dtype_text, data), shape)
    dtype = read_dtype(numpy, dtype_text)
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes do not fit the shape {shape}")
    made = numpy.frombuffer(data, dtype).reshape(shape, order="F" if order else "C")
    return made if made.flags.writeable else made.copy()  # the receiver may write to it


def _restore_scalar(restorer: Any, content: Any) -> Any:
    dtype_text, text = content
    numpy = _library()
    if numpy is None:
        return _unpacked(dtype_text, a2b_base64(text, strict_mode=True))[0]
    return _restore_array(restorer, [dtype_text, [], text])[()]


def _restore_masked(restorer: Any, content: Any) -> Any:
    numpy = _library()
    if numpy is None:
        raise NotCarried("is a masked array, and NumPy is not installed in this process; pip install numpy")
    if content == []:
        return numpy.ma.masked
    data, mask, fill, *hard = content
    if hard not in ([], [True]):
        raise ValueError("a hard mask can only be true")
    data, mask, fill = map(restorer.value, (data, mask, fill))
    return numpy.ma.array(data, mask=mask, fill_value=fill[()], hard_mask=bool(hard))


# Without NumPy: numbers and truth values of the usual widths.

_STRUCT = {"b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
           "f2": "e", "f4": "f", "f8": "d"}  # fmt: skip


def _unpacked(dtype: Any, data: bytes) -> list[Any]:
    code = _STRUCT.get(dtype[1:]) if isinstance(dtype, str) else None
    if code is None:
        raise NotCarried(f"is an array of dtype {dtype}, and NumPy is not installed in this process; pip install numpy")
    order = ">" if dtype[0] == ">" else "<"
    return [item for (item,) in struct.iter_unpack(f"{order}{code}", data)]


def _nested(flat: list[Any], shape: list[int]) -> Any:
    if math.prod(shape) != len(flat):
        raise ValueError("the bytes do not fit the shape")
    if not flat and math.prod(size for size in shape if size) > MOST_EMPTY:  # no bytes bound the lists of such a shape
        raise ValueError(f"a shape without items has at most {MOST_EMPTY:,} lists where NumPy is not installed")
    if not shape:
        return flat[0]
    for size in reversed(shape[1:]):
        flat = [flat[at : at + size] for at in range(0, len(flat), size)] if size else [[]] * math.prod(shape[:-1])
    return flat


RESTORE: dict[str, Callable[[Any, Any], Any]] = {
    "$ndarray": _restore_array,
    "$scalar": _restore_scalar,
    "$masked": _restore_masked,
}
