"""The JSON form of Polars and pyarrow tables and of Pillow images, without importing these libraries.

DataFrame, Table ──▶ {"columns": [...], "data": [row, ...]}     Series ──▶ {"data": [...], "name": ...}
pyarrow Array ─────▶ [...]                                      Image ───▶ {"$image": ["png", base64]}
"""

from __future__ import annotations

import math
from base64 import b64encode
from typing import Any

from snakepit.workers.schema import tagged_frames
from snakepit.workers.schema.libraries import is_a


class Tag(dict[str, Any]):
    """An object of the JSON form that is a tag. A dict of the user that looks like one is escaped; a Tag is not."""


def count(value: Any) -> int:
    """The elements of a table or image, 1 at least; 0 for other values."""
    if is_a(value, "polars", "DataFrame", "Series") or is_a(value, "pyarrow", "Table", "RecordBatch"):
        return max(1, math.prod(int(size) for size in value.shape))
    if is_a(value, "pyarrow", "Array", "ChunkedArray"):
        return max(1, len(value))
    return int(is_a(value, "PIL.Image", "Image"))


def plain(value: Any) -> Any:
    """Convert a table one step towards types that JSON has; None for other values."""
    module = type(value).__module__.partition(".")[0]
    if module == "polars":
        if is_a(value, "polars", "DataFrame"):
            return {"columns": value.columns, "data": value.rows()}
        if is_a(value, "polars", "Series"):
            return {"data": value.to_list(), "name": value.name}
    elif module == "pyarrow":
        if is_a(value, "pyarrow", "Table", "RecordBatch"):
            columns = [column.to_pylist() for column in value.columns]
            rows = list(zip(*columns, strict=True)) if columns else []
            return {"columns": value.schema.names, "data": rows}
        if is_a(value, "pyarrow", "Array", "ChunkedArray"):
            return value.to_pylist()
    elif module == "PIL" and is_a(value, "PIL.Image", "Image"):
        name, data = tagged_frames.image_file(value)
        return Tag({"$image": [name, b64encode(data).decode("ascii")]})
    return None
