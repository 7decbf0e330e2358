"""Results on their way out."""

from __future__ import annotations

import array
import collections
import dataclasses
import enum
import json
import pathlib
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

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
        (1j, "builtins.complex"),
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


@pytest.mark.parametrize("value", [b"x" * 101, "x" * 99, memoryview(b"x" * 101), [0] * 51])
def test_a_result_over_the_limit_has_its_size_in_the_error(value):
    with pytest.raises(ValueTooLarge, match="and the limit is 100") as caught:
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
