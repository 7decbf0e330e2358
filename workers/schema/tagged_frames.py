"""The tags of Polars, pyarrow and Pillow. A library is imported when a value of it arrives.

     DataFrame, Series, Table, Array ──▶ {"$frame": [kind, {}, base64 of an Arrow IPC stream]}
     Image ──▶ {"$image": ["png" or "tiff", base64]}

A table of Polars and an image are restored before they are sent, and compared: what would not arrive as it is raises
NotCarried.
"""

from __future__ import annotations

import io
import sys
from typing import Any

from snakepit.workers.schema.libraries import arrow_stream, is_a, library, read_arrow
from snakepit.workers.schema.not_carried import NotCarried

FORMATS = ("png", "tiff")


def tree(tagger: Any, value: Any, depth: int) -> Any:
    """The tree of a table or an image; None for other values."""
    if is_a(value, "polars", "DataFrame", "Series"):
        return _polars(tagger, value)
    if is_a(value, "pyarrow", "Table", "RecordBatch", "Array", "ChunkedArray"):
        return _arrow(tagger, value)
    if is_a(value, "PIL.Image", "Image"):
        name, data = image_file(value)
        return {"$image": [name, tagger.blob(data)]}
    if is_a(value, "polars", "LazyFrame"):
        raise NotCarried("is a Polars LazyFrame, which has no data yet; pass frame.collect()")
    return None


# Polars and pyarrow


def _polars(tagger: Any, value: Any) -> Any:
    polars = sys.modules["polars"]
    kind = "DataFrame" if isinstance(value, polars.DataFrame) else "Series"
    if type(value) is not getattr(polars, kind):
        raise NotCarried(f"is a {type(value).__name__}, a subclass; convert it with polars.{kind}(...)")
    frame = value if kind == "DataFrame" else value.to_frame()
    sink = io.BytesIO()
    try:
        frame.write_ipc_stream(sink)
        back = polars.read_ipc_stream(io.BytesIO(sink.getvalue()))
        same = back.schema == frame.schema and back.equals(frame)
    except BaseException as error:  # Polars raises a PanicException for a column of objects, which is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        reason = f"{type(error).__name__}: {error}"[:200]
        raise NotCarried(f"is a Polars {kind} that Arrow cannot hold ({reason}); cast its columns") from None
    if not same:
        raise NotCarried(f"is a Polars {kind} that would not arrive as it is; cast its columns")
    return {"$frame": [f"polars.{kind}", {}, tagger.blob(sink.getbuffer())]}


def _arrow(tagger: Any, value: Any) -> Any:
    pyarrow = sys.modules["pyarrow"]
    if isinstance(value, pyarrow.Table):
        kind, table = "Table", value
    elif isinstance(value, pyarrow.RecordBatch):
        kind, table = "RecordBatch", pyarrow.Table.from_batches([value])
    else:
        kind = "ChunkedArray" if isinstance(value, pyarrow.ChunkedArray) else "Array"
        table = pyarrow.table([value], names=["0"])
    return {"$frame": [f"pyarrow.{kind}", {}, tagger.blob(arrow_stream(pyarrow, table))]}


def _arrow_of(name: str, table: Any) -> Any:
    pyarrow = sys.modules["pyarrow"]
    if name == "Table":
        return table
    if name == "RecordBatch":
        batches = table.combine_chunks().to_batches()
        return batches[0] if batches else pyarrow.RecordBatch.from_pylist([], schema=table.schema)
    column = table.column(0)
    if name == "ChunkedArray":
        return column
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def restore(restorer: Any, kind: str, facts: Any, data: Any) -> Any:
    """The table of a $frame."""
    owner, _, name = kind.partition(".")
    stream = restorer.blob(data)
    if owner == "polars" and name in ("DataFrame", "Series"):
        frame = library("polars", f"a {kind}").read_ipc_stream(io.BytesIO(stream))
        return frame if name == "DataFrame" else frame.to_series(0)
    if owner == "pyarrow" and name in ("Table", "RecordBatch", "Array", "ChunkedArray"):
        return _arrow_of(name, read_arrow(stream, f"a {kind}"))
    raise ValueError(f"{kind[:40]!r} is no kind of table")


# Pillow


def image_file(value: Any) -> tuple[str, Any]:
    """An image as a file of the first format that keeps it: the name of the format, and the bytes."""
    for name in FORMATS:
        sink = io.BytesIO()
        try:
            value.save(sink, name)
            back = _open(sink.getvalue(), name)
        except Exception:  # the format does not have this mode
            continue
        if _same_image(value, back):
            return name, sink.getbuffer()
    raise NotCarried(f"is an image of mode {value.mode}, which neither PNG nor TIFF keeps; convert it to RGB or L")


def _same_image(one: Any, two: Any) -> bool:
    if (one.mode, one.size) != (two.mode, two.size) or one.tobytes() != two.tobytes():
        return False
    if one.info.get("transparency") != two.info.get("transparency"):
        return False
    return one.mode not in ("P", "PA") or bool(one.convert("RGBA").tobytes() == two.convert("RGBA").tobytes())


def _open(data: bytes, name: str) -> Any:
    if name not in FORMATS:
        raise ValueError(f"{str(name)[:40]!r} is no format of an image")
    opened = library("PIL.Image", "an image").open(io.BytesIO(data), formats=[name.upper()])
    return opened.copy()  # loads it, and is no longer of the format's class


def restore_image(restorer: Any, content: Any) -> Any:
    """The image of a $image."""
    name, text = content
    return _open(restorer.blob(text), name)
