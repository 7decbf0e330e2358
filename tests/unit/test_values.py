"""Values arrive as they were, or are an error with their path: the table of docs/reference/values.md is the test's own.

Other interpreters run the tests of workers without these libraries, so these stand apart."""

from __future__ import annotations

import dataclasses
import enum
import io
import json
import math
import re
import warnings
from collections import deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import annotated_types
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, Field

from snakepit.pools.broker.errors import ResultUnreadable
from snakepit.pools.client.arguments import Options
from snakepit.pools.client.arguments import encode as client_encode
from snakepit.pools.client.call_messages import decode as client_decode
from snakepit.workers.schema import signature, tagged_arrays, typed, value
from snakepit.workers.schema.libraries import library
from snakepit.workers.schema.not_carried import NotCarried, ValueTooLarge
from snakepit.workers.schema.signature import InvalidArguments
from snakepit.workers.schema.tagged_pandas import _same_objects
from snakepit.workers.schema.value import encode_json
from snakepit.workers.wire.worker_pb2 import Value

np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")
msgspec = pytest.importorskip("msgspec")
Image = pytest.importorskip("PIL.Image")

LIMIT = 1 << 24
PAGE = Path(__file__).parents[2] / "docs/reference/values.md"
ROWS = re.findall(r"^\| ([^|]+) \| `(.+?)` \| `(.+?)` \|$", PAGE.read_text().partition("Some types arrive")[0], re.M)
NAMES = {
    "nan": math.nan, "inf": math.inf, "np": np, "pd": pd, "pl": pl, "pa": pa, "deque": deque, "datetime": datetime,
    "date": date, "time": time, "timedelta": timedelta, "UTC": UTC, "ZoneInfo": ZoneInfo, "UUID": UUID,
    "Decimal": Decimal, "Path": Path, "PureWindowsPath": PureWindowsPath,
}  # fmt: skip


def returned(sent: Any) -> Any:
    """What a Python client gets of a result."""
    return client_decode(Value(json=typed.encode(sent, LIMIT)))


def taken(sent: Any) -> Any:
    """What a command gets of a Python client's argument."""
    call = client_encode("pool", "command", {"x": sent}, {}, Options())
    return signature.decode(call.arguments, call.attachments)["x"]


def json_form(sent: Any) -> Any:
    return json.loads(value.encode_json(sent, LIMIT))


def same(one: Any, two: Any) -> bool:
    """Whether two values are equal, with their types, deep inside; NaN is the same as NaN."""
    if isinstance(one, pd.DataFrame | pd.Series | pd.Index | pl.DataFrame | pl.Series):
        return type(one) is type(two) and bool(one.equals(two))
    if isinstance(one, pa.Table | pa.Array):
        return type(one) is type(two) and bool(one.equals(two))
    if isinstance(one, np.ma.MaskedArray):
        return type(two) is type(one) and same(one.tolist(), two.tolist()) and one.dtype == two.dtype
    if isinstance(one, np.ndarray):
        return (
            type(two) is np.ndarray
            and (one.dtype, one.shape) == (two.dtype, two.shape)
            and one.tobytes() == two.tobytes()
        )
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        return len(one) == len(two) and all(
            same(left, right) and same(one[left], two[right]) for left, right in zip(one, two, strict=True)
        )
    if isinstance(one, list | tuple | deque):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, set | frozenset):
        return sorted(map(repr, one)) == sorted(map(repr, two))
    if isinstance(one, datetime | time):
        return repr(one) == repr(two)
    return one is two or repr(one) == repr(two) or bool(one == two)


def test_an_integer_of_any_length_arrives() -> None:
    assert returned([10**5000, -(10**5000)]) == [10**5000, -(10**5000)]


@pytest.mark.parametrize(("kind", "example", "form"), ROWS, ids=[row[0] for row in ROWS])
def test_each_type_of_the_table_arrives_as_it_was_and_has_its_json_form(kind: str, example: str, form: str) -> None:
    sent = eval(example, dict(NAMES))
    assert same(returned(sent), sent)
    assert same(taken(sent), sent)
    nested = {"rows": [(sent,), {"price": sent}]}
    assert same(returned(nested), nested)
    assert json_form(sent) == json.loads(form)


@pytest.mark.parametrize("hard", [False, True])
def test_a_masked_array_keeps_its_fill_value_and_whether_its_mask_is_hard(hard: bool) -> None:
    sent = np.ma.array([1, 2], mask=[False, True], fill_value=7, hard_mask=hard)
    for found in (returned(sent), taken(sent)):
        assert (found.fill_value, found.hardmask, found.mask.tolist()) == (7, hard, [False, True])


def test_a_masked_element_arrives_as_the_same_object() -> None:
    assert returned({"first": np.ma.masked})["first"] is np.ma.masked
    assert taken(np.ma.array([1], mask=[True])[0]) is np.ma.masked


def test_a_subclass_of_an_array_arrives_as_an_array() -> None:
    records = np.array([(1, 2.0)], dtype=[("a", "<i4"), ("b", "<f8")])
    for sent in (records, np.arange(3.0)):
        assert same(returned(sent.view(np.recarray)), sent)


def test_the_table_has_every_type() -> None:
    assert len(ROWS) >= 35


# Generated values


KEYS = st.one_of(st.text(max_size=5), st.just("$float"), st.just("@typed"), st.integers(), st.booleans(), st.none(),
                 st.dates(), st.tuples(st.integers(), st.text(max_size=3)), st.uuids())  # fmt: skip
DTYPES = st.sampled_from(
    ["?", "<i1", ">i2", "<i8", "<u4", "<f2", "<f4", ">f8", "<c16", "<U3", "S4", "<M8[ns]", "<m8[D]"]
)


def array_of(dtype: str, shape: list[int], data: bytes) -> Any:
    size = math.prod(shape) * np.dtype(dtype).itemsize
    made = np.frombuffer((data * (size + 1))[:size] if data else bytes(size), dtype).reshape(shape)
    return made if np.dtype(dtype).kind not in "?bU" else np.zeros(shape, dtype)


ARRAYS = st.builds(array_of, DTYPES, st.lists(st.integers(0, 3), max_size=3), st.binary(max_size=9))
MOMENTS = st.datetimes(
    timezones=st.sampled_from([None, UTC, ZoneInfo("Europe/Berlin"), timezone(timedelta(hours=-5, minutes=7))])
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(),  st.floats(), st.complex_numbers(),
    st.text(st.characters(codec=None)), st.binary(), st.decimals(), MOMENTS, st.dates(), st.times(), st.timedeltas(),
    st.uuids(), ARRAYS, ARRAYS.filter(lambda array: array.size).map(lambda array: array.ravel()[0]),
    st.builds(range, st.integers(-9, 9), st.integers(-9, 9)), st.sampled_from([Path("/a"), PureWindowsPath("c:/x")]),
)  # fmt: skip
HASHABLE = st.one_of(st.integers(), st.text(max_size=3), st.dates(), st.tuples(st.integers(), st.text(max_size=3)))
NESTED = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(KEYS, inner, max_size=4), st.sets(HASHABLE),
        st.frozensets(HASHABLE), st.lists(inner, max_size=3).map(deque),
    ),
    max_leaves=12,
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(NESTED)
def test_a_nested_value_arrives_as_it_was_both_ways(sent: Any) -> None:
    assert same(returned(sent), sent)
    assert same(taken(sent), sent)


LABELS = st.one_of(st.text(max_size=3), st.integers(-5, 5), st.none(), st.dates())
CELLS = st.one_of(st.integers(-9, 9), st.floats(), st.text(max_size=3), st.booleans(), st.none(), st.decimals(),
                  st.dates(), st.lists(st.integers(), max_size=2), st.timedeltas(), st.datetimes())  # fmt: skip
COLUMN = st.sampled_from(
    ["int8", "float32", "object", "str", "datetime64[s]", "timedelta64[ms]", "bool", "Int64", "category"]
)


@st.composite
def frames(draw: Any) -> Any:
    height, width = draw(st.integers(0, 4)), draw(st.integers(0, 3))
    columns = []
    for _ in range(width):
        dtype = draw(COLUMN)
        cells = draw(st.lists(CELLS if dtype == "object" else st.integers(0, 99), min_size=height, max_size=height))
        columns.append(pd.Series(cells, dtype="object").astype(dtype))
    frame = pd.concat(columns, axis=1) if columns else pd.DataFrame(index=range(height))
    frame.columns = pd.Index(draw(st.lists(LABELS, min_size=width, max_size=width)), dtype="object")
    kind = draw(st.sampled_from(["range", "labels", "multi", "dates"]))
    if kind == "labels":
        frame.index = pd.Index(draw(st.lists(LABELS, min_size=height, max_size=height)), dtype="object", name="n")
    elif kind == "multi" and height:
        frame.index = pd.MultiIndex.from_arrays([list(range(height)), ["a"] * height], names=["x", None])
    elif kind == "dates":
        frame.index = pd.date_range("2026", periods=height, freq="D")
    return frame


@pytest.mark.parametrize("columns", [[1, "1"], [1, 2.5], [("a", 1), "b"]])
def test_a_frame_with_names_of_several_types_arrives_without_a_warning(columns: list[Any]) -> None:
    frame = pd.DataFrame([[1, 2.5]])
    frame.columns = pd.Index(columns, dtype="object", tupleize_cols=False)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        arrived = returned([frame])[0]
    assert list(arrived.columns) == columns
    assert not seen


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(frames(), st.booleans())
def test_a_frame_arrives_as_it_was_or_is_an_error(frame: Any, arrow: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if not arrow:
            patch.setattr("snakepit.workers.schema.tagged_pandas.has_arrow", lambda: False)
        try:
            arrived = returned([frame])[0]
        except NotCarried:
            return
    pd.testing.assert_frame_equal(arrived, frame, check_exact=True, check_column_type=True)
    assert _same_objects(arrived.astype(object).to_numpy().tolist(), frame.astype(object).to_numpy().tolist())


@pytest.mark.parametrize("arrow", [True, False])
@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"a": [1, 2, 3, 4], "b": list("wxyz")}, index=list("ppqq")),
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pd.DataFrame({"a": [1, "x", None, [1]]}),
        pd.DataFrame({1: [1.5, math.nan]}),
        pd.Series([1, 2], name=("a", 1)),
        pd.Series([1, 2, 3], index=pd.date_range("2026", periods=3, freq="D")),
        pd.DataFrame(),
    ],
    ids=["repeated labels", "repeated columns", "mixed", "number as name", "name", "dates", "empty"],
)
def test_a_table_of_pandas_keeps_rows_labels_and_types(
    frame: Any, arrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakepit.workers.schema.tagged_pandas.has_arrow", lambda: arrow)
    compare = pd.testing.assert_frame_equal if isinstance(frame, pd.DataFrame) else pd.testing.assert_series_equal
    compare(returned(frame), frame, check_exact=True)


# What has no form


class Opaque: ...


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (Opaque(), "Opaque, which has no form; pass a dict of its data"),
        (Opaque, "is a type, which has no form; pass its name"),
        (np.array([object()]), "is an array of dtype object, which has no form in bytes; pass .tolist()"),
        (pd.DataFrame({"a": [object()]}), "is a pandas DataFrame that would not arrive as it is"),
        (pl.DataFrame({"a": [object()]}), "is a Polars DataFrame that would not arrive as it is; cast its columns"),
        (pl.LazyFrame({"a": [1]}), "has no data yet; pass frame.collect()"),
        (np.str_("a\0"), "ends in NUL characters"),
        (Image.new("HSV", (1, 1)), "convert it to RGB or L"),
        ((number for number in ()), "is a generator, which has no form; pass a list"),
    ],
)
def test_what_has_no_form_is_an_error_with_its_path(sent: Any, message: str) -> None:
    with pytest.raises(NotCarried) as caught:
        typed.encode({"rows": [0, 1, 2, {"price": sent}]}, LIMIT)
    assert str(caught.value).startswith("result.rows[3].price is ")
    assert message in str(caught.value)


def test_a_result_without_end_is_refused_before_its_text_is_made() -> None:
    endless: Any = [0] * 10
    for _ in range(11):
        endless = [endless] * 10
    for sent in (endless, {"rows": endless}, [endless, object()], ["x" * LIMIT] * LIMIT):
        for encode in (typed.encode, encode_json):
            with pytest.raises(ValueTooLarge, match="the result has at least"):
                encode(sent, LIMIT)


def test_a_frame_that_allows_no_repeated_labels_is_not_carried() -> None:
    with pytest.raises(NotCarried, match="its flags are not kept"):
        typed.encode(pd.DataFrame({"a": [1]}).set_flags(allows_duplicate_labels=False), LIMIT)


@pytest.mark.parametrize(
    "content",
    [
        {"$float": "x"}, {"$bytes": "é"}, {"$bytes": 3}, {"$datetime": "x"},
        {"$datetime": ["2026-01-02", "../../etc", 0]},
        {"$tuple": 3}, {"$set": [[1]]}, {"$dict": [[1, 2], [1, 3]]}, {"$dict": 3}, {"$int": "x"},
        {"$ndarray": ["O", [1], "AAAAAAAAAAA="]}, {"$ndarray": ["|O8", [1], "AAAAAAAAAAA="]},
        {"$ndarray": ["<f8", [-1], "AAAAAAAAAAA="]}, {"$ndarray": ["<f8", [2**62], "AAAAAAAAAAA="]},
        {"$ndarray": [[["a", "|O"]], [1], "AAAAAAAAAAA="]}, {"$scalar": ["<f8", ""]},
        {"$frame": ["os.system", {}, "eA=="]}, {"$frame": ["pandas.DataFrame", {}, "eA=="]},
        {"$image": ["eps", "eA=="]}, {"$image": ["png", "eA=="]}, {"$range": [1, 2, 0]}, {"$decimal": "x"},
    ],
)  # fmt: skip
def test_a_tag_from_outside_is_data_and_a_wrong_one_an_error(content: Any) -> None:
    with pytest.raises(InvalidArguments) as caught:
        signature.decode(json.dumps({"x": {"rows": [content]}}).encode())
    assert caught.value.problems["x"].startswith("x.rows[0]")


def test_a_dict_of_a_json_caller_that_looks_like_an_unknown_tag_is_kept() -> None:
    assert signature.decode(b'{"x":{"$price":[1,{"$set":[1]}]}}') == {"x": {"$price": [1, {1}]}}


def test_a_result_with_an_unknown_tag_is_unreadable() -> None:
    with pytest.raises(ResultUnreadable, match=r"result\[0\] has the unknown tag '\$new'; update snakepit"):
        client_decode(Value(json=b'{"@typed":[{"$new":1}]}'))


@pytest.mark.parametrize("value", [{"@typed": [1], "x": 2}, {"@typed": 1}, {"@typed": {"$date": "2026-01-02"}, "": 0}])
def test_a_result_whose_first_key_is_that_of_the_wrapper_arrives_whole(value: Any) -> None:
    assert client_decode(Value(json=typed.encode(value, LIMIT))) == value
    if "$date" not in str(value):  # a JSON caller gets a tag for what looks like one
        as_json = encode_json(value, LIMIT)
        assert client_decode(Value(json=as_json)) == json.loads(as_json) == value


def test_text_that_json_would_change_is_not_carried() -> None:
    lone, pair = "a\ude00\ud83d", "a\ud83d\ude00"
    assert client_decode(Value(json=typed.encode([lone], LIMIT))) == [lone]
    for text in (pair, [pair], {pair: 1}, (pair,)):
        with pytest.raises(NotCarried, match="result has text with a surrogate pair"):
            typed.encode(text, LIMIT)


def test_a_result_whose_library_is_missing_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = typed.encode({"table": pl.DataFrame({"a": [1]})}, LIMIT)
    monkeypatch.delitem(__import__("sys").modules, "polars")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ResultUnreadable, match=r"result\.table is a polars\.DataFrame.*pip install polars"):
        client_decode(Value(json=sent))


def test_without_numpy_numbers_arrive_as_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = typed.encode([np.array([[1, 2], [3, 4]], "<i2"), np.float64(0.5), np.zeros((2, 0))], LIMIT)
    monkeypatch.setattr(tagged_arrays, "_library", lambda: None)
    assert client_decode(Value(json=sent)) == [[[1, 2], [3, 4]], 0.5, [[], []]]


# Types that arrive as another one


class Colour(enum.Enum):
    RED = "red"


class Shape(enum.Enum):
    ROUND = (1, 2)


@dataclasses.dataclass
class Point:
    x: int
    at: datetime


class Named(NamedTuple):
    x: int


class Model(BaseModel):
    x: Annotated[int, Field(ge=0)]
    at: datetime


class Struct(msgspec.Struct):
    x: int
    at: datetime


NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("sent", "arrived"),
    [
        (Colour.RED, "red"),
        (Shape.ROUND, (1, 2)),
        (Point(1, NOW), {"x": 1, "at": NOW}),
        (Model(x=1, at=NOW), {"x": 1, "at": NOW}),
        (Struct(1, NOW), {"x": 1, "at": NOW}),
        (Named(1), (1,)),
        (bytearray(b"x"), b"x"),
        ({"a": 1}.keys(), ["a"]),
    ],
)
def test_some_types_arrive_as_their_data(sent: Any, arrived: Any) -> None:
    assert same(returned([sent])[0], arrived)
    assert same(taken([sent])[0], arrived)


@pytest.mark.parametrize("kind", [Point, Model, Struct])
def test_an_annotation_builds_the_object(kind: Any) -> None:
    def command(x: Any, more: Any) -> None: ...

    command.__annotations__.update(x=kind, more=list[kind])

    compiled = signature.signature_of(command)
    sent = kind(x=1, at=NOW)
    call = client_encode("p", "c", {"x": sent, "more": [sent]}, {}, Options())
    assert compiled.check(signature.decode(call.arguments)) == {"x": sent, "more": [sent]}
    text = {"x": 1, "at": "2026-01-02T00:00:00+00:00"}
    assert compiled.check({"x": text, "more": [text]}) == {"x": sent, "more": [sent]}
    with pytest.raises(InvalidArguments, match=r"more\[0\]\.x "):
        compiled.check({"x": text, "more": [{**text, "x": "one"}]})


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "F", "I", "I;16", "YCbCr", "LAB"])
def test_an_image_arrives_with_its_mode_and_pixels(mode: str) -> None:
    image = Image.new(mode, (3, 2))
    image.putpixel((1, 1), image.getpixel((0, 0)))
    arrived = returned([image])[0]
    assert (type(arrived), arrived.mode, arrived.size) == (Image.Image, mode, (3, 2))
    assert arrived.tobytes() == image.tobytes()
    (name, data) = json_form(image)["$image"]
    assert name in ("png", "tiff")
    assert isinstance(data, str)


def test_an_image_may_be_an_argument_as_its_file() -> None:
    sink = io.BytesIO()
    Image.new("RGB", (2, 1)).save(sink, "jpeg")

    def command(scan: Image.Image) -> None: ...

    found = signature.signature_of(command).check({"scan": sink.getvalue()})["scan"]
    assert (found.mode, found.size) == ("RGB", (2, 1))


# Constraints


@pytest.mark.parametrize(
    ("annotation", "good", "bad", "problem", "schema"),
    [
        (Annotated[int, Field(ge=1)], 1, 0, "must be at least 1, not 0", {"minimum": 1}),
        (Annotated[float, annotated_types.Interval(gt=0, le=1)], 1.0, 0.0, "greater than 0", {"maximum": 1}),
        (Annotated[str, annotated_types.Len(1, 3)], "abc", "abcd", "at most 3 long", {"maxLength": 3}),
        (Annotated[list[int], annotated_types.MinLen(2)], [1, 2], [1], "at least 2 long, not 1", {"minItems": 2}),
        (Annotated[str, Field(pattern="^a")], "ab", "ba", "the pattern ^a", {"pattern": "^a"}),
        (Annotated[int, annotated_types.MultipleOf(3)], 6, 7, "a multiple of 3", {"multipleOf": 3}),
        (Annotated[int, msgspec.Meta(lt=3)], 2, 3, "less than 3", {"exclusiveMaximum": 3}),
        (Annotated[float, annotated_types.Ge(0)], 0.5, math.nan, "at least 0", {"minimum": 0}),
    ],
)
def test_a_constraint_is_checked_and_in_the_schema(
    annotation: Any, good: Any, bad: Any, problem: str, schema: Any
) -> None:
    def command(x: Any, many: Any) -> None: ...

    command.__annotations__.update(x=annotation, many=list[annotation])

    compiled = signature.signature_of(command)
    assert compiled.check({"x": good, "many": [good]}) == {"x": good, "many": [good]}
    with pytest.raises(InvalidArguments) as caught:
        compiled.check({"x": bad, "many": [good, bad]})
    assert problem in caught.value.problems["x"]
    assert caught.value.problems["many"].startswith("many[1] ")
    assert schema.items() <= compiled.schema["properties"]["x"].items()


def test_a_constraint_that_only_pydantic_has_is_checked_by_pydantic() -> None:
    def command(x: Annotated[int, AfterValidator(lambda number: number * 2)]) -> None: ...

    assert signature.signature_of(command).check({"x": 2}) == {"x": 4}


def test_a_constraint_that_cannot_be_checked_is_refused_at_boot() -> None:
    def zoned(x: Annotated[datetime, annotated_types.Timezone(None)]) -> None: ...

    def defaulted(x: int = Field(ge=1)) -> None: ...

    for command, words in ((zoned, "constraint 'timezone' cannot be checked"), (defaulted, "write Annotated")):
        with pytest.raises(signature.InvalidAdapter, match=words):
            signature.signature_of(command)


def test_a_library_that_is_not_installed_is_named() -> None:
    with pytest.raises(NotCarried, match="pip install nonesuch"):
        library("nonesuch", "a table")


@pytest.mark.parametrize("shape", [[10**9, 0], [1000, 0, 10**9]])
def test_an_array_without_items_is_refused_where_its_shape_has_a_billion_lists(
    shape: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tagged_arrays, "_library", lambda: None)
    with pytest.raises(NotCarried, match="at most 1,000,000 lists"):
        typed.decode(json.dumps({"@typed": {"$ndarray": ["<f8", shape, ""]}}).encode())
    assert typed.decode(json.dumps({"@typed": {"$ndarray": ["<f8", [3, 0], ""]}}).encode()) == [[], [], []]
