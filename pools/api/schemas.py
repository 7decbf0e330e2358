"""The schemas of responses and bodies, for the OpenAPI page and for validation."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ninja import Field, Schema
from pydantic import StrictInt

from snakepit.pools.api.bad_rows import Listed
from snakepit.pools.api.bounds import PAGE, SIZE
from snakepit.pools.api.json_value import JsonValue
from snakepit.pools.api.snapshot_schema import SnapshotOut
from snakepit.pools.broker.status import RunningCall


class FailureBody(Schema):
    code: str = Field(description="One of the closed list, such as queue_full.")
    message: str
    outcome: str = Field(description="not_started, failed or unknown: the outcome of the work.")
    details: dict[str, JsonValue] = Field(description="More facts; the list of errors names them for each code.")


class Failure(Schema):
    error: FailureBody


BODIES: dict[str, dict[str, Any]] = {
    # Some readers of OpenAPI apply the schema to the text of all events, and others to each event, an object.
    "text/event-stream": {
        "type": ["string", "object"],
        "description": "Server-sent events: `id`, `event` and `data` as JSON.",
    },
    "text/plain": {"type": "string"},
    "application/octet-stream": {"type": "string", "format": "binary"},
    "application/x-npy": {"type": "string", "format": "binary", "description": "An array as a .npy file."},
    "application/vnd.apache.arrow.stream": {
        "type": "string",
        "format": "binary",
        "description": "A table as an Arrow IPC stream.",
    },
}


def answers(*media: str) -> dict[str, Any]:
    """OpenAPI entry of responses that are not JSON: a body of each of these media types."""
    content = {kind: {"schema": BODIES[kind]} for kind in media}
    return {"responses": {200: {"description": "OK", "content": content}}}


class CallFacts(Schema):
    id: str
    worker: str
    queued_ms: float
    run_ms: float


class CallAnswer(Schema):
    result: Any = Field(description="What the command returned; the pool's own OpenAPI document describes it.")
    call: CallFacts


class CommandOut(Schema):
    name: str
    summary: str = ""
    description: str = ""
    streams: bool = False
    idempotent: bool = False
    timeout: float | None = None
    batch: int = Field(default=0, description="Calls that may run together; 0: each runs alone.")
    batch_wait: float = Field(default=0.0, description="Seconds that calls may wait for more of their batch.")
    # `schema` would hide a method of the base class.
    arguments: dict[str, JsonValue] = Field(
        default_factory=dict, alias="schema", description="JSON Schema of the arguments"
    )
    result_schema: dict[str, JsonValue] = Field(
        default_factory=dict, description="JSON Schema of the result, or of a chunk if it streams; empty: any value."
    )


class CommandList(Schema):
    pool: str
    commands: list[CommandOut]


class _Paged(Schema):
    pool: str = ""
    limit: int | None = Field(default=None, description="At most SNAKEPIT['PAGE_LIMIT'] rows.", json_schema_extra=PAGE)
    cursor: str | None = Field(default=None, description="`next` of the previous page.")


class WorkerFilter(_Paged):
    state: str = ""


class EventFilter(_Paged):
    node: str = Field(default="", max_length=200, description="Name of a node; empty: all nodes.")
    worker: str = ""
    kind: str = ""


class WorkerOut(Schema):
    id: str = Field(alias="worker_id")
    node: str = Field(alias="node.name")
    pool: str
    state: str
    reason: str
    pid: int
    generation: int
    load: int
    capacity: int
    lost: int
    served: int
    memory_mb: float | None
    gil: str
    gil_culprit: str
    python: str
    parallelism: float
    load_seconds: float
    template: str
    started_at: datetime | None
    seen_at: datetime
    gone_at: datetime | None


class WorkerPage(Listed):
    workers: list[WorkerOut]
    next: str | None = Field(description="Pass it as `cursor` for the next page; null: this is the last page.")


class EventOut(Schema):
    id: int
    at: datetime
    node: str
    kind: str
    pool: str
    worker: str
    reason: str
    message: str
    level: str
    data: dict[str, JsonValue]


class EventPage(Listed):
    events: list[EventOut]
    next: str | None = Field(description="Pass it as `cursor` for the next, older page; null: this is the last page.")


class AuditFilter(_Paged):
    actor: str = ""
    action: str = ""
    target: str = ""
    outcome: str = ""


class AuditOut(Schema):
    id: int
    at: datetime
    actor: str
    action: str
    pool: str
    target: str
    reason: str
    surface: str
    address: str
    outcome: str
    message: str
    data: dict[str, JsonValue]


class AuditPage(Listed):
    audit: list[AuditOut]
    next: str | None = Field(description="Pass it as `cursor` for the next, older page; null: this is the last page.")


class NodeOut(Schema):
    name: str
    address: str
    labels: list[str] = Field(description="key=value; pools are placed by them.")
    advertised: list[str] = Field(description="Addresses by which other hosts reach its broker.")
    pid: int
    version: str
    python: str
    clock: str
    draining: bool
    stopped: bool
    problems: list[str]
    started_at: datetime | None
    seen_at: datetime


class NodeList(Listed):
    nodes: list[NodeOut]


class ScaleIn(Schema):
    model_config = {"extra": "forbid"}

    size: StrictInt = Field(description="New number of workers.", json_schema_extra=SIZE)
    reason: str = Field(default="", max_length=200)


class ReasonIn(Schema):
    model_config = {"extra": "forbid"}

    reason: str = Field(default="", max_length=200)


class ChangeOut(Schema):
    """The changed row of a pool."""

    pool: str
    size: int
    paused: bool
    changed: bool = Field(description="false: the row had this value before.")
    in_force: bool = Field(description="false: no broker has applied it yet; a broker does when it reads the row.")
    note: str = Field(description="What to know about it: how long it lasts, or that the memory does not hold a size.")


class PlannedWorkerOut(Schema):
    id: str
    state: str
    reason: str = Field(description="Why it leaves, or will leave at the next sweep; empty: nothing scheduled.")
    detail: str
    age: float = Field(description="Seconds since it was ready.")
    served: int
    load: int
    seconds_until_ttl: float | None = Field(description="null: no limit, or not ready yet.")
    seconds_until_successor: float | None = Field(
        description="Until its successor starts, so that it is ready when this worker is due; null: no limit."
    )
    calls_until_max: int | None = Field(description="null: no limit, or not ready yet.")
    in_turn: int = Field(description="1 leaves first if the recycle is ordered now; 0: it stays.")
    effect: str = Field(description="What the order would do to it.")


class PlanOut(Schema):
    pool: str
    workers: list[PlannedWorkerOut]
    at_once: int = Field(description="Workers that are replaced together.")
    max_surge: int
    max_unavailable: int
    load_seconds: float = Field(description="Expected time of a start; 0: not known yet.")


class FrameOut(Schema):
    file: str
    line: int = Field(description="0: not known.")
    function: str


class ThreadOut(Schema):
    thread: int = Field(description="The kernel's thread id; the main thread has the process id.")
    name: str
    state: str = Field(description="The kernel's letter: R runs, S sleeps, D waits for a device.")
    cpu_seconds: float
    frames: list[FrameOut] = Field(description="Innermost first.")
    note: str = Field(description="Why there are no frames.")


class KillOut(Schema):
    """A worker whose process was killed."""

    worker: str
    pool: str


class PoolDrainStatusOut(Schema):
    pool: str
    running: int
    waiting: int
    longest: float = Field(description="Seconds that a running call may still take.")


class DrainStatusOut(Schema):
    """Whether a node takes calls, and what it still holds."""

    node: str
    draining: bool
    since: float = Field(description="When an operator drained it, seconds since the epoch; 0: no operator did.")
    actor: str
    reason: str
    running: int
    waiting: int
    empty: bool = Field(description="No call runs and none waits.")
    pools: list[PoolDrainStatusOut]
    snapshot: SnapshotOut | None = Field(None, description="The age of these numbers; null if an order returned them.")


class DumpOut(Schema):
    """Where the threads of a worker were, and the calls that it held."""

    worker: str
    pool: str
    pid: int
    at: float = Field(description="Seconds since the epoch.")
    threads: list[ThreadOut]
    calls: list[RunningCall]


class Live(Schema):
    live: bool


class Ready(Schema):
    ready: bool
    problems: list[str]
