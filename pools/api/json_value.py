"""The schema of a value whose form a command, an event or an error decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import WithJsonSchema
from typing_extensions import TypeAliasType

# What is inside a list or an object has no type here: TypeScript refuses a union that refers to itself.
INNER = {"description": "A JSON value."}
FORMS: list[dict[str, Any]] = [
    {"type": "boolean"},
    {"type": "number"},
    {"type": "string"},
    {"type": "array", "items": INNER},
    {"type": "object", "additionalProperties": INNER},
    {"type": "null"},
]

if TYPE_CHECKING:
    JsonValue = Any
else:
    JsonValue = TypeAliasType("JsonValue", Annotated[Any, WithJsonSchema({"anyOf": FORMS})])
