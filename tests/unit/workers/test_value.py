"""Results on their way out."""

from __future__ import annotations

import array
import collections
import dataclasses
import enum
import json
import pathlib
import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from snakepit.workers.schema.arrays import LossyResult
from snakepit.workers.schema.value import ValueTooLarge, encode, encode_json

LIMIT = 1 << 20
ZERO = "00000000-0000-0000-0000-000000000000"


def carried(value: Any) -> Any:
    return json.loads(encode_json(value, LIMIT))


@dataclasses.dataclass
class Pair:
    left: int
    right: Any


class Colour(enum.Enum):
    RED = "red"


class Named(NamedTuple):
    a: int
    b: int


class Dumps:
    def model_dump(self) -> Any:
        return {"at": date(2026, 1, 2)}


class Lists:
    def __init__(self, size: int) -> None:
        self.size = size

    def tolist(self) -> Any:
        return [0.5] * self.size


class Endless:
    def tolist(self) -> Any:
        return Endless()


class Fails:
    def model_dump(self) -> Any:
        raise RuntimeError("broken")


class Plain: ...


NAME = f"{__name__}."


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ({"a": [1, 2.5, "ä", True, None]}, {"a": [1, 2.5, "ä", True, None]}),
        ((1, 2), [1, 2]),
        (Named(1, 2), [1, 2]),
        ({2, 1}, [1, 2]),
        (frozenset({"a"}), ["a"]),
        ({"b": 1, "a": 2}.keys(), ["b", "a"]),
        (range(3), [0, 1, 2]),
        (collections.deque([1]), [1]),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.ChainMap({"a": 1}), {"a": 1}),
        ([b"\0\1", bytearray(b"\0\1"), memoryview(b"\0\1")], [{"$bytes": "AAE="}] * 3),
        (Colour.RED, "red"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (timedelta(minutes=1), 60.0),
        (Decimal("1.10"), "1.10"),
        (uuid.UUID(int=0), ZERO),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (Pair(1, {2}), {"left": 1, "right": [2]}),
        (Dumps(), {"at": "2026-01-02"}),
        (Lists(2), [0.5, 0.5]),
        (array.array("d", [1.0]), [1.0]),
        (float("nan"), {"$float": "nan"}),
        (1j, {"$complex": [0.0, 1.0]}),
        ({"$float": "nan"}, {"$dict": [["$float", "nan"]]}),
        ([{"$bytes": b"x"}], [{"$dict": [["$bytes", {"$bytes": "eA=="}]]}]),
        ({"$a": 1, "b": 2}, {"$a": 1, "b": 2}),
        ([float("inf"), -float("inf"), 1.0], [{"$float": "inf"}, {"$float": "-inf"}, 1.0]),
        ({1: "a", None: "b", False: "c", 0.5: "d"}, {"1": "a", "null": "b", "false": "c", "0.5": "d"}),
        (
            {date(2026, 1, 2): 1, Colour.RED: 2, uuid.UUID(int=0): 3},
            {"2026-01-02": 1, "red": 2, f"{uuid.UUID(int=0)}": 3},
        ),
        ("\ud800", "\ud800"),
        (2**1000, 2**1000),
    ],
)
def test_a_result_is_carried_as_what_it_is(value, expected):
    assert carried(value) == expected


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Plain(), NAME + "Plain"),
        (Plain, "builtins.type"),
        ((number for number in range(3)), "builtins.generator"),
        (Lists(1_000_001), NAME + "Lists"),
        (Fails(), NAME + "Fails"),
        ({(1, 2): 3}, "builtins.dict"),
        pytest.param(10**5000, "builtins.int", id="an integer of 5,001 digits"),
    ],
)
def test_what_cannot_be_carried_is_named(value, kind):
    assert carried(value)["$unserializable"] == kind
    assert carried({"inside": [value]})["inside"][0]["$unserializable"] == kind


def test_a_value_that_holds_itself_is_named_where_it_does():
    loop: dict[str, Any] = {"a": 1}
    loop["self"] = [loop]
    reason = {"$unserializable": "builtins.dict", "reason": "it contains itself"}
    assert carried(loop) == {"a": 1, "self": [reason]}


@pytest.mark.parametrize("levels", [65, 500, 100_000])
def test_a_deep_value_is_cut_with_a_reason(levels):
    deep: list[Any] = []
    for _ in range(levels):
        deep = [deep]
    text = encode_json(deep, LIMIT)
    assert b"nested deeper than 64 levels" in text
    assert text.count(b"[") + text.count(b"{") <= 64
    while deep:  # taken apart by hand: freeing it at once may recurse
        deep = deep[0]


def test_64_levels_pass():
    deep: list[Any] = []
    for _ in range(63):
        deep = [deep]
    assert carried(deep) == deep


def test_an_endless_conversion_ends():
    assert "$unserializable" in encode_json(Endless(), LIMIT).decode()


def test_a_value_that_multiplies_is_too_large():
    bomb: list[Any] = [float("nan")]
    for _ in range(60):
        bomb = [bomb, bomb]
    # NaN sends it the careful way; the quick way would fill the memory first.
    with pytest.raises(ValueTooLarge):
        encode_json(Slow(bomb), 10_000)


class Slow:
    """Breaks the quick way before it has begun."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def model_dump(self) -> Any:
        return {"key": float("nan"), "value": self.value}


def test_bytes_go_out_raw():
    for value in (b"\0\1", bytearray(b"\0\1"), memoryview(b"\0\1")):
        assert encode(value, LIMIT).raw
        assert encode(value, LIMIT).data == b"\0\1"


@dataclasses.dataclass(slots=True)
class Slotted:
    left: int
    right: Any


class Grade(enum.IntEnum):
    GOOD = 1


class Words(str): ...


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Slotted(1, (2,)), {"left": 1, "right": [2]}),
        ([Grade.GOOD, Words("x")], [1, "x"]),
        ({Grade.GOOD: 1, Words("x"): 2}, {"1": 1, "x": 2}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (
            [Decimal("NaN"), Decimal("sNaN12"), Decimal("-Infinity"), Decimal("1E+2")],
            ["NaN", "sNaN12", "-Infinity", "1E+2"],
        ),
        (datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=-5))), "2026-01-02T00:00:00-05:00"),
        ({"0": "a", "1": "b", "true": "c"}, {"0": "a", "1": "b", "true": "c"}),
        ([{1: "a"}, {"1": "b"}], [{"1": "a"}, {"1": "b"}]),
        ({'"1":': 1, 1: 2}, {'"1":': 1, "1": 2}),
    ],
)
def test_each_type_has_one_form(value, expected):
    assert carried(value) == expected


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({1: "a", "1": "b"}, "1 and '1'"),
        ({"true": "a", True: "b"}, "'true' and True"),
        ({None: "a", "null": "b"}, "None and 'null'"),
        ({0.5: "a", "0.5": "b"}, "0.5 and '0.5'"),
        ({float("nan"): "a", "nan": "b"}, "nan and 'nan'"),
        ({date(2026, 1, 2): "a", "2026-01-02": "b"}, "datetime.date(2026, 1, 2) and '2026-01-02'"),
        ({Decimal("1.0"): "a", "1.0": "b"}, "Decimal('1.0') and '1.0'"),
        ({Colour.RED: "a", "red": "b"}, "<Colour.RED: 'red'> and 'red'"),
    ],
)
def test_two_keys_with_one_text_are_an_error_with_both(value, names):
    for nested in (value, [{"inside": value}], Pair(1, value)):
        with pytest.raises(LossyResult) as caught:
            encode_json(nested, LIMIT)
        assert names in str(caught.value)
        assert "list of pairs" in str(caught.value)


@pytest.mark.parametrize("value", [b"x" * 101, "x" * 99, memoryview(b"x" * 101), [0] * 51])
def test_a_result_over_the_limit_has_its_size_in_the_error(value):
    with pytest.raises(ValueTooLarge, match="max_payload is 100;") as caught:
        encode(value, 100)
    assert caught.value.limit == 100
    assert caught.value.size > 100


def test_a_result_at_the_limit_passes():
    assert len(encode("x" * 98, 100).data) == 100


def test_numpy_arrays_become_lists():
    numpy = pytest.importorskip("numpy")
    assert carried({"a": numpy.arange(3), "b": numpy.float32(0.5)}) == {"a": [0, 1, 2], "b": 0.5}
    assert carried(numpy.array([1.0, float("nan")])) == [1.0, {"$float": "nan"}]
    assert carried({numpy.int64(3): 1}) == {"3": 1}
    assert "1,000,001 elements" in carried(numpy.zeros(1_000_001))["reason"]


UNITS = ("W", "D", "h", "m", "s", "ms", "us", "ns")


@pytest.mark.parametrize("unit", UNITS)
def test_numpy_times_mean_the_same_in_each_unit(unit):
    numpy = pytest.importorskip("numpy")
    moment = numpy.datetime64("2026-01-01", "D").astype(f"datetime64[{unit}]")
    arrived = carried({"one": moment, "many": numpy.array([moment, "NaT"], dtype=moment.dtype), moment: 1})
    assert numpy.datetime64(arrived["one"]) == moment
    assert arrived["many"] == [arrived["one"], None]
    assert arrived[arrived["one"]] == 1
    week = numpy.timedelta64(1, "W").astype(f"timedelta64[{unit}]")
    assert carried([week, numpy.array([week, "NaT"], dtype=week.dtype)]) == [604800.0, [604800.0, None]]


@pytest.mark.filterwarnings("ignore:The 'generic' unit:DeprecationWarning")  # of NumPy 2.5 and later, for these inputs
def test_numpy_times_keep_nanoseconds_and_multiples():
    numpy = pytest.importorskip("numpy")
    assert carried(numpy.datetime64("2026-01-02T03:04:05.123456789")) == "2026-01-02T03:04:05.123456789"
    assert carried(numpy.array([3], dtype="m8[10ns]")) == [3e-8]
    assert carried([numpy.datetime64("2026", "Y"), numpy.datetime64("NaT")]) == ["2026-01-01", None]


@pytest.mark.filterwarnings("ignore:The 'generic' unit:DeprecationWarning")  # of NumPy 2.5 and later, for these inputs
def test_a_numpy_value_without_a_whole_form_is_an_error():
    numpy = pytest.importorskip("numpy")
    for value in (
        numpy.timedelta64(1, "M"),
        numpy.timedelta64(1, "Y"),
        numpy.timedelta64(1),
        numpy.datetime64(2**62, "Y"),
    ):
        with pytest.raises(LossyResult, match="return integers"):
            encode_json([value], LIMIT)
    third = numpy.longdouble(1) / 3
    if third != float(third):  # some platforms have no longer float
        with pytest.raises(LossyResult, match="more digits"):
            encode_json(third, LIMIT)


def test_numpy_records_and_masks_keep_names_and_gaps():
    numpy = pytest.importorskip("numpy")
    records = numpy.array([(1, "2026-01-02")], dtype=[("a", "i4"), ("b", "M8[D]")])
    assert carried(records) == [{"a": 1, "b": "2026-01-02"}]
    assert carried(records[0]) == {"a": 1, "b": "2026-01-02"}
    assert carried(numpy.ma.array([1, 2], mask=[0, 1])) == [1, None]
    assert carried(numpy.ma.array(records["b"], mask=[1])) == [None]
    assert carried(numpy.ma.array(records, mask=[(0, 1)])) == [{"a": 1, "b": None}]


@pytest.mark.parametrize("kind", ["bool_", "int8", "uint64", "float16", "float32", "float64", "longdouble", "str_"])
def test_numpy_scalars_become_python_values(kind):
    numpy = pytest.importorskip("numpy")
    value = getattr(numpy, kind)(1)
    assert carried([value, numpy.array([value])]) == [value, [value]]


def test_infinity_passes_where_numpy_raises_for_it():
    numpy = pytest.importorskip("numpy")
    with numpy.errstate(all="raise"):
        assert carried([numpy.float64("inf"), numpy.array([-numpy.inf])]) == [{"$float": "inf"}, [{"$float": "-inf"}]]
