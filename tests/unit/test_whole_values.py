"""Generated values and frames arrive whole, or are an error.

Other interpreters run the tests of workers without hypothesis and pandas, so these stand apart."""

from __future__ import annotations

import base64
import json
import math
import sys
import types
import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit.workers.schema.arrays import LossyResult
from snakepit.workers.schema.value import encode_json

LIMIT = 1 << 20


def carried(value: Any) -> Any:
    return json.loads(encode_json(value, LIMIT))


KEYS = st.one_of(
    st.text("01.-etrufalsn", max_size=5), st.integers(-2, 20), st.booleans(), st.none(), st.sampled_from([0.5, -1e20])
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.decimals(),
    st.datetimes(),
    st.uuids(),
)
NESTED = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner), st.tuples(inner, inner), st.dictionaries(KEYS, inner)),
    max_leaves=20,
)


def text_of(key: Any) -> str:
    return key if isinstance(key, str) else json.dumps(key)


def has_repeated_key(value: Any) -> bool:
    if isinstance(value, dict):
        return len({text_of(key) for key in value}) < len(value) or any(map(has_repeated_key, value.values()))
    return isinstance(value, list | tuple) and any(map(has_repeated_key, value))


def assert_all_arrived(value: Any, arrived: Any) -> None:
    if isinstance(value, dict):
        assert set(arrived) == {text_of(key) for key in value}
        for key, item in value.items():
            assert_all_arrived(item, arrived[text_of(key)])
    elif isinstance(value, list | tuple):
        assert len(arrived) == len(value)
        for item, arrived_item in zip(value, arrived, strict=True):
            assert_all_arrived(item, arrived_item)
    elif isinstance(value, bytes):
        assert base64.b64decode(arrived["$bytes"]) == value
    elif isinstance(value, float) and not math.isfinite(value):
        assert repr(float(arrived["$float"])) == repr(value)
    elif isinstance(value, Decimal):
        assert repr(Decimal(arrived)) == repr(value)
    elif isinstance(value, datetime):
        assert datetime.fromisoformat(arrived) == value
    elif isinstance(value, uuid.UUID):
        assert uuid.UUID(arrived) == value
    else:
        assert (type(arrived), arrived) == (type(value), value)


@given(NESTED)
def test_a_nested_value_arrives_whole_or_is_an_error(value):
    try:
        arrived = carried(value)
    except LossyResult:
        assert has_repeated_key(value)
    else:
        assert not has_repeated_key(value)
        assert_all_arrived(value, arrived)


class Index:
    def __init__(self, labels: list[Any]) -> None:
        self.labels = labels
        self.names = [None]

    def tolist(self) -> list[Any]:
        return self.labels


class DataFrame:
    """Stands in for pandas' class where pandas is not installed: as dicts, equal labels overwrite each other."""

    def __init__(self, rows: list[list[Any]], index: list[Any], columns: list[Any]) -> None:
        self.rows, self.index, self.columns = rows, Index(index), Index(columns)
        self.size = len(index) * len(columns)

    def to_dict(self, orient: str = "dict") -> dict[Any, Any]:
        labels, names = self.index.tolist(), self.columns.tolist()
        if orient == "tight":
            return {"index": labels, "columns": names, "data": self.rows, "index_names": [None], "column_names": [None]}
        columns = zip(names, zip(*self.rows, strict=True), strict=True)
        return {name: dict(zip(labels, values, strict=True)) for name, values in columns}


class Series:
    def __init__(self, values: list[Any], index: list[Any]) -> None:
        self.values, self.index, self.name, self.size = values, Index(index), "n", len(values)

    def tolist(self) -> list[Any]:
        return self.values

    def to_dict(self) -> dict[Any, Any]:
        return dict(zip(self.index.tolist(), self.values, strict=True))


LABELS = st.lists(st.one_of(st.sampled_from(["x", "y", 1, "1", None]), st.tuples(st.text(), st.integers())), max_size=4)


@given(LABELS, LABELS)
def test_a_frame_arrives_whole_whatever_its_labels(index, columns):
    rows = [[row * 10 + column for column in range(len(columns))] for row in range(len(index))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=DataFrame, Series=Series))
        arrived = carried({"frame": DataFrame(rows, index, columns), "series": Series(index, index)})
    labels = json.loads(json.dumps(index))
    assert (arrived["frame"]["index"], arrived["frame"]["data"]) == (labels, rows)
    assert arrived["frame"]["columns"] == json.loads(json.dumps(columns))
    assert arrived["series"] == {"index": labels, "index_names": [None], "data": labels, "name": "n"}


def test_a_frame_of_pandas_itself_arrives_whole():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2, 3, 4], "b": list("wxyz")}, index=["p", "p", "q", "q"])
    assert pandas.DataFrame.from_dict(carried(frame), orient="tight").equals(frame)
    doubled = frame[["a", "a"]]
    assert pandas.DataFrame.from_dict(carried(doubled), orient="tight").equals(doubled)
    tree = frame.set_index(["a", "b"], append=True)
    assert pandas.DataFrame.from_dict(carried(tree), orient="tight").equals(tree)
    assert carried(frame["a"]) == {
        "index": ["p", "p", "q", "q"],
        "index_names": [None],
        "data": [1, 2, 3, 4],
        "name": "a",
    }
    assert carried([pandas.NaT, pandas.NA, pandas.Timedelta(1, "ns")]) == [None, None, 1e-9]
