"""Signatures: which arguments are accepted, how they arrive, and what the schema contains."""

from __future__ import annotations

import dataclasses
import enum
import json
import pathlib
import typing
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType, NotRequired, Optional, TypedDict, Union

import pytest

from snakepit.workers import Context
from snakepit.workers.adapter import InvalidAdapter
from snakepit.workers.schema.json_text import too_deep
from snakepit.workers.schema.signature import WHOLE, InvalidArguments, decode, signature_of


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Weight(enum.IntEnum):
    LIGHT = 1
    HEAVY = 2


class Shape(enum.Enum):
    ROUND = (1, 1)
    FLAT = (2, 0)


class Point(TypedDict):
    x: float
    label: NotRequired[str]


@dataclasses.dataclass
class Tree:
    name: str
    children: list[Tree] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a tree needs a name")


Pixels = NewType("Pixels", list)


def check(annotation: Any, value: Any) -> Any:
    def command(x): ...

    command.__annotations__["x"] = annotation
    return signature_of(command).check({"x": value})["x"]


def problem(annotation: Any, value: Any) -> str:
    with pytest.raises(InvalidArguments) as caught:
        check(annotation, value)
    return caught.value.problems["x"]


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (int, 3, 3),
        (float, 3, 3.0),
        (bool, True, True),
        (str, "a", "a"),
        (None, None, None),
        (bytes, "AAE=", b"\0\1"),
        (bytes, b"raw", b"raw"),
        (bytes, {"$bytes": "AAE="}, b"\0\1"),
        (bytearray, b"raw", bytearray(b"raw")),
        (list[int], (1, 2), [1, 2]),
        (list[int], {1}, [1]),
        (set[int], {1}, {1}),
        (tuple[int, str], (1, "a"), (1, "a")),
        (datetime, datetime(2026, 1, 2), datetime(2026, 1, 2)),
        (date, date(2026, 1, 2), date(2026, 1, 2)),
        (timedelta, timedelta(1), timedelta(1)),
        (Decimal, Decimal("1.10"), Decimal("1.10")),
        (complex, 1j, 1j),
        (range, range(3), range(3)),
        (Any, [1, "a"], [1, "a"]),
        (object, {"a": None}, {"a": None}),
        (list, [1, "a"], [1, "a"]),
        (list[float], [1, 2.5], [1.0, 2.5]),
        (list[list[int]], [[1], []], [[1], []]),
        (Sequence[int], [1], [1]),
        (tuple, [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[int, str], [1, "a"], (1, "a")),
        (set[int], [1, 1, 2], {1, 2}),
        (frozenset[str], ["a"], frozenset("a")),
        (dict, {"a": 1}, {"a": 1}),
        (dict[str, float], {"a": 1}, {"a": 1.0}),
        (Mapping[str, int], {"a": 1}, {"a": 1}),
        (Literal["a", 1], 1, 1),
        (Colour, "red", Colour.RED),
        (Weight, 2, Weight.HEAVY),
        (Shape, "ROUND", Shape.ROUND),
        (Optional[int], None, None),  # noqa: UP045
        (int | None, 3, 3),
        (Union[int, str], "a", "a"),  # noqa: UP007
        (float | str, 1, 1.0),
        (int | float, 1, 1),
        (Annotated[int, "metadata", []], 1, 1),
        (Pixels, [1], [1]),
        (Point, {"x": 1}, {"x": 1.0}),
        (Tree, {"name": "a", "children": [{"name": "b"}]}, Tree("a", [Tree("b")])),
        (datetime, "2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (date, "2026-01-02", date(2026, 1, 2)),
        (timedelta, 1.5, timedelta(seconds=1.5)),
        (uuid.UUID, "12345678123456781234567812345678", uuid.UUID(int=0x12345678123456781234567812345678)),
        (Decimal, "1.10", Decimal("1.10")),
        (pathlib.Path, "/tmp/a", pathlib.Path("/tmp/a")),
    ],
)
def test_a_fitting_value_arrives_as_its_type(annotation, value, expected):
    got = check(annotation, value)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "value", "wrong"),
    [
        (int, True, "x must be an integer, not true"),
        (int, 1.5, "x must be an integer, not a number"),
        (int, "1", "x must be an integer, not a string"),
        (float, False, "x must be a number, not false"),
        (float, 10**400, "x is too large for a float"),
        (bool, 1, "x must be true or false, not an integer"),
        (str, None, "x must be a string, not null"),
        (bytes, "not base64!", "x must be base64"),
        (bytes, 3, "x must be bytes or base64 text, not an integer"),
        (int, b"raw", "x must be an integer, not bytes"),
        (list[float], "abc", "x must be an array, not a string"),
        (list[float], [0.0, 0.0, 0.0, "a"], "x[3] must be a number, not a string"),
        (list[list[int]], [[1], [2, None]], "x[1][1] must be an integer, not null"),
        (tuple[int, str], [1], "x must be an array of 2 items, not 1"),
        (tuple[int, str], [1, 2], "x[1] must be a string, not an integer"),
        (set[int], [1, "a"], "x[1] must be an integer, not a string"),
        (set, [[]], "x holds an array or object, which a set cannot hold"),
        (dict[str, int], {"a": "b"}, "x.a must be an integer, not a string"),
        (dict[str, int], [], "x must be an object, not an array"),
        (Literal[1, 2], True, "x must be one of 1, 2, not True"),
        (Literal["a"], [], "x must be one of 'a', not an array"),
        (Colour, "green", "x must be one of 'red', 'blue', not 'green'"),
        (Shape, "SQUARE", "x must be one of 'ROUND', 'FLAT', not 'SQUARE'"),
        (int | str, [], "x must be an integer or a string, not an array"),
        (int | None, "a", "x must be an integer or null, not a string"),
        (list[int] | None, ["a"], "x[0] must be an integer, not a string"),
        (Point, {}, "x.x is missing"),
        (Point, {"x": 1, "labl": ""}, "x.labl is unknown to Point (did you mean 'label'?)"),
        (Tree, {"name": "a", "children": [{"name": 1}]}, "x.children[0].name must be a string, not an integer"),
        (Tree, {"name": ""}, "x is not a valid Tree: a tree needs a name"),
        (datetime, "yesterday", "x must be a date and time (ISO 8601), not 'yesterday'"),
        (uuid.UUID, "12", "x must be a UUID, not '12'"),
        (Decimal, "one", "x must be a decimal number, not 'one'"),
        (timedelta, 1e300, "x is too large for a duration in seconds"),
    ],
)
def test_a_value_that_does_not_fit_is_named_where_it_is(annotation, value, wrong):
    assert problem(annotation, value) == wrong


def test_every_problem_is_named():
    def command(pixels: list[float], top: int = 1, *, name: str): ...

    with pytest.raises(InvalidArguments) as caught:
        signature_of(command).check({"pixels": [None], "tpo": 1})
    assert caught.value.problems == {
        "pixels": "pixels[0] must be a number, not null",
        "tpo": "tpo is unknown (did you mean 'top'?)",
        "name": "name is missing",
    }


def test_unannotated_arguments_take_anything():
    def command(a, b=2): ...

    assert signature_of(command).check({"a": {"x": [1]}}) == {"a": {"x": [1]}}


def test_kwargs_take_the_rest_by_their_annotation():
    def command(a: int, **more: int): ...

    signature = signature_of(command)
    assert signature.check({"a": 1, "b": 2}) == {"a": 1, "b": 2}
    assert signature.schema["additionalProperties"] == {"type": "integer"}
    with pytest.raises(InvalidArguments, match="b must be an integer"):
        signature.check({"a": 1, "b": "x"})


def by_annotation(a: int, context: Context): ...


def by_name(a: int, ctx): ...


def optional(a: int, context: Context | None = None): ...


def by_name_only_for_the_type_checker(a: int, ctx: Unknown): ...  # noqa: F821


@pytest.mark.parametrize("command", [by_annotation, by_name, optional])
def test_the_context_is_no_argument_of_the_caller(command):
    signature = signature_of(command)
    assert signature.context in ("context", "ctx")
    assert list(signature.schema["properties"]) == ["a"]
    with pytest.raises(InvalidArguments, match="is unknown"):
        signature.check({"a": 1, signature.context: 1})


def test_kwargs_do_not_let_a_caller_bring_the_context():
    def command(ctx, **more): ...

    with pytest.raises(InvalidArguments, match="ctx is unknown"):
        signature_of(command).check({"ctx": 1})


def test_a_context_imported_for_the_type_checker_only_is_found_by_name():
    assert signature_of(by_name_only_for_the_type_checker, lenient=True).context == "ctx"


def positional_only(a, /): ...


def starred(*args: int): ...


def of_a_class(a: pathlib.PosixPath): ...


def keyed_by_number(a: dict[int, str]): ...


def unresolved(a: NoSuchName): ...  # noqa: F821


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (positional_only, "a: arguments come by name"),
        (starred, "args: arguments come by name"),
        (of_a_class, "PosixPath cannot be made from JSON"),
        (keyed_by_number, "JSON's keys are strings"),
        (unresolved, "a: the annotation 'NoSuchName' cannot be resolved"),
    ],
)
def test_a_signature_that_cannot_be_served_is_refused_with_the_reason(command, why):
    with pytest.raises(InvalidAdapter) as caught:
        signature_of(command)
    assert why in str(caught.value)


def test_the_schema_agrees_with_the_check():
    def command(a: int, b: list[float], c: Colour = Colour.RED, d: str | None = None, e: Point | None = None): ...

    schema = signature_of(command).schema
    json.dumps(schema)
    assert schema == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "b": {"type": "array", "items": {"type": "number"}},
            "c": {"enum": ["red", "blue"]},
            "d": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            "e": {"anyOf": [{"$ref": "#/$defs/Point"}, {"type": "null"}], "default": None},
        },
        "required": ["a", "b"],
        "additionalProperties": False,
        "$defs": {
            "Point": {
                "type": "object",
                "properties": {"x": {"type": "number"}, "label": {"type": "string"}},
                "required": ["x"],
                "additionalProperties": False,
            }
        },
    }


def test_a_type_that_holds_itself_has_a_finite_schema():
    def command(tree: Tree): ...

    schema = signature_of(command).schema
    assert schema["$defs"]["Tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}


def test_two_types_of_one_name_keep_their_own_definitions():
    one = typing.TypedDict("Same", {"a": int})  # noqa: UP013
    other = typing.TypedDict("Same", {"b": int})  # noqa: UP013

    def command(x, y): ...

    command.__annotations__.update(x=one, y=other)
    assert set(signature_of(command).schema["$defs"]) == {"Same", "Same_"}


def test_arguments_and_attachments_become_one():
    assert decode(b'{"a": 1}', {"b": b"\0"}) == {"a": 1, "b": b"\0"}
    with pytest.raises(InvalidArguments, match="a is given twice"):
        decode(b'{"a": 1}', {"a": b"\0"})


@pytest.mark.parametrize("text", [b"NaN", b'{"a": -Infinity}', b'{"a": 1e400}', b'{"a": 1' + b"0" * 400 + b".5}"])
def test_numbers_that_json_does_not_have_are_refused(text):
    with pytest.raises(InvalidArguments) as caught:
        decode(text)
    assert list(caught.value.problems) == [WHOLE]


@pytest.mark.parametrize(
    ("text", "deep"),
    [
        (b"[" * 64 + b"]" * 64, False),
        (b"[" * 65 + b"]" * 65, True),
        (b'{"a":' * 65 + b"1" + b"}" * 65, True),
        (b"[" * 100_000, True),
        (b"[" + b"[]," * 1000 + b"[]]", False),
        (b'["' + b"[" * 1000 + b'"]', False),
        (b'["\\"' + b"[" * 1000 + b'"]', False),
        (b'["\\\\",' + b"[" * 65 + b"]" * 66, True),
        (b"[]" * 1000, False),
        (b"]" * 1000 + b"[" * 10, False),
    ],
)
def test_depth_is_found_without_recursion(text, deep):
    assert too_deep(text) is deep
