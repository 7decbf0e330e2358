"""A JSON Schema as a short text for people, in the notation of TypeScript.

{"type": "array", "items": {"$ref": "#/$defs/Match"}} ──type_text──▶ Match[]
                                                      named_types──▶ Match = {label: string, score: number}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from snakepit.pools.broker.status import CommandInfo

LOCAL = "#/$defs/"
MOST = 8  # members of a choice, and items of a tuple, that are written out


def type_text(schema: Any) -> str:
    """The type that a schema describes.

    >>> type_text({"type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "null"}]}})
    '(integer | null)[]'
    >>> type_text({"type": "object", "properties": {"$bytes": {"type": "string"}}}), type_text({})
    ('bytes', 'any')
    """
    if not isinstance(schema, Mapping):
        return "any"
    if isinstance(schema.get("$ref"), str):
        return str(schema["$ref"]).removeprefix(LOCAL)
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list):
            return " | ".join(dict.fromkeys(type_text(one) for one in schema[word]))
    if isinstance(schema.get("enum"), list):
        return _choice(schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return _array(schema)
    if kind == "object":
        return _object(schema)
    if isinstance(kind, list):
        return " | ".join(map(str, kind))
    if schema.get("contentEncoding") == "base64":
        return "bytes"
    return str(schema.get("format") or kind or "any")


def _choice(values: list[Any]) -> str:
    shown = [json.dumps(value, ensure_ascii=False) for value in values[:MOST]]
    return " | ".join(shown + ["..."] * (len(values) > MOST))


def _array(schema: Mapping[str, Any]) -> str:
    if isinstance(schema.get("prefixItems"), list):
        items = [type_text(one) for one in schema["prefixItems"][:MOST]]
        return f"[{', '.join(items + ['...'] * (len(schema['prefixItems']) > MOST))}]"
    item = type_text(schema.get("items", {}))
    return f"({item})[]" if " | " in item else f"{item}[]"


def _object(schema: Mapping[str, Any]) -> str:
    properties, required = schema.get("properties") or {}, schema.get("required", ())
    if len(properties) == 1 and next(iter(properties))[:1] == "$":  # a tag
        return str(next(iter(properties)))[1:]
    if properties:
        fields = (f"{name}{'' if name in required else '?'}: {type_text(one)}" for name, one in properties.items())
        return "{" + ", ".join(fields) + "}"
    others = schema.get("additionalProperties")
    return f"{{[key]: {type_text(others)}}}" if isinstance(others, Mapping) and others else "object"


def named_types(schema: Mapping[str, Any]) -> Iterator[str]:
    """A line for each type that `type_text` only names.

    >>> list(named_types({"$defs": {"Point": {"type": "object", "properties": {"x": {"type": "number"}}}}}))
    ['Point = {x?: number}']
    """
    for name, one in (schema.get("$defs") or {}).items():
        yield f"{name} = {type_text(one)}"


def result_text(command: CommandInfo) -> str:
    """The type of a command's result.

    >>> result_text(CommandInfo("count", result_schema='{"type": "integer"}', streams=True))
    'stream of integer'
    """
    return ("stream of " if command.streams else "") + type_text(command.result)


def signature_text(command: CommandInfo) -> str:
    """A command with the types of its arguments and result.

    >>> schema = '{"properties": {"text": {"type": "string"}, "top": {"type": "integer"}}, "required": ["text"]}'
    >>> signature_text(CommandInfo("words", schema=schema, result_schema='{"type": "array"}'))
    'words(text: string, top?: integer) -> any[]'
    """
    properties, required = command.arguments.get("properties") or {}, command.arguments.get("required", ())
    arguments = (f"{name}{'' if name in required else '?'}: {type_text(one)}" for name, one in properties.items())
    return f"{command.name}({', '.join(arguments)}) -> {result_text(command)}"
