"""The OpenAPI document of one pool: an operation for each command, so that clients are generated with their arguments.

    commands (JSON Schema of their arguments) ─▶ document() ─▶ paths, components

A worker does not report the type of a result, so a result allows every value.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from ninja import Field, Schema

from snakepit.pools.api.json_value import JsonValue
from snakepit.pools.api.schemas import BODIES, CallAnswer, Failure
from snakepit.pools.broker.errors import ERRORS
from snakepit.pools.broker.spec import ON_FAILURE
from snakepit.pools.broker.status import CommandInfo

REFUSED = frozenset({400, 401, 403, 404, 413, 422, 429, 500, 502, 503, 504})
COMPONENT = "#/components/schemas/"
LOCAL = "#/$defs/"
MAPS = ("patternProperties", "dependentSchemas", "$defs")  # their keys are names, not words of a schema
VALUES = ("default", "const", "enum", "examples", "example")  # what is in them is no schema


class OpenApiOut(Schema):
    """An OpenAPI document."""

    openapi: str
    info: dict[str, JsonValue]
    paths: dict[str, JsonValue] = Field(description="One path for each command.")
    components: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Site:
    """Where a pool is called, and what the settings of the project allow."""

    root: str  # path of the pool in the API
    max_timeout: float
    security: Mapping[str, Any]  # the security schemes of the API


def document(pool: str, commands: Sequence[CommandInfo], site: Site) -> dict[str, Any]:
    """The document as JSON-ready data. The same commands make the same document, with the same version."""
    schemas: dict[str, Any] = {}
    for model in (CallAnswer, Failure):
        found = model.model_json_schema(ref_template=COMPONENT + "{model}", mode="serialization")
        schemas |= found.pop("$defs", {}) | {model.__name__: found}
    paths = {}
    for info in sorted((one for one in commands if one.name != ON_FAILURE), key=lambda one: one.name):
        body = _components(info, schemas)
        paths[f"{site.root}/commands/{quote(info.name, safe='')}"] = {"post": _operation(info, body, site)}
    contents = {
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": dict(site.security)},
        "security": [{name: []} for name in site.security],
    }
    version = hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:12]
    text = f"The commands of the pool {pool}. The version changes with the commands."
    return {"openapi": "3.1.0", "info": {"title": f"Pool {pool}", "version": version, "description": text}, **contents}


def _operation(info: CommandInfo, body: dict[str, Any], site: Site) -> dict[str, Any]:
    required = bool(info.arguments.get("required"))
    notes = [info.description or info.summary]
    notes += ["It streams: ask for `text/event-stream` to get each chunk."] if info.streams else []
    notes += ["It is idempotent: a call whose worker dies runs again."] if info.idempotent else []
    notes += [f"Up to {info.batch} calls run together as one batch."] if info.batch else []
    notes += [f"It has {info.timeout:g} seconds, if the call names no `timeout`."] if info.timeout else []
    return {
        "operationId": info.name,
        "summary": info.summary or info.name,
        "description": "\n\n".join(note for note in notes if note),
        "tags": ["commands"],
        "parameters": _parameters(site),
        "requestBody": {"required": required, "content": {"application/json": {"schema": body}}},
        "responses": {"200": _success(info), **{str(code): _refusal(code) for code in sorted(REFUSED)}},
        "x-streams": info.streams,
        "x-idempotent": info.idempotent,
    }


def _parameters(site: Site) -> list[dict[str, Any]]:
    timeout = {"type": "number", "exclusiveMinimum": 0, "maximum": site.max_timeout}
    priority = {"type": "integer", "minimum": -100, "maximum": 100, "default": 0}
    stream = {"type": "boolean", "default": False}
    return [
        {"name": "timeout", "in": "query", "schema": timeout, "description": "Seconds until the call's deadline."},
        {"name": "priority", "in": "query", "schema": priority, "description": "Higher first."},
        {"name": "stream", "in": "query", "schema": stream, "description": "Answer with server-sent events."},
    ]


def _success(info: CommandInfo) -> dict[str, Any]:
    """JSON, and a stream of a command that streams. Generated clients return the union of all that is listed."""
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": COMPONENT + "CallAnswer"}}}
    if info.streams:
        content["text/event-stream"] = {"schema": BODIES["text/event-stream"]}
    return {"description": "The result of the command.", "content": content}


def _refusal(status: int) -> dict[str, Any]:
    codes = ", ".join(f"`{code}`" for code, error in ERRORS.items() if error.http_status == status)
    content = {"application/json": {"schema": {"$ref": COMPONENT + "Failure"}}}
    return {"description": f"{HTTPStatus(status).phrase}: {codes}.", "content": content}


def _components(info: CommandInfo, schemas: dict[str, Any]) -> dict[str, Any]:
    """Add the schemas of a command's arguments to the components, and return the reference to them."""
    arguments = info.arguments or {"type": "object"}
    arguments.pop("$schema", None)
    definitions = arguments.pop("$defs", {})
    own = _free(f"{info.name}.arguments", schemas)
    schemas[own] = {}  # taken
    names = {}
    for name in definitions:
        names[name] = _free(f"{info.name}.{name}", schemas)
        schemas[names[name]] = {}

    def moved(target: str) -> str:
        name = target.removeprefix(LOCAL)
        return COMPONENT + names[name] if target.startswith(LOCAL) and name in names else target

    for name, schema in definitions.items():
        schemas[names[name]] = _walked(schema, moved)
    schemas[own] = _walked(arguments, moved)
    return {"$ref": COMPONENT + own}


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """A name of a component, which allows fewer characters than Python does."""
    plain = found = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    number = 2
    while found in taken:
        found, number = f"{plain}_{number}", number + 1
    return found


def _optional(schema: Any) -> Any:
    """The schema of an optional property, with its default in words: generators require a property with a default."""
    if not isinstance(schema, dict) or "default" not in schema:
        return schema
    rest = {word: value for word, value in schema.items() if word != "default"}
    text = f"Default: {json.dumps(schema['default'], ensure_ascii=False)}."
    return rest | {"description": f"{rest['description']} {text}" if "description" in rest else text}


def _walked(schema: Any, moved: Callable[[str], str]) -> Any:
    """The schema with each reference changed by `moved`."""
    if isinstance(schema, list):
        return [_walked(one, moved) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for word, value in schema.items():
        if word == "$ref" and isinstance(value, str):
            found[word] = moved(value)
        elif word == "discriminator" and isinstance(value, dict):
            mapping = {name: moved(target) for name, target in value.get("mapping", {}).items()}
            found[word] = value | ({"mapping": mapping} if mapping else {})
        elif word == "properties" and isinstance(value, dict):
            required = schema.get("required", ())
            found[word] = {
                name: _walked(one if name in required else _optional(one), moved) for name, one in value.items()
            }
        elif word in MAPS and isinstance(value, dict):
            found[word] = {name: _walked(one, moved) for name, one in value.items()}
        else:
            found[word] = value if word in VALUES else _walked(value, moved)
    return found
