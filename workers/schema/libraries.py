"""Optional libraries: whether a value is theirs, and their import when a value needs them.

A value of a library exists only in a process that has imported it, so the check imports nothing.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from snakepit.workers.schema.not_carried import NotCarried


def is_a(value: Any, module: str, *names: str) -> bool:
    found = sys.modules.get(module)
    return any(isinstance(value, getattr(found, name)) for name in names if hasattr(found, name))


def library(name: str, what: str) -> Any:
    """Import a library that a value needs; NotCarried if this process does not have it."""
    if sys.modules.get(name) is None and importlib.util.find_spec(name.partition(".")[0]) is None:
        distribution = {"PIL.Image": "pillow"}.get(name, name)
        fix = f"pip install {distribution}, or use the JSON form with snakepit.Json(arguments)"
        raise NotCarried(f"is {what}, and {distribution} is not installed in this process; {fix}")
    return importlib.import_module(name)


def has_arrow() -> bool:
    return "pyarrow" in sys.modules or importlib.util.find_spec("pyarrow") is not None


def arrow_stream(pyarrow: Any, table: Any) -> Any:
    """A pyarrow table as the bytes of an Arrow IPC stream."""
    sink = pyarrow.BufferOutputStream()
    with library("pyarrow.ipc", "a table").new_stream(sink, table.schema) as writer:
        writer.write(table)
    return sink.getvalue()


def read_arrow(stream: Any, what: str) -> Any:
    """The pyarrow table of an Arrow IPC stream."""
    with library("pyarrow.ipc", what).open_stream(stream) as reader:
        table = reader.read_all()
    table.validate(full=True)  # the bytes may come from outside
    return table
