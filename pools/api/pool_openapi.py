"""The OpenAPI document of one pool: an operation for each command, so that clients are generated with their types.

    commands (JSON Schema of arguments and result) ─▶ document() ─▶ paths, components

A command without a return annotation has no schema of its result, which then allows every value.
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
from snakepit.pools.broker.messages import MAX_AFFINITY
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
    if any(info.streams for info in commands):
        schemas |= _events()
    paths = {}
    for info in sorted((one for one in commands if one.name != ON_FAILURE), key=lambda one: one.name):
        body = _component(info.name, "arguments", info.arguments or {"type": "object"}, schemas)
        success = _success(info, schemas)
        paths[f"{site.root}/commands/{quote(info.name, safe='')}"] = {"post": _operation(info, body, success, site)}
    contents = {
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": dict(site.security)},
        "security": [{name: []} for name in site.security],
    }
    version = hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:12]
    text = f"The commands of the pool {pool}. The version changes with the commands."
    return {"openapi": "3.1.0", "info": {"title": f"Pool {pool}", "version": version, "description": text}, **contents}


def _operation(info: CommandInfo, body: dict[str, Any], success: dict[str, Any], site: Site) -> dict[str, Any]:
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
        "responses": {"200": success, **{str(code): _refusal(code) for code in sorted(REFUSED)}},
        "x-streams": info.streams,
        "x-idempotent": info.idempotent,
    }


def _parameters(site: Site) -> list[dict[str, Any]]:
    timeout = {"type": "number", "exclusiveMinimum": 0, "maximum": site.max_timeout}
    priority = {"type": "integer", "minimum": -100, "maximum": 100, "default": 0}
    stream = {"type": "boolean", "default": False}
    affinity = {"type": "string", "maxLength": MAX_AFFINITY, "default": ""}
    return [
        {"name": "timeout", "in": "query", "schema": timeout, "description": "Seconds until the call's deadline."},
        {"name": "priority", "in": "query", "schema": priority, "description": "Higher first."},
        {"name": "stream", "in": "query", "schema": stream, "description": "Answer with server-sent events."},
        {"name": "affinity", "in": "query", "schema": affinity, "description": "Key of the preferred worker."},
    ]


def _success(info: CommandInfo, schemas: dict[str, Any]) -> dict[str, Any]:
    """JSON, and a stream of a command that streams. Generated clients return the union of all that is listed."""
    whole = {"$ref": COMPONENT + "CallAnswer"}
    part = _component(info.name, "chunk" if info.streams else "result", info.result, schemas) if info.result else {}
    if part:
        result = {"type": "array", "items": part} if info.streams else part
        whole = _add(f"{info.name}.answer", _object(result=result, call={"$ref": COMPONENT + "CallFacts"}), schemas)
    content: dict[str, Any] = {"application/json": {"schema": whole}}
    if info.streams:
        # OpenAPI 3.1 has no word for the type of an event; a generator makes the type of the component all the same.
        chunk = _add(f"{info.name}.chunk_event", _event("chunk", part), schemas)
        others = [{"$ref": f"{COMPONENT}{name}Event"} for name in ("Progress", "Log", "Result", "Error")]
        events = _add(f"{info.name}.event", {"oneOf": [chunk, *others]}, schemas)
        content["text/event-stream"] = {"schema": BODIES["text/event-stream"], "x-event": events}
    return {"description": "The result of the command.", "content": content}


def _events() -> dict[str, Any]:
    """The events that every stream has, beside its chunks, with their data."""
    number, text = {"type": "number"}, {"type": "string"}
    return {
        "StreamProgress": _object(fraction=number, message=text),
        "StreamLog": _object(message=text),
        "ProgressEvent": _event("progress", {"$ref": COMPONENT + "StreamProgress"}),
        "LogEvent": _event("log", {"$ref": COMPONENT + "StreamLog"}),
        "ResultEvent": _event("result", {"$ref": COMPONENT + "CallAnswer"}),
        "ErrorEvent": _event("error", {"$ref": COMPONENT + "Failure"}),
    }


def _event(name: str, data: dict[str, Any]) -> dict[str, Any]:
    return _object(event={"type": "string", "const": name}, data=data)


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _refusal(status: int) -> dict[str, Any]:
    codes = ", ".join(f"`{code}`" for code, error in ERRORS.items() if error.http_status == status)
    content = {"application/json": {"schema": {"$ref": COMPONENT + "Failure"}}}
    return {"description": f"{HTTPStatus(status).phrase}: {codes}.", "content": content}


def _add(name: str, schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Add a component, and return the reference to it."""
    own = _free(name, schemas)
    schemas[own] = schema
    return {"$ref": COMPONENT + own}


def _component(command: str, name: str, schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Add the schema of a command's arguments or result to the components, and return the reference to it."""
    definitions = schema.get("$defs", {})
    plain = {word: value for word, value in schema.items() if word not in ("$schema", "$defs")}
    reference = _add(f"{command}.{name}", {}, schemas)
    # A type may be in the arguments and in the result, where it has another form.
    part = command if name == "arguments" else f"{command}.{name}"
    names = {name: _add(f"{part}.{name}", {}, schemas)["$ref"] for name in definitions}

    def moved(target: str) -> str:
        name = target.removeprefix(LOCAL)
        return str(names[name]) if target.startswith(LOCAL) and name in names else target

    for name, one in definitions.items():
        schemas[names[name].removeprefix(COMPONENT)] = _walked(one, moved)
    schemas[reference["$ref"].removeprefix(COMPONENT)] = _walked(plain, moved)
    return reference


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
    if found.get("type") == "array" and "prefixItems" not in found:
        found.setdefault("items", {})  # openapi-python-client refuses an array without it
    return found
