"""What an adapter offers, without making one: for `python -m snakepit.workers --describe package.module.Class`."""

from __future__ import annotations

import json
from typing import Any

from snakepit.workers.schema.commands import find_commands, has_preload, load_class


def describe(path: str) -> dict[str, Any]:
    """The adapter's class and its commands, with the schema of each; raises what loading it raises."""
    kind = load_class(path)
    return {
        "adapter": path,
        "thread_safe": kind.thread_safe is True,
        "preload": has_preload(kind),
        "commands": [command.facts() for command in find_commands(kind).values()],
    }


def as_text(described: dict[str, Any]) -> str:
    safe = "thread-safe" if described["thread_safe"] else "not thread-safe: process profile only"
    born = "forked from a template" if described["preload"] else "spawned: it has no preload()"
    lines = [f"{described['adapter']} ({safe}; workers are {born})"]
    for command in described["commands"]:
        marks = [word for word in ("streams", "idempotent") if command[word]]
        if command["timeout"]:
            marks.append(f"timeout {command['timeout']:g} s")
        lines += ["", command["name"] + (f" ({', '.join(marks)})" if marks else "")]
        if command["summary"]:
            lines.append(f"  {command['summary']}")
        lines.append(f"  {json.dumps(command['schema'])}")
    return "\n".join(lines)
