"""The schema of a value whose form a command, an event or an error decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typing_extensions import TypeAliasType

if TYPE_CHECKING:
    JsonValue = Any
else:
    # A named alias becomes one schema that refers to itself; pydantic's own JsonValue becomes an empty one.
    JsonValue = TypeAliasType("JsonValue", "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None")
