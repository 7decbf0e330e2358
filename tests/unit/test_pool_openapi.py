"""The OpenAPI document of a pool, from the commands of real adapters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

from jsonschema import Draft202012Validator
from pydantic import BaseModel

from snakepit.pools.api.pool_openapi import Site, document
from snakepit.pools.broker.status import CommandInfo
from snakepit.workers.schema.result import result_schema
from snakepit.workers.schema.signature import signature_of

SITE = Site("/api/pools/p", 60.0, {"KeyAuth": {"type": "http", "scheme": "bearer"}})


@dataclass
class Point:
    x: float
    y: float


class Größe(TypedDict):
    points: list[Point]


class Leaf(BaseModel):
    default: int


class Tree(BaseModel):
    leaves: list[Leaf]


def measure(size: Größe, tree: Tree, kind: str = "#/$defs/Point") -> float: ...  # type: ignore[empty-body]
def other(point: Point | None = None) -> None: ...
def points(tree: Tree) -> list[Point]: ...  # type: ignore[empty-body]
def stream(limit: int = 3) -> Iterator[Größe]: ...  # type: ignore[empty-body]
def untyped(numbers: list): ...  # type: ignore[no-untyped-def]


def info(function: Any, **more: Any) -> CommandInfo:
    result = result_schema(function, streams=more.get("streams", False))
    schema = json.dumps(dict(signature_of(function).schema))
    return CommandInfo(function.__name__, schema=schema, result_schema=json.dumps(result), **more)


def made(*commands: CommandInfo) -> dict[str, Any]:
    return json.loads(json.dumps(document("p", commands, SITE)))  # type: ignore[no-any-return]


def body_of(found: dict[str, Any], command: str) -> dict[str, Any]:
    body = found["paths"][f"/api/pools/p/commands/{command}"]["post"]["requestBody"]
    return {**body["content"]["application/json"]["schema"], "components": found["components"]}


def answer_of(found: dict[str, Any], command: str) -> Draft202012Validator:
    response = found["paths"][f"/api/pools/p/commands/{command}"]["post"]["responses"]["200"]
    schema = response["content"]["application/json"]["schema"]
    return Draft202012Validator({**schema, "components": found["components"]})


CALL = {"id": "c", "worker": "p-1", "queued_ms": 0.5, "run_ms": 1.5}


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_each_command_is_an_operation_with_its_arguments() -> None:
    found = made(info(measure, idempotent=True, timeout=5.0), info(other, streams=True))
    assert list(found["paths"]) == ["/api/pools/p/commands/measure", "/api/pools/p/commands/other"]
    check = Draft202012Validator(body_of(found, "measure"))
    right = {"size": {"points": [{"x": 1, "y": 2.5}]}, "tree": {"leaves": [{"default": 3}]}}
    assert check.is_valid(right)
    assert not check.is_valid({**right, "size": {"points": [{"x": "a", "y": 2.5}]}})
    assert not check.is_valid({**right, "tree": {"leaves": [{"default": "a"}]}})
    assert not check.is_valid({**right, "unknown": 1})
    required = [one["post"]["requestBody"]["required"] for one in found["paths"].values()]
    assert required == [True, False]


def test_references_lead_to_components_with_allowed_names() -> None:
    found = made(info(measure), info(other))
    schemas = found["components"]["schemas"]
    assert {one.removeprefix("#/components/schemas/") for one in references(found)} <= set(schemas)
    assert {"measure.Point", "other.Point", "measure.Gr__e", "measure.Tree.Leaf"} <= set(schemas)
    assert all(name.isascii() for name in schemas)
    assert schemas["measure.arguments"]["properties"]["kind"]["description"] == 'Default: "#/$defs/Point".'


def test_errors_and_media_types_of_a_call_are_described() -> None:
    (operation,) = [one["post"] for one in made(info(other, streams=True))["paths"].values()]
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    (plain,) = [one["post"] for one in made(info(other))["paths"].values()]
    assert set(plain["responses"]["200"]["content"]) == {"application/json"}
    assert "`queue_full`" in operation["responses"]["429"]["description"]
    assert operation["responses"]["404"]["content"]["application/json"]["schema"]["$ref"].endswith("/Failure")
    assert operation["x-streams"] is True


def test_each_answer_has_the_type_of_its_result() -> None:
    found = made(info(points), info(measure), info(stream, streams=True), info(untyped))
    right = {"points": [{"x": 1.0, "y": 2.0}], "measure": 0.5, "stream": [{"points": []}], "untyped": {"any": 1}}
    wrong = {"points": [{"x": 1.0}], "measure": "0.5", "stream": {"points": []}}
    for command, result in right.items():
        answer_of(found, command).validate({"result": result, "call": CALL})
    for command, result in wrong.items():
        assert not answer_of(found, command).is_valid({"result": result, "call": CALL})
    assert found["components"]["schemas"]["points.result.Point"]["required"] == ["x", "y"]


def test_a_stream_has_the_types_of_its_events() -> None:
    found = made(info(stream, streams=True))
    content = found["paths"]["/api/pools/p/commands/stream"]["post"]["responses"]["200"]["content"]
    events = content["text/event-stream"]["x-event"]
    check = Draft202012Validator({**events, "components": found["components"]})
    for name, data in {
        "chunk": {"points": [{"x": 1.0, "y": 2.0}]},
        "progress": {"fraction": 0.5, "message": ""},
        "log": {"message": "a"},
        "result": {"result": None, "call": CALL},
        "error": {"error": {"code": "cancelled", "message": "", "outcome": "failed", "details": {}}},
    }.items():
        check.validate({"event": name, "data": data})
        assert not check.is_valid({"event": "chunk" if name != "chunk" else "log", "data": data})


def test_every_array_names_its_items_for_generators_that_require_it() -> None:
    schemas = made(info(untyped))["components"]["schemas"]
    assert schemas["untyped.arguments"]["properties"]["numbers"] == {"type": "array", "items": {}}


def test_the_version_changes_with_the_commands_alone() -> None:
    first, again, changed = made(info(other)), made(info(other)), made(info(other, idempotent=True))
    assert first == again
    assert first["info"]["version"] != changed["info"]["version"]


def test_a_thousand_commands_keep_their_names_apart() -> None:
    many = [CommandInfo(f"run{chr(0x100 + number)}") for number in range(1000)]
    found = made(*many)
    assert len(found["paths"]) == 1000
    assert len({name for name in found["components"]["schemas"] if name.startswith("run")}) == 1000
