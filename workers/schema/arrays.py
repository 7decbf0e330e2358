"""The JSON form of arrays, NumPy scalars, frames and series, without importing NumPy or pandas.

     DataFrame ──▶ to_dict("tight")                     Series ──▶ {"index", "index_names", "data", "name"}
     datetime64 ─▶ ISO 8601 text, whatever its unit     timedelta64 ─▶ seconds, whatever its unit
     records ────▶ {field: value}                       masked, NaT, NA ─▶ null

A frame and a series keep each row: as dicts keyed by label, rows with the same label would overwrite each other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date, datetime, time
from typing import Any

from snakepit.workers.schema.not_carried import NotCarried

# Shorter units for longer ones: readers of ISO 8601 expect a day in a date, and a second in a time of day.
_FINER = {"Y": "D", "M": "D", "W": "D", "h": "s", "m": "s"}

# Seconds of one unit, as a fraction.
_SECONDS = {
    "W": (604_800, 1),
    "D": (86_400, 1),
    "h": (3_600, 1),
    "m": (60, 1),
    "s": (1, 1),
    **{unit: (1, 1000**power) for power, unit in enumerate(("ms", "us", "ns", "ps", "fs", "as"), 1)},
}


class LossyResult(NotCarried):
    """The result has no JSON form that keeps all of it."""


def moment(value: datetime | date | time) -> str | None:
    """ISO 8601 text; None for pandas' NaT, which is a datetime that differs from itself."""
    return value.isoformat() if value == value else None


def has_form(value: Any) -> bool:
    """Whether `plain` converts the value."""
    return _form_of(value) is not None


def plain(value: Any) -> Any:
    """Convert a value that has a form one step towards types that JSON has. Raises LossyResult."""
    form = _form_of(value)
    return value if form is None else form(value)


def _form_of(value: Any) -> Callable[[Any], Any] | None:
    if isinstance(value, type):
        return None
    if isinstance(value, _classes("numpy", "ndarray", "generic")):
        return _array
    if isinstance(value, _classes("pandas", "DataFrame")):
        return _frame
    if isinstance(value, _classes("pandas", "Series")):
        return _series
    return _missing if type(value).__name__ == "NAType" else None


def _classes(module: str, *names: str) -> tuple[type, ...]:
    """Classes of a module; none where it is not imported: then no value of it exists."""
    found = sys.modules.get(module)
    # A module that another thread is just importing may have only some of its names.
    return tuple(getattr(found, name) for name in names if hasattr(found, name))


def _missing(_: object) -> None:
    return None


def _frame(frame: Any) -> Any:
    return frame.to_dict(orient="tight")


def _series(series: Any) -> dict[str, Any]:
    index = series.index
    names = list(getattr(index, "names", [None]))
    return {"index": index.tolist(), "index_names": names, "data": series.tolist(), "name": series.name}


def _array(array: Any) -> Any:
    dtype = array.dtype
    if dtype.names:
        return {name: array[name] for name in dtype.names} if not array.ndim else list(array)
    if dtype.kind == "M":
        return _moments(array)
    if dtype.kind == "m":
        return _durations(array)
    if dtype.char in _ROUNDED:
        return _long(array)
    return array.tolist()


def _moments(array: Any) -> Any:
    numpy = sys.modules["numpy"]
    unit = numpy.datetime_data(array.dtype)[0]
    found = numpy.ma.getdata(array)
    finer = found.astype(f"datetime64[{_FINER[unit]}]") if unit in _FINER else found
    if not numpy.array_equal(finer.astype(found.dtype), found, equal_nan=True):
        raise LossyResult(f"is a datetime64[{unit}] outside the range of ISO 8601 text; return integers")
    return _listed(numpy.datetime_as_string(finer), numpy.isnat(found) | numpy.ma.getmaskarray(array))


def _durations(array: Any) -> Any:
    numpy = sys.modules["numpy"]
    unit, count = numpy.datetime_data(array.dtype)
    found = numpy.ma.getdata(array)
    missing = numpy.isnat(found) | numpy.ma.getmaskarray(array)
    if unit in ("Y", "M", "generic") and not missing.all():
        length = "has no unit" if unit == "generic" else f"is in {unit} (years or months), which have no fixed length"
        raise LossyResult(f"is a timedelta64 that {length}, so that it is no number of seconds; return integers")
    whole = found.astype("int64").astype(object)  # Python's integers: one rounding, in the division
    numerator, denominator = _SECONDS.get(unit, (1, 1))
    return _listed(whole * (count * numerator) / denominator, missing)


# Types longer than Python's numbers: `tolist()` returns their elements unchanged.
_ROUNDED = {"g": "float64", "G": "complex128"}


def _long(array: Any) -> Any:
    numpy = sys.modules["numpy"]
    rounded = array.astype(_ROUNDED[array.dtype.char])
    found = numpy.ma.getmaskarray(array) | (rounded == array) | numpy.isnan(array)
    if not numpy.all(found):
        raise LossyResult(f"is a {array.dtype} with more digits than a 64-bit float; convert it to float64 or to text")
    return rounded.tolist()


def _listed(values: Any, missing: Any) -> Any:
    """Nested lists, with None where a value is missing."""
    listed = sys.modules["numpy"].array(values, dtype=object)
    listed[missing] = None
    return listed.tolist()
