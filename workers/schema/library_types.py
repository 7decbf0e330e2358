"""Annotations of other libraries: pydantic models, msgspec structs, arrays, tables and images.

An annotation of a library exists only where the library is imported, so this imports none by itself. A Python client
sends the value; a JSON caller sends its JSON form, from which the value is made.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

from snakepit.workers.schema.checker import Checker, Mismatch, Schema, describe, number_of, read_base64, refuse
from snakepit.workers.schema.libraries import is_a, library


def checker_of(annotation: Any, definitions: dict[str, Schema]) -> Checker | None:
    """The checker of a library's class; None for other annotations."""
    if not isinstance(annotation, type):
        return None
    for module, base, make in KINDS:
        owner = getattr(sys.modules.get(module), base, None)
        if isinstance(owner, type) and issubclass(annotation, owner):
            return make(annotation, definitions)
    return None


def adapted(annotation: Any, definitions: dict[str, Schema]) -> Checker:
    """An annotation that pydantic checks as a whole."""
    pydantic: Any = sys.modules["pydantic"]
    adapter = pydantic.TypeAdapter(annotation)
    return _by_pydantic("a value that fits", adapter.validate_python, adapter.json_schema, "Value", definitions)


# pydantic and msgspec


def _model(kind: Any, definitions: dict[str, Schema]) -> Checker:
    return _by_pydantic("an object", kind.model_validate, kind.model_json_schema, kind.__name__, definitions)


def _by_pydantic(
    words: str, validate: Callable[[Any], Any], schema_of: Any, name: str, definitions: dict[str, Schema]
) -> Checker:
    pydantic: Any = sys.modules["pydantic"]

    def check(value: Any) -> Any:
        try:
            return validate(value)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
            raise Mismatch(f"is not valid: {first['msg']}", path) from None

    try:
        schema = schema_of(ref_template=f"#/$defs/{name}.{{model}}")
    except Exception:  # a field of a type that has no JSON Schema: the check is pydantic's all the same
        schema = {}
    definitions.update({f"{name}.{part}": found for part, found in schema.pop("$defs", {}).items()})
    return Checker(words, schema, check)


def _struct(kind: Any, definitions: dict[str, Schema]) -> Checker:
    msgspec: Any = sys.modules["msgspec"]

    def check(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            message, _, place = str(error).partition(" - at `$")
            raise Mismatch(f"is not valid: {message}", place.rstrip("`")) from None

    try:
        (schema,), parts = library("msgspec.json", "a struct").schema_components(
            [kind], ref_template=f"#/$defs/{kind.__name__}.{{name}}"
        )
    except TypeError:  # a field of a type that has no JSON Schema
        schema, parts = {"type": "object"}, {}
    definitions.update({f"{kind.__name__}.{part}": found for part, found in parts.items()})
    return Checker("an object", schema, check)


# NumPy


def array_checker(dtype: Any = None) -> Checker:
    """A NumPy array, of one dtype if it is given. A JSON caller sends nested lists."""
    words = "an array" if dtype is None else f"an array of {dtype}"

    def check(value: Any) -> Any:
        numpy: Any = sys.modules["numpy"]
        if not isinstance(value, numpy.ndarray):
            if type(value) not in (list, tuple):
                raise refuse(words, value)
            try:
                value = numpy.array(value, dtype=dtype)
            except (ValueError, TypeError, OverflowError) as error:
                raise Mismatch(f"must be {words}: {error}") from None
            if value.dtype.hasobject:
                raise Mismatch(f"must be {words} with one type and length of its parts")
        if dtype is None or value.dtype == dtype:
            return value
        if not numpy.can_cast(value.dtype, dtype, "same_kind"):
            raise Mismatch(f"must be {words}, not of {value.dtype}")
        return value.astype(dtype)

    return Checker(words, {"type": "array"}, check)


def _array(kind: Any, definitions: dict[str, Schema]) -> Checker:
    return array_checker()


def _scalar(kind: Any, definitions: dict[str, Schema]) -> Checker:
    if kind.__name__ in _TIMES:
        return _numpy_time(kind)
    words = f"a number of type {kind.__name__}"

    def check(value: Any) -> Any:
        plain = number_of(value)
        if type(plain) not in (bool, int, float, complex, str):
            raise refuse(words, value)
        try:
            made = kind(plain)
        except (ValueError, TypeError, OverflowError) as error:
            raise Mismatch(f"must be {words}: {error}") from None
        if number_of(made) != plain and plain == plain and not isinstance(plain, float):
            raise Mismatch(f"must be {words}, not {plain!r}"[:120])
        return made

    return Checker(words, {}, check)


_TIMES: dict[str, tuple[str, Schema]] = {
    "datetime64": ("a date, or date and time (ISO 8601)", {"type": ["string", "null"]}),
    "timedelta64": ("a number of seconds", {"type": ["number", "null"]}),
}


def _numpy_time(kind: Any) -> Checker:
    """A datetime64 from text and a timedelta64 from seconds; null is NaT."""
    words, schema = _TIMES[kind.__name__]

    def check(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        given = str if kind.__name__ == "datetime64" else (int, float)
        if value is not None and (not isinstance(value, given) or isinstance(value, bool)):
            raise refuse(words, value)
        try:
            if isinstance(value, float):
                return kind(value) if value != value else kind(round(value * 1e9), "ns")
            return kind("NaT") if value is None else kind(value, "s") if isinstance(value, int) else kind(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise Mismatch(f"must be {words}, not {str(value)[:80]!r}: {error}"[:200]) from None

    return Checker(words, schema, check)


# Tables and images


def _table(kind: Any, definitions: dict[str, Schema]) -> Checker:
    words = f"a {kind.__module__.partition('.')[0]} {kind.__name__}, or its JSON form"

    def check(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        try:
            return _made(kind, value)
        except Exception as error:  # the library raises many types for data that does not fit
            raise Mismatch(f"must be {words}, not {describe(value)} ({type(error).__name__}: {error})"[:300]) from None

    return Checker(words, {"type": ["object", "array"]}, check)


def _made(kind: Any, value: Any) -> Any:
    """A table from its JSON form: columns and rows, or a list of objects; a series from its data."""
    owner = kind.__module__.partition(".")[0].lstrip("_")
    module = library(owner, "a table")
    if is_a(value, "pyarrow", "Table"):  # of a caller that sent an Arrow stream
        return _from_arrow(kind, module, value)
    if isinstance(value, dict) and "data" in value:
        if owner == "pandas" and "index_names" in value and "columns" in value:
            return kind.from_dict(value, orient="tight")
        if kind.__name__ == "Series":
            given = {"index": value["index"]} if owner == "pandas" and "index" in value else {}
            data = (value["data"],) if owner == "pandas" else (value.get("name") or "", value["data"])
            return kind(*data, **given, **({"name": value.get("name")} if owner == "pandas" else {}))
        rows = [dict(zip(value["columns"], row, strict=True)) for row in value["data"]]
        if not rows:
            rows, value = [], {name: [] for name in value["columns"]}
    elif isinstance(value, list):
        rows = value
    elif not isinstance(value, dict):
        raise ValueError("it is no table")
    else:
        rows = []
    if kind.__name__ == "Series":
        return kind(value) if owner == "pandas" else kind("", value)
    if owner == "pyarrow":
        return module.Table.from_pylist(rows) if rows else module.table(value)
    return kind(rows or value)


def _from_arrow(kind: Any, module: Any, table: Any) -> Any:
    if kind.__name__ == "Series":
        if table.num_columns != 1:
            raise ValueError(f"it has {table.num_columns} columns")
        return _from_arrow(module.DataFrame, module, table)[table.column_names[0]]
    return table.to_pandas() if module.__name__ == "pandas" else module.from_arrow(table)


def _image(kind: Any, definitions: dict[str, Schema]) -> Checker:
    def check(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        value = read_base64("an image, or the bytes of its file", value)
        try:
            opened = library("PIL.Image", "an image").open(io.BytesIO(value))
            opened.load()
        except Exception as error:  # Pillow raises many types for a file that it cannot read
            raise Mismatch(f"is no image that can be read ({type(error).__name__}: {error})"[:200]) from None
        return opened

    return Checker("an image", {"type": "string", "contentEncoding": "base64"}, check)


KINDS: tuple[tuple[str, str, Callable[[Any, dict[str, Schema]], Checker]], ...] = (
    ("pydantic", "BaseModel", _model),
    ("msgspec", "Struct", _struct),
    ("numpy", "ndarray", _array),
    ("numpy", "generic", _scalar),
    ("pandas", "DataFrame", _table),
    ("pandas", "Series", _table),
    ("polars", "DataFrame", _table),
    ("polars", "Series", _table),
    ("pyarrow", "Table", _table),
    ("PIL.Image", "Image", _image),
)
