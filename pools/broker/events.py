"""Events: what the broker decided or observed, with its reason and numbers.

Logs, rows, metrics and the signal `pools.signals.event` all read this one stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    NODE_STARTED = "node.started"
    NODE_STOPPING = "node.stopping"
    POOL_APPLIED = "pool.applied"  # a definition came into force
    POOL_REMOVED = "pool.removed"
    POOL_INVALID = "pool.invalid"  # a definition was refused; the previous one stays in force
    POOL_FAILED = "pool.failed"
    POOL_RECOVERED = "pool.recovered"
    POOL_SATURATED = "pool.saturated"  # the queue is full; calls are refused
    TEMPLATE_STARTED = "template.started"  # it is loaded, and safe to fork
    TEMPLATE_REFUSED = "template.refused"  # workers are spawned instead
    TEMPLATE_DIED = "template.died"  # its workers go on
    TEMPLATE_ENDED = "template.ended"  # it is outdated or not needed any more
    WORKER_STARTING = "worker.starting"
    WORKER_STARTED = "worker.started"
    WORKER_DRAINING = "worker.draining"
    WORKER_RECYCLED = "worker.recycled"  # it exited on purpose; its successor is ready
    WORKER_DIED = "worker.died"
    WORKER_KILLED = "worker.killed"
    WORKER_UNHEALTHY = "worker.health_check_failed"
    SLOT_LOST = "slot.lost"
    THREAD_RACE = "thread.race"  # with thread_checks: unlocked writes from two threads; data has both stacks
    GIL_ENABLED = "gil.enabled"  # in a free-threaded interpreter, by an import or by its environment
    CALL_RETRIED = "call.retried"
    COMMAND_SUSPENDED = "command.suspended"  # it ended its workers too often; its calls are refused for a while
    COMMAND_RESUMED = "command.resumed"
    CLOCK_MISSING = "clock.missing"
    CLOCK_FOUND = "clock.found"
    ORPHANS_REAPED = "orphans.reaped"
    OPERATOR_ACTED = "operator.acted"  # a person changed or ordered something; data has actor, action and reason


@dataclass(frozen=True, slots=True)
class Event:
    kind: Kind
    pool: str = ""
    worker: str = ""
    reason: str = ""  # one word: ttl, max_requests, memory_soft, memory_hard, health, definition, operator, ...
    message: str = ""  # the sentence an operator reads, with its numbers
    level: str = "info"  # info, warning or error
    data: Mapping[str, Any] = field(default_factory=dict)  # the numbers, fit for JSON
