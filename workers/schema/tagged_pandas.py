"""The tags of pandas: DataFrame, Series, Index, Timestamp, Timedelta, NaT and NA. pandas is imported when one arrives.

     DataFrame, Series, Index ──▶ {"$frame": [kind, facts, base64 of an Arrow IPC stream, or the columns]}

What Arrow cannot hold (a column with mixed types, repeated column names) goes column by column, and so does all where
pyarrow is not installed. Each table is restored before it is sent and compared with the original, in values, types,
labels and names: what would not arrive as it is raises NotCarried.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from snakepit.workers.buffers import TAG
from snakepit.workers.schema.libraries import arrow_stream, has_arrow, is_a, library, read_arrow
from snakepit.workers.schema.not_carried import NotCarried
from snakepit.workers.schema.zones import restore_zone, zone_of


def tree(tagger: Any, value: Any, depth: int) -> Any:
    """The tree of a table or a missing value; None for other values."""
    if type(value).__module__.partition(".")[0] != "pandas":
        return _subclass(value)
    if is_a(value, "pandas", "Index"):
        return _index(tagger, value, depth)
    if is_a(value, "pandas", "DataFrame", "Series"):
        return _table(tagger, value, depth)
    return {"NAType": {"$na": None}, "NaTType": {"$nat": None}}.get(type(value).__name__)


def _subclass(value: Any) -> None:
    if is_a(value, "pandas", "DataFrame", "Series"):
        fix = "convert it with pandas.DataFrame(...) or pandas.Series(...)"
        raise NotCarried(f"is a {type(value).__name__}, a subclass of pandas' class; {fix}")


def _table(tagger: Any, value: Any, depth: int) -> Any:
    pandas = sys.modules["pandas"]
    kind = "DataFrame" if isinstance(value, pandas.DataFrame) else "Series"
    frame = value if kind == "DataFrame" else value.to_frame(name=0)
    facts: dict[str, Any] = {} if kind == "DataFrame" else {"name": tagger.tree(value.name, depth + 3)}
    facts |= _facts(frame.index)
    reason = "Arrow has no form for it"
    mark = tagger.buffers.mark() if tagger.buffers else None
    for form in (_as_arrow, _as_columns):
        if mark:
            tagger.buffers.cut(mark)  # of the form before, which did not keep the table
        try:
            content = form(tagger, frame, depth)
            if content is None:
                continue
            made = {"$frame": [f"pandas.{kind}", facts, content]}
            difference = _difference(value, tagger.restored(made))
        except NotCarried as problem:
            reason = str(problem)
            continue
        except Exception as error:  # Arrow and pandas raise many types for what they cannot hold
            if type(error).__name__ in ("ValueTooLarge", "BufferTooLarge"):
                raise
            reason = f"{type(error).__name__}: {error}"[:200]
            continue
        if not difference:
            return made
        reason = difference
    raise NotCarried(f"is a pandas {kind} that would not arrive as it is ({reason}); pass a dict of its columns")


def _as_arrow(tagger: Any, frame: Any, depth: int) -> Any:
    if not has_arrow() or (frame.columns.nlevels == 1 and frame.columns.inferred_type.startswith("mixed")):
        return None  # with a warning, Arrow makes text of names that have several types
    pyarrow = library("pyarrow", "a DataFrame")
    return tagger.blob(arrow_stream(pyarrow, pyarrow.Table.from_pandas(frame)))


def _as_columns(tagger: Any, frame: Any, depth: int) -> Any:
    """Each column as its dtype and values; of NumPy's dtypes as an array."""
    columns = [_values(tagger, frame.iloc[:, at], depth + 4) for at in range(frame.shape[1])]
    return {"columns": _labels(tagger, frame.columns, depth), "index": _labels(tagger, frame.index, depth),
            "data": columns}  # fmt: skip


def _values(tagger: Any, series: Any, depth: int) -> list[Any]:
    dtype = series.dtype
    if type(dtype).__module__.startswith("numpy") and dtype.kind in "biufcMm":
        return [str(dtype), tagger.tree(series.to_numpy(), depth)]
    return [str(dtype), tagger.items(series.tolist(), depth + 1)]


def _labels(tagger: Any, index: Any, depth: int) -> list[Any]:
    names = tagger.items(list(index.names), depth + 4)
    if type(index).__name__ == "RangeIndex":
        return ["range", names, [index.start, index.stop, index.step]]
    if type(index).__name__ == "MultiIndex":
        return ["multi", names, tagger.items(index.tolist(), depth + 4)]
    return ["index", names, _values(tagger, index, depth + 4)]


def _index(tagger: Any, value: Any, depth: int) -> Any:
    """A pandas Index, with its freq. It is restored and compared, as a table is."""
    made = ["pandas.Index", _facts(value), _labels(tagger, value, depth)]
    difference = _other_labels(value, tagger.restored({"$frame": made}))
    if difference:
        raise NotCarried(f"is a pandas {type(value).__name__} whose labels would {difference}; pass .tolist()")
    return {"$frame": made}


def _facts(index: Any) -> dict[str, Any]:
    freq = getattr(index, "freqstr", None)
    return {"freq": freq} if freq is not None and index.dtype.kind in "Mm" else {}


def _difference(value: Any, back: Any) -> str:
    """What differs in the restored table; empty if it is the same."""
    pandas = sys.modules["pandas"]
    one, two = (value, back) if isinstance(value, pandas.DataFrame) else (value.to_frame(name=0), back.to_frame(name=0))
    if value.attrs != back.attrs:
        return "its attrs are not kept"
    if value.flags != back.flags:
        return "its flags are not kept"
    for at in range(one.shape[1]):
        left, right = one.iloc[:, at], two.iloc[:, at]
        if left.dtype != right.dtype:
            return f"column {at} of {left.dtype} would be {right.dtype}"
        if left.dtype == object and not _same_objects(left.tolist(), right.tolist()):
            return f"column {at} holds objects that would change"
    if one.shape != two.shape or not one.equals(two):
        return "its values would change"
    if getattr(value, "name", None) is not None and value.name != back.name and value.name == value.name:
        return "its name would change"
    for name in ("index", "columns"):
        if difference := _other_labels(getattr(one, name), getattr(two, name)):
            return f"its {name} would {difference}"
    return ""


def _other_labels(one: Any, two: Any) -> str:
    if type(one) is not type(two) or one.dtype != two.dtype:
        return f"change from {type(one).__name__} of {one.dtype} to {type(two).__name__} of {two.dtype}"
    if list(one.names) != list(two.names) or not one.equals(two):
        return "have other names or labels"
    if (
        getattr(one, "dtypes", None) is not None
        and type(one).__name__ == "MultiIndex"
        and not one.dtypes.equals(two.dtypes)
    ):
        return "have levels of other types"
    if one.dtype == object and not _same_objects(one.tolist(), two.tolist()):
        return "have labels of other types"
    if getattr(one, "freq", None) != getattr(two, "freq", None):
        return "lose their freq"
    return ""


def _same_objects(one: Any, two: Any) -> bool:
    """Whether two values are equal in types as well, deep inside."""
    if type(one) is not type(two):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(_same_objects, one, two))
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_same_objects(one[key], two[key]) for key in one)
    if is_a(one, "numpy", "ndarray"):
        return one.dtype == two.dtype and one.shape == two.shape and _same_objects(one.tolist(), two.tolist())
    if one is two or one != one:
        return one is two or two != two
    return bool(one == two)


def restore(restorer: Any, kind: str, facts: Any, data: Any) -> Any:
    """The table of a $frame."""
    what = f"a {kind}"
    pandas = library("pandas", what)
    if kind == "pandas.Index":
        index = _index_of(restorer, pandas, data)
        if "freq" in facts:
            index.freq = facts["freq"]
        return index
    if kind not in ("pandas.DataFrame", "pandas.Series"):
        raise ValueError(f"{kind[:40]!r} is no kind of table")
    frame = _frame_of(restorer, pandas, data, what)
    if "freq" in facts:
        frame.index.freq = facts["freq"]
    if kind == "pandas.DataFrame":
        return frame
    series = frame.iloc[:, 0]
    series.name = restorer.value(facts["name"])
    return series


def _frame_of(restorer: Any, pandas: Any, data: Any, what: str) -> Any:
    if isinstance(data, str) or TAG in data:
        return read_arrow(restorer.blob(data), what).to_pandas()
    index = _index_of(restorer, pandas, data["index"])
    columns = [_column(restorer, pandas, item, index) for item in data["data"]]
    frame = pandas.concat(columns, axis=1, keys=range(len(columns))) if columns else pandas.DataFrame(index=index)
    frame.columns = _index_of(restorer, pandas, data["columns"])
    frame.index = index
    return frame


def _column(restorer: Any, pandas: Any, content: Any, index: Any) -> Any:
    dtype, values = content
    return pandas.Series(restorer.value(values), dtype=dtype).set_axis(range(len(index)))


def _index_of(restorer: Any, pandas: Any, content: Any) -> Any:
    kind, names, labels = content
    names = restorer.items(names)
    if kind == "range":
        start, stop, step = labels
        return pandas.RangeIndex(start, stop, step, name=names[0])
    if kind == "multi":
        return pandas.MultiIndex.from_tuples(restorer.items(labels), names=names)
    dtype, values = labels
    return pandas.Index(restorer.value(values), dtype=dtype, name=names[0], tupleize_cols=False)


def moment_tree(value: Any) -> Any:
    """A pandas Timestamp as its count of units; its zone as text."""
    if type(value).__name__ == "NaTType":
        return {"$nat": None}
    count = int(value.asm8.astype("int64"))
    return {"$timestamp": [count, value.unit, zone_of(value.tzinfo, value.utcoffset())]}


def duration_tree(value: Any) -> Any:
    """A pandas Timedelta as its count of units."""
    if type(value).__name__ == "NaTType":
        return {"$nat": None}
    return {"$duration": [int(value.asm8.astype("int64")), value.unit]}


def _restore_timestamp(restorer: Any, content: Any) -> Any:
    count, unit, zone = content
    pandas, numpy = library("pandas", "a Timestamp"), library("numpy", "a Timestamp")
    made = pandas.Timestamp(numpy.datetime64(count, unit))
    return made if zone is None else made.tz_localize("UTC").tz_convert(restore_zone(zone))


def _restore_duration(restorer: Any, content: Any) -> Any:
    count, unit = content
    return library("pandas", "a Timedelta").Timedelta(library("numpy", "a Timedelta").timedelta64(count, unit))


def _restore_missing(name: str) -> Callable[[Any, Any], Any]:
    return lambda restorer, content: getattr(library("pandas", f"pandas.{name}"), name)


RESTORE: dict[str, Callable[[Any, Any], Any]] = {
    "$timestamp": _restore_timestamp,
    "$duration": _restore_duration,
    "$nat": _restore_missing("NaT"),
    "$na": _restore_missing("NA"),
}
