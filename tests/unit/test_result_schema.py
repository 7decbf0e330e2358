"""The schema of a result: it describes the JSON form that a caller receives, for each type that has one.

Other interpreters run the tests of workers without these libraries, so these stand apart."""

from __future__ import annotations

import dataclasses
import enum
import io
import json
import typing
from base64 import b64encode
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, Optional, TypedDict, TypeVar
from uuid import UUID

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field, PlainSerializer, RootModel, computed_field, field_serializer, model_serializer

from snakepit.workers import Adapter, command
from snakepit.workers.adapter import InvalidAdapter
from snakepit.workers.schema.commands import find_commands
from snakepit.workers.schema.result import result_schema
from snakepit.workers.schema.signature import InvalidArguments, Signature, decode, signature_of
from snakepit.workers.schema.value import encode_json

np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")
msgspec = pytest.importorskip("msgspec")
Image = pytest.importorskip("PIL.Image")
NDArray = pytest.importorskip("numpy.typing").NDArray

if typing.TYPE_CHECKING:
    from nowhere import Missing

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Shape(enum.Enum):
    ROUND = (1, 1)


class Point(TypedDict):
    x: float
    label: NotRequired[str]


@dataclasses.dataclass
class Tree:
    name: str
    found: date
    children: list[Tree] = dataclasses.field(default_factory=list)
    size: int = dataclasses.field(init=False, default=3)


@dataclasses.dataclass
class Page(Generic[T]):
    items: list[T]
    next: str | None = None


class Struct(msgspec.Struct, rename="camel"):
    long_name: int
    moment: datetime


class Model(BaseModel):
    price: Decimal = Field(alias="Price")
    took: timedelta
    secret: str = Field(default="", exclude=True)
    odd: Annotated[int, PlainSerializer(str)] = 1
    odder: int = 2

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> Decimal:
        return self.price * 2

    @field_serializer("odder")
    def _odder(self, value: int) -> str:
        return str(value)


class Whole(BaseModel):
    a: int

    @model_serializer
    def _whole(self) -> str:
        return str(self.a)


class Names(RootModel[list[str]]):
    pass


class Pair(NamedTuple):
    word: str
    count: int


class Words(list[str]):
    pass


UserId = NewType("UserId", int)
TREE = Tree("a", date(2026, 1, 2), [Tree("b", date(2026, 1, 3))])
MODEL = Model.model_validate({"Price": "1.10", "took": 2})

# The annotation, a result that fits it, and a JSON value that does not.
FITTING: list[tuple[Any, Any, Any]] = [
    (None, None, 1),
    (bool, True, 1),
    (int, 3, "3"),
    (float, 0.5, "a"),
    (complex, 1 + 2j, 1),
    (str, "ä", 1),
    (bytes, b"PNG", "UE5H"),
    (bytearray, bytearray(b"PNG"), "UE5H"),
    (datetime, datetime(2026, 1, 2, tzinfo=UTC), 1),
    (date, date(2026, 1, 2), 1),
    (time, time(3, 4), 1),
    (timedelta, timedelta(seconds=1.5), "PT1S"),
    (Decimal, Decimal("1.10"), 1.1),
    (UUID, UUID(int=1), 1),
    (Path, Path("/a"), 1),
    (range, range(3), 3),
    (list, [1, "a"], {}),
    (list[int], [1, 2], ["a"]),
    (Sequence[str], ("a", "b"), [1]),
    (Iterable[int], [1], ["a"]),
    (Iterator[int], [1], ["a"]),  # a generator that is returned is collected
    (set[int], {2, 1}, ["a"]),
    (frozenset[str], frozenset({"a"}), [1]),
    (deque[int], deque([1]), ["a"]),
    (tuple, (1, "a"), {}),
    (tuple[int, str], (1, "a"), [1]),
    (tuple[int, ...], (1, 2, 3), ["a"]),
    (dict, {"a": 1}, []),
    (dict[str, int], {"a": 1}, {"a": "b"}),
    (dict[int, str], {1: "a"}, {"1": 1}),
    (Mapping[str, list[int]], {"a": [1]}, {"a": 1}),
    (Counter[str], Counter("aab"), {"a": "b"}),
    (str | None, None, 1),
    (Optional[int], 3, "a"),  # noqa: UP045
    (int | list[int], [1], "a"),
    (Literal["a", 1, None], 1, 2),
    (Annotated[int, Field(ge=1)], 1, "a"),
    (Colour, Colour.RED, "RED"),
    (UserId, UserId(3), "a"),
    (Point, {"x": 1.5}, {}),
    (Tree, TREE, {"name": "a", "found": "2026-01-02", "children": [{}], "size": 1}),
    (Page[Point], Page([Point(x=1.0)]), {"items": [{}], "next": None}),
    (dict[str, Page[int]], {"a": Page([1])}, {"a": {"items": ["a"], "next": None}}),
    (Struct, Struct(1, datetime(2026, 1, 2)), {"longName": 1, "moment": "2026-01-02"}),
    (Model, MODEL, {"Price": "1.10"}),
    (list[Model], [MODEL], [{"price": 1.1}]),
    (Names, Names(["a"]), [1]),
    (Pair, Pair("a", 1), ["a"]),
    (Words, Words(["a"]), {}),
    (np.ndarray, np.array([[1, 2]]), 1),
    (NDArray[np.float32], np.ones((2, 2), np.float32), 1),
    (np.ndarray[tuple[int, int], np.dtype[np.int16]], np.ones((2, 2), np.int16), [1]),
    (np.float32, np.float32(1), "a"),
    (np.int8, np.int8(1), "a"),
    (np.bool_, np.bool_(True), 1),
    (np.datetime64, np.datetime64("2026-01-02"), 1),
    (np.timedelta64, np.timedelta64(3, "m"), "a"),
    (pd.DataFrame, pd.DataFrame({"a": [1, 2]}), {"a": [1, 2]}),
    (pd.Series, pd.Series([0.5], name="s"), [0.5]),
    (pd.Timestamp, pd.Timestamp("2026-01-02"), 1),
    (pl.DataFrame, pl.DataFrame({"a": [1]}), {"a": [1]}),
    (pl.Series, pl.Series("s", [1]), [1]),
    (pa.Table, pa.table({"a": [1]}), {"a": [1]}),
    (pa.Array, pa.array([1]), 1),
    (Image.Image, Image.new("L", (2, 2)), "UE5H"),
]


def schema_of(annotation: Any, **how: bool) -> dict[str, Any]:
    def function() -> Any: ...

    function.__annotations__["return"] = annotation
    return json.loads(json.dumps(result_schema(function, **how)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("annotation", "value", "wrong"), FITTING, ids=lambda one: str(one)[:40])
def test_the_schema_describes_the_json_form(annotation: Any, value: Any, wrong: Any) -> None:
    schema = schema_of(annotation)
    Draft202012Validator.check_schema(schema)
    check = Draft202012Validator(schema)
    check.validate(json.loads(encode_json(value, 10_000)))
    assert not check.is_valid(wrong), schema


@pytest.mark.parametrize(
    "annotation", [Any, object, Shape, Whole, T, Callable[[], int], Awaitable[int], int | Any], ids=str
)
def test_a_type_without_a_known_form_allows_every_value(annotation: Any) -> None:
    assert schema_of(annotation) == {}


def test_a_recursive_type_refers_to_itself() -> None:
    schema = schema_of(list[Tree])
    assert schema["items"] == {"$ref": "#/$defs/Tree"}
    assert schema["$defs"]["Tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}
    assert schema["$defs"]["Tree"]["required"] == ["name", "found", "children", "size"]


def test_a_field_that_pydantic_converts_is_open() -> None:
    fields = schema_of(Model)["$defs"]["Model"]["properties"]
    assert set(fields) == {"price", "took", "odd", "odder", "double"}
    assert (fields["odd"], fields["odder"], fields["double"]) == ({}, {}, {"type": "string"})


class Commands(Adapter):
    @command
    def lines(self) -> Iterator[Point]:
        yield {"x": 1.0}

    @command
    async def live(self) -> AsyncIterator[int]:
        yield 1

    @command(batch=4)
    def each(self, text: list[str]) -> list[Point]:
        return [{"x": 1.0}]

    @command
    async def later(self) -> list[int]:
        return [1]

    @command
    def hidden(self) -> Missing:
        return 1

    @command
    def partly(self, at: Any = None) -> dict[str, Missing]:
        return {}

    @command
    def nothing(self):  # type: ignore[no-untyped-def]
        return 1


def test_commands_report_the_schema_of_one_result() -> None:
    found = {name: spec.facts()["result_schema"] for name, spec in find_commands(Commands).items()}
    assert found["lines"]["$ref"] == "#/$defs/Point"  # of one chunk
    assert found["live"]["type"] == "integer"
    assert found["each"]["$ref"] == "#/$defs/Point"  # of one call
    assert found["later"]["items"] == {"type": "integer"}
    assert found["hidden"] == found["partly"] == found["nothing"] == {}


# They have other names as a result, or fields that no argument sets.
ONE_WAY = (Tree, Struct, Model, list[Model])


def test_each_argument_takes_the_json_form_of_a_result_of_its_type() -> None:
    """A client in another language sends back what it received."""
    refused = {}
    for annotation, given, _ in FITTING:
        if annotation in ONE_WAY:
            continue
        try:
            signature = taking(annotation)
        except InvalidAdapter:
            continue  # a type of results alone
        sent = b'{"value":' + encode_json(given, 10_000) + b"}"
        try:
            signature.check(decode(sent))
        except InvalidArguments as error:
            refused[str(annotation)] = f"{sent.decode()}: {error}"
    assert not refused, "\n".join(f"{name}: {why}" for name, why in refused.items())


def taking(annotation: Any) -> Signature:
    def function(value: Any) -> None: ...

    function.__annotations__["value"] = annotation
    return signature_of(function)


def argument(annotation: Any, value: Any) -> Any:
    """The argument of a JSON value that its schema allows."""
    signature = taking(annotation)
    Draft202012Validator(dict(signature.schema)).validate({"value": value})
    return signature.check({"value": value})["value"]


def test_values_of_json_become_ranges_and_numpy_times() -> None:
    for one in (range(0), range(3), range(5, 6), range(6, 0, -2), range(-1, 9, 5)):
        assert list(argument(range, list(one))) == list(one)
    for wrong in ([1, 1], [1, 2, 4], [0, 1, 10**12], [0, 1, 10**30], ["a"], 3, [True]):
        with pytest.raises(InvalidArguments, match="value must be a range"):
            taking(range).check({"value": wrong})
    assert argument(np.datetime64, "2026-01-02T03:04:05.5") == np.datetime64("2026-01-02T03:04:05.5")
    assert argument(np.timedelta64, 180) == np.timedelta64(3, "m")
    assert argument(np.timedelta64, 0.25) == np.timedelta64(250, "ms")
    assert np.isnat(argument(np.datetime64, None))
    assert np.isnat(argument(np.timedelta64, None))
    for annotation, value in (
        (np.datetime64, "soon"),
        (np.datetime64, 3),
        (np.timedelta64, "3"),
        (np.timedelta64, True),
    ):
        with pytest.raises(InvalidArguments, match="value must be a"):
            taking(annotation).check({"value": value})


def test_an_image_may_be_base64_text_as_its_schema_says() -> None:
    sink = io.BytesIO()
    Image.new("L", (2, 1)).save(sink, "png")
    assert argument(Image.Image, b64encode(sink.getvalue()).decode()).size == (2, 1)
    with pytest.raises(InvalidArguments, match="must be base64"):
        argument(Image.Image, "*")
