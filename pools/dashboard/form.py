"""A form from the JSON Schema of a command's arguments. Values without a field of their own are typed as JSON.

>>> schema = {"properties": {"text": {"type": "string"}, "n": {"type": "integer", "minimum": 1}}, "required": ["n"]}
>>> [(field.name, field.kind, field.about, field.attributes) for field in fields(schema)]
[('n', 'number', 'whole number', (('step', '1'), ('min', '1'))), ('text', 'text', 'text', ())]
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "array": "list",
         "object": "object", "null": "null"}  # fmt: skip
LIMITS = {"minimum": "min", "maximum": "max", "minLength": "minlength", "maxLength": "maxlength"}


@dataclass(frozen=True, slots=True)
class Field:
    """`kind` is number, text, choice or json; `value` is the initial text of its element."""

    name: str
    kind: str
    required: bool
    about: str
    value: str
    choices: tuple[str, ...] = ()  # as JSON
    attributes: tuple[tuple[str, str], ...] = ()


def fields(schema: dict[str, Any], given: dict[str, Any] | None = None) -> list[Field]:
    """Required fields first, each group in the order of the signature. `given` are initial arguments."""
    properties: dict[str, Any] = schema.get("properties", {})
    required = set(schema.get("required", ()))
    values = given or {}
    found = [_field(name, _resolved(one, schema), name in required, values) for name, one in properties.items()]
    return sorted(found, key=lambda field: not field.required)


def _field(name: str, schema: dict[str, Any], required: bool, given: dict[str, Any]) -> Field:
    kind, choices = _kind(schema)
    start = given[name] if name in given else (schema.get("examples") or [None])[0] if required else None
    known = name in given or start is not None
    attributes = [(attribute, str(schema[key])) for key, attribute in LIMITS.items() if key in schema]
    if kind == "number":
        attributes.insert(0, ("step", "1" if schema.get("type") == "integer" else "any"))
    about = _about(schema)
    if "default" in schema:
        about = f"{about}; left empty: {json.dumps(schema['default'], ensure_ascii=False)}"
    return Field(name, kind, required, about, _text(start, kind) if known else "", choices, tuple(attributes))


def _kind(schema: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    if "enum" in schema:
        return "choice", tuple(json.dumps(one, ensure_ascii=False) for one in schema["enum"])
    kind = schema.get("type")
    if kind == "boolean":
        return "choice", ("true", "false")
    if kind in ("integer", "number"):
        return "number", ()
    return ("text", ()) if kind == "string" else ("json", ())


def _about(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return "one of a list"
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(_about(one) for one in options)) + ", as JSON"
    kind = schema.get("type")
    if kind == "array" and isinstance(schema.get("items"), dict) and schema["items"]:
        return f"list of {WORDS.get(str(schema['items'].get('type')), 'anything')}, as JSON"
    word = WORDS.get(str(kind), "anything")
    return f"{word}, as JSON" if kind in ("array", "object", None) else word


def _text(value: Any, kind: str) -> str:
    return value if kind == "text" and isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _resolved(schema: Any, root: dict[str, Any]) -> dict[str, Any]:
    """The schema behind a reference into `$defs`. One step is enough, because nested values are typed as JSON."""
    if not isinstance(schema, dict):
        return {}
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    found: dict[str, Any] = root.get("$defs", {}).get(name, {}) if name else schema
    return found
