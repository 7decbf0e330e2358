"""Protobuf answers of the broker as plain values, fit for JSON, with the field names of broker.proto.

>>> plain(Pool(name="digits", finished=3.0))["finished"]
3
"""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.message import Message

from snakepit.pools.wire.broker_pb2 import CommandsReply, PlanReply, Pool, StatusReply, Worker

# Counters are doubles on the wire, because they outgrow 32 bits and JSON readers round 64; they are whole numbers.
COUNTERS = frozenset({"finished", "failed", "refused", "retried", "recycled", "died", "served"})


def plain(message: Message) -> dict[str, Any]:
    """Every field of a message, set or not; one that says by its absence that there is nothing to say is None."""
    values = {}
    for field in message.DESCRIPTOR.fields:
        silent = field.has_presence and field.message_type is None and not message.HasField(field.name)
        values[field.name] = None if silent else _value(field.name, getattr(message, field.name))
    return values


def _value(name: str, value: Any) -> Any:
    if isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return int(value) if name in COUNTERS else round(value, 6)
    if isinstance(value, Message):
        return plain(value)
    return [_value(name, item) for item in value]


def status(reply: StatusReply) -> dict[str, Any]:
    """The shape of `snakepit status --json`: node, pools, workers."""
    return {
        "node": plain(reply.node),
        "pools": [plain(pool) for pool in reply.pools],
        "workers": [plain(worker) for worker in reply.workers],
    }


def watch(reply: StatusReply) -> dict[str, Any]:
    """The same with `events`, the oldest first, and `figures`: the histograms of each pool by its name."""
    figures = {
        one.pool: {"ran": dict(one.ran), "queued": dict(one.queued), "recycled": dict(one.recycled)}
        for one in reply.figures
    }
    return {**status(reply), "events": [plain(event) for event in reply.events], "figures": figures}


def plan(pool: str, reply: PlanReply) -> dict[str, Any]:
    """What a recycle would do; None where a worker has no limit of age or count."""
    return {"pool": pool, **plain(reply)}


def commands(reply: CommandsReply) -> list[dict[str, Any]]:
    return [
        {
            "name": command.name,
            "summary": command.summary,
            "description": command.description,
            "streams": command.streams,
            "idempotent": command.idempotent,
            "timeout": command.timeout,
            "schema": json.loads(command.schema) if command.schema else {},
        }
        for command in reply.commands
    ]


__all__ = ["Pool", "Worker", "commands", "plain", "plan", "status", "watch"]
