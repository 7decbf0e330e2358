"""Makes the array of `Context.buffer`: in a memory file of the result, where its caller takes descriptors."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Sequence
from typing import Any

from snakepit.workers.buffers import FILE_FROM, MOST_FILES, BufferTooLarge
from snakepit.workers.call import AssignedCall
from snakepit.workers.memory_file import PlacedFile


def new_array(call: AssignedCall, shape: int | Sequence[int], dtype: Any) -> Any:
    """An array of zeros. Raises BufferTooLarge, ValueError for a dtype of objects, ImportError without NumPy."""
    if importlib.util.find_spec("numpy") is None:
        raise ImportError("ctx.buffer makes a NumPy array, and NumPy is not installed here; pip install numpy")
    numpy = importlib.import_module("numpy")
    kind = numpy.dtype(dtype)
    if kind.hasobject:
        raise ValueError(f"ctx.buffer: an array of dtype {kind} holds objects, which no other process can read")
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    size = math.prod(sizes) * kind.itemsize
    if call.max_buffer and size + sum(one.size for one in call.placed) > call.max_buffer:
        raise BufferTooLarge(size, call.max_buffer)
    if (
        not (call.buffer_socket and call.max_buffer and call.typed)
        or size < FILE_FROM
        or len(call.placed) >= MOST_FILES // 2
    ):
        return numpy.zeros(sizes, kind)
    try:
        file = PlacedFile(size)
    except OSError:  # no memory or no descriptor for a file
        return numpy.zeros(sizes, kind)
    call.placed.append(file)
    return numpy.frombuffer(file.memory, kind, count=math.prod(sizes)).reshape(sizes)
