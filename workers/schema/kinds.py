"""The closed list of tags for the types of the standard library, and the dispatch to those of other libraries.

     type ──tree──▶ {"$tag": content} ──RESTORE[tag]──▶ value

A subclass without a form of its own arrives as its base type. Types that are data with names (a dataclass, a pydantic
model, a msgspec struct) arrive as a dict.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections import deque
from collections.abc import Callable, ItemsView, KeysView, Mapping, Set, ValuesView
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from snakepit.workers.buffers import BufferTooLarge
from snakepit.workers.schema import tagged_arrays, tagged_frames, tagged_pandas
from snakepit.workers.schema.not_carried import NotCarried
from snakepit.workers.schema.zones import restore_zone, zone_of

if TYPE_CHECKING:
    from snakepit.workers.schema.typed import Restorer, Tagger

MAX_BITS = 14_283  # of an integer: Python converts at most 4,300 digits to text
MAX_HEX = 1 << 24  # characters of a longer one


def shown(value: Any) -> str:
    """A short text of a key, for a path."""
    try:
        return repr(value)[:40]
    except Exception:  # code of the user's own type
        return type(value).__name__


def type_name(kind: type) -> str:
    """The name of a type, with its module unless it is built in.

    >>> type_name(int), type_name(Decimal)
    ('int', 'decimal.Decimal')
    """
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


# To tags


def tree(tagger: Tagger, value: Any, depth: int) -> Any:
    """The tree of a value that is no plain dict, list or tuple. Raises NotCarried."""
    try:
        made = _of_library(tagger, value, depth)
        if made is not None:
            return made
        for kinds, step in STEPS:
            if isinstance(value, kinds):
                return step(tagger, value, depth)
        found = as_data(value)
    except (NotCarried, RecursionError, BufferTooLarge):
        raise
    except Exception as error:  # code of the object itself
        if type(error).__name__ == "ValueTooLarge":
            raise
        reason = f"{type(error).__name__}: {error}"[:200]
        raise NotCarried(f"is a {type_name(type(value))} that failed while it was converted ({reason})") from None
    if found is value or found is None:
        raise NotCarried(f"is a {type_name(type(value))}, which has no form; {_fix(value)}")
    return tagger.tree(found, depth)


def _fix(value: Any) -> str:
    if isinstance(value, type) or callable(value):
        return "pass its name"
    if hasattr(value, "__next__") or hasattr(value, "__anext__"):
        return "pass a list, or yield the items as chunks"
    return "pass a dict of its data (docs/reference/values.md)"


def _of_library(tagger: Tagger, value: Any, depth: int) -> Any:
    """The tree of a value of NumPy, pandas, Polars, pyarrow or Pillow; None for other values."""
    if isinstance(value, type):
        return None
    for module in (tagged_arrays, tagged_pandas, tagged_frames):
        made = module.tree(tagger, value, depth)
        if made is not None:
            return made
    return None


def as_data(value: Any) -> Any:
    """The data of an object with named fields, or of one that offers its data by a method; None if there is none."""
    if isinstance(value, type):
        return None
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    for name in ("__struct_fields__", "__attrs_attrs__"):  # msgspec, attrs
        found = getattr(type(value), name, None)
        if found is not None:
            names = [getattr(field, "name", field) for field in found]
            return {name: getattr(value, name) for name in names}
    if is_file(value):
        return read_file(value)
    for name in ("model_dump", "tolist", "_asdict", "to_dict"):
        method = getattr(value, name, None)
        if callable(method):
            return method()
    return None


def is_file(value: Any) -> bool:
    """Whether it is a file object of Django, such as an upload or the value of a FileField."""
    module = sys.modules.get("django.core.files.base")
    return module is not None and isinstance(value, module.File)


def read_file(file: Any) -> bytes:
    """All of a file, from its beginning; its position stays the same, and a closed one is closed again."""
    if file.closed:
        with file.open("rb") as opened:
            return _as_bytes(opened.read())
    at = file.seek(0, os.SEEK_CUR) if file.seekable() else 0
    if at:
        file.seek(0)
    try:
        return _as_bytes(file.read())
    finally:
        if file.seekable():
            file.seek(at)


def _as_bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _bytes(tagger: Tagger, value: Any, depth: int) -> Any:
    size = value.nbytes if isinstance(value, memoryview) else len(value)
    tagger.reserve(size)
    return {"$bytes": tagger.blob(value, final=False)}


def _datetime(tagger: Tagger, value: datetime, depth: int) -> Any:
    if type(value).__module__.partition(".")[0] == "pandas":  # nanoseconds, and NaT
        return tagged_pandas.moment_tree(value)
    zone = zone_of(value.tzinfo, value.utcoffset())
    text = value.replace(tzinfo=None).isoformat()
    if zone is None and not value.fold:
        return {"$datetime": text}
    return {"$datetime": [text, zone, value.fold]}


def _time(tagger: Tagger, value: time, depth: int) -> Any:
    text = value.replace(tzinfo=None).isoformat()
    zone = zone_of(value.tzinfo, value.utcoffset())
    return {"$time": [text, zone, value.fold]} if value.fold or zone is not None else {"$time": text}


def _timedelta(tagger: Tagger, value: timedelta, depth: int) -> Any:
    if type(value).__module__.partition(".")[0] == "pandas":
        return tagged_pandas.duration_tree(value)
    return {"$timedelta": [value.days, value.seconds, value.microseconds]}


def _path(tagger: Tagger, value: pathlib.PurePath, depth: int) -> Any:
    if isinstance(value, pathlib.Path):
        return {"$path": str(value)}
    return {"$purepath": ["windows" if isinstance(value, pathlib.PureWindowsPath) else "posix", str(value)]}


def _set(tagger: Tagger, value: Set[Any], depth: int) -> Any:
    tag = "$frozenset" if isinstance(value, frozenset) else "$set"
    return {tag: tagger.items(list(value), depth + 2)}


def _number(tagger: Tagger, value: Any, depth: int) -> Any:
    """A subclass of a number or of str as its base type. Its own conversions are not asked: they may be anything."""
    if isinstance(value, int):
        return tagger.tree(int.__int__(value), depth)
    return tagger.tree(float.__float__(value) if isinstance(value, float) else str.__str__(value), depth)


def _complex(tagger: Tagger, value: complex, depth: int) -> Any:
    return {"$complex": [tagger.tree(value.real, depth + 2), tagger.tree(value.imag, depth + 2)]}


STEPS: tuple[tuple[Any, Callable[[Any, Any, int], Any]], ...] = (
    ((bytes, bytearray, memoryview), _bytes),
    (Enum, lambda tagger, value, depth: tagger.tree(value.value, depth)),
    ((int, float, str), _number),
    (complex, _complex),
    (datetime, _datetime),
    (date, lambda tagger, value, depth: {"$date": value.isoformat()}),
    (time, _time),
    (timedelta, _timedelta),
    (UUID, lambda tagger, value, depth: {"$uuid": str(value)}),
    (Decimal, lambda tagger, value, depth: {"$decimal": str(value)}),
    (pathlib.PurePath, _path),
    (tuple, lambda tagger, value, depth: {"$tuple": tagger.items(tuple(value), depth + 2)}),
    ((set, frozenset), _set),
    (deque, lambda tagger, value, depth: {"$deque": [tagger.items(list(value), depth + 3), value.maxlen]}),
    (range, lambda tagger, value, depth: {"$range": [value.start, value.stop, value.step]}),
    ((KeysView, ValuesView, ItemsView, list), lambda tagger, value, depth: tagger.items(list(value), depth + 1)),
    (Mapping, lambda tagger, value, depth: tagger.mapping(dict(value), depth)),
    (Set, _set),
)


# From tags


def _text(content: Any) -> str:
    if type(content) is not str:
        raise ValueError("it must be text")
    return content


def _restore_moment(kind: Any) -> Callable[[Restorer, Any], Any]:
    def restore(restorer: Restorer, content: Any) -> Any:
        if type(content) is str:
            return kind.fromisoformat(content)
        text, zone, fold = content
        return kind.fromisoformat(_text(text)).replace(tzinfo=restore_zone(zone), fold=fold)

    return restore


def _restore_float(restorer: Restorer, content: Any) -> float:
    if content not in ("nan", "inf", "-inf"):
        raise ValueError("it must be nan, inf or -inf")
    return float(content)


def _restore_int(restorer: Restorer, content: Any) -> int:
    if len(_text(content)) > MAX_HEX:
        raise ValueError("it is too long")
    return int(content, 16)


def _restore_dict(restorer: Restorer, content: Any) -> dict[Any, Any]:
    made = {}
    for pair in content:
        key, item = pair
        name = restorer.value(key)
        if name in made:
            raise ValueError(f"the key {shown(name)} is there twice")
        made[name] = restorer.at(f"[{shown(name)}]", item)
    return made


def _restore_timedelta(restorer: Restorer, content: Any) -> timedelta:
    days, seconds, microseconds = content
    return timedelta(days=days, seconds=seconds, microseconds=microseconds)


def _restore_purepath(restorer: Restorer, content: Any) -> pathlib.PurePath:
    kind, text = content
    flavours = {"windows": pathlib.PureWindowsPath, "posix": pathlib.PurePosixPath}
    return flavours[kind](_text(text))


def _restore_deque(restorer: Restorer, content: Any) -> deque[Any]:
    items, longest = content
    return deque(restorer.items(items), longest)


def _restore_complex(restorer: Restorer, content: Any) -> complex:
    real, imaginary = restorer.items(content)
    return complex(real, imaginary)


def _restore_range(restorer: Restorer, content: Any) -> range:
    start, stop, step = content
    return range(start, stop, step)


def _restore_frame(restorer: Restorer, content: Any) -> Any:
    kind, facts, data = content
    owner = tagged_pandas if _text(kind).startswith("pandas.") else tagged_frames
    return owner.restore(restorer, kind, facts, data)


RESTORE: dict[str, Callable[[Any, Any], Any]] = {
    "$float": _restore_float,
    "$int": _restore_int,
    "$complex": _restore_complex,
    "$bytes": lambda restorer, content: bytes(restorer.blob(content, final=False)),
    "$tuple": lambda restorer, content: tuple(restorer.items(content)),
    "$set": lambda restorer, content: set(restorer.items(content)),
    "$frozenset": lambda restorer, content: frozenset(restorer.items(content)),
    "$deque": _restore_deque,
    "$range": _restore_range,
    "$dict": _restore_dict,
    "$datetime": _restore_moment(datetime),
    "$time": _restore_moment(time),
    "$date": lambda restorer, content: date.fromisoformat(_text(content)),
    "$timedelta": _restore_timedelta,
    "$uuid": lambda restorer, content: UUID(_text(content)),
    "$decimal": lambda restorer, content: Decimal(_text(content)),
    "$path": lambda restorer, content: pathlib.Path(_text(content)),
    "$purepath": _restore_purepath,
    **tagged_arrays.RESTORE,
    **tagged_pandas.RESTORE,
    "$frame": _restore_frame,
    "$image": tagged_frames.restore_image,
}
