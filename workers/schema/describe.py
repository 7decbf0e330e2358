"""Describes an adapter's class without making an instance: `python -m snakepit.workers --describe PATH`."""

from __future__ import annotations

import json
from typing import Any

from snakepit.workers.schema.commands import find_commands, has_preload, load_class


def describe(path: str) -> dict[str, Any]:
    """The adapter's class and its commands with their schemas. Raises what loading the class raises."""
    kind = load_class(path)
    return {
        "adapter": path,
        "thread_safe": kind.thread_safe is True,
        "preload": has_preload(kind),
        "commands": [command.facts() for command in find_commands(kind).values()],
    }


def as_text(described: dict[str, Any]) -> str:
    safe = "thread-safe" if described["thread_safe"] else "not thread-safe: process profile only"
    start = "forked from a template" if described["preload"] else "spawned: it has no preload()"
    lines = [f"{described['adapter']} ({safe}; workers are {start})"]
    for command in described["commands"]:
        marks = [word for word in ("streams", "idempotent") if command[word]]
        if command["timeout"]:
            marks.append(f"timeout {command['timeout']:g} s")
        lines += ["", command["name"] + (f" ({', '.join(marks)})" if marks else "")]
        if command["summary"]:
            lines.append(f"  {command['summary']}")
        lines.append(f"  {json.dumps(command['schema'])}")
        if command["result_schema"]:
            lines.append(f"  {'chunk' if command['streams'] else 'result'}: {json.dumps(command['result_schema'])}")
    return "\n".join(lines)
