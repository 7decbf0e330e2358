"""The shapes of answers, for the OpenAPI page and for checking what goes out."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ninja import Field, Schema
from pydantic import StrictInt


class FailureBody(Schema):
    code: str = Field(description="One of the closed list, such as queue_full.")
    message: str
    outcome: str = Field(description="not_started, failed or unknown: what became of the work.")
    details: dict[str, Any]


class Failure(Schema):
    error: FailureBody


def answers(*media: str) -> dict[str, Any]:
    """What the OpenAPI page says of answers that are no JSON: a body of each of these media types."""
    return {"responses": {200: {"description": "OK", "content": {kind: {} for kind in media}}}}


class CallFacts(Schema):
    id: str
    worker: str
    queued_ms: float
    run_ms: float


class CallAnswer(Schema):
    result: Any
    call: CallFacts


class PoolOut(Schema):
    """A pool as it is wanted (its row) and as it is (`live`, from the broker; null while no broker answers)."""

    name: str
    adapter: str
    profile: str
    size: int
    threads: int
    enabled: bool
    paused: bool
    source: str
    revision: int
    updated_at: datetime
    live: dict[str, Any] | None = None


class PoolList(Schema):
    pools: list[PoolOut]
    broker: str = Field(description="reachable, or why not")


class CommandOut(Schema):
    name: str
    summary: str = ""
    description: str = ""
    streams: bool = False
    idempotent: bool = False
    timeout: float | None = None
    # `schema` would hide a method of the base class.
    arguments: dict[str, Any] = Field(default_factory=dict, alias="schema", description="JSON Schema of the arguments")


class CommandList(Schema):
    pool: str
    commands: list[CommandOut]


class _Paged(Schema):
    pool: str = ""
    limit: int | None = Field(default=None, description="Rows on the page; at most SNAKEPIT['PAGE_LIMIT'].")
    cursor: str | None = Field(default=None, description="`next` of the page before.")


class WorkerFilter(_Paged):
    state: str = ""


class EventFilter(_Paged):
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


class WorkerPage(Schema):
    workers: list[WorkerOut]
    next: str | None = Field(description="Pass it as `cursor` for the next page; null: this is the last.")


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
    data: dict[str, Any]


class EventPage(Schema):
    events: list[EventOut]
    next: str | None = Field(description="Pass it as `cursor` for the next, older page; null: this is the last.")


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
    data: dict[str, Any]


class AuditPage(Schema):
    audit: list[AuditOut]
    next: str | None = Field(description="Pass it as `cursor` for the next, older page; null: this is the last.")


class NodeOut(Schema):
    name: str
    address: str
    pid: int
    version: str
    python: str
    clock: str
    draining: bool
    stopped: bool
    problems: list[Any]
    started_at: datetime | None
    seen_at: datetime


class NodeList(Schema):
    nodes: list[NodeOut]


class RecycleIn(Schema):
    """`worker` empty: every worker of the pool, one after another, each replaced before it leaves."""

    model_config = {"extra": "forbid"}

    worker: str = Field(default="", max_length=100)
    reason: str = Field(default="", max_length=200)


class RecycleOut(Schema):
    planned: int


class ScaleIn(Schema):
    model_config = {"extra": "forbid"}

    size: StrictInt = Field(description="Workers that the pool is to have.")
    reason: str = Field(default="", max_length=200)


class ReasonIn(Schema):
    model_config = {"extra": "forbid"}

    reason: str = Field(default="", max_length=200)


class ChangeOut(Schema):
    """What became of a pool's row."""

    pool: str
    size: int
    paused: bool
    changed: bool = Field(description="false: it was so before.")
    in_force: bool = Field(description="false: no broker took it over yet; it will when it reads the row.")
    note: str


class PlannedWorkerOut(Schema):
    id: str
    state: str
    reason: str = Field(description="Why it leaves, or will at the next sweep; empty: nothing is against it.")
    detail: str
    age: float = Field(description="Seconds since it was ready.")
    served: int
    load: int
    seconds_until_ttl: float | None = Field(description="null: no limit, or not ready yet.")
    seconds_until_successor: float | None = Field(
        description="Until its successor starts, so that it is ready when this worker is due; null: no such time."
    )
    calls_until_max: int | None = Field(description="null: no limit, or not ready yet.")
    in_turn: int = Field(description="1 leaves first, if the recycle was ordered now; 0: it has no turn.")
    fate: str = Field(description="What the order would do to it.")


class PlanOut(Schema):
    pool: str
    workers: list[PlannedWorkerOut]
    at_once: int = Field(description="How many are replaced together.")
    max_surge: int
    max_unavailable: int
    load_seconds: float = Field(description="What a start is expected to take, learned; 0: not known yet.")


class FrameOut(Schema):
    file: str
    line: int = Field(description="0: not known.")
    function: str


class ThreadOut(Schema):
    thread: int = Field(description="The kernel's number; the main thread has its process's.")
    name: str
    state: str = Field(description="The kernel's letter: R runs, S sleeps, D waits for a device.")
    cpu_seconds: float
    frames: list[FrameOut] = Field(description="Innermost first.")
    note: str = Field(description="Why there are no frames.")


class KillOut(Schema):
    """A worker whose process is ended."""

    worker: str
    pool: str


class PoolDrainStatusOut(Schema):
    pool: str
    running: int
    waiting: int
    longest: float = Field(description="Seconds that a running call may take at most.")


class DrainStatusOut(Schema):
    """What a node holds, and whether it takes more."""

    node: str
    draining: bool
    since: float = Field(description="Since when an operator drains it, seconds since the epoch; 0: nobody does.")
    actor: str
    reason: str
    running: int
    waiting: int
    empty: bool = Field(description="Nothing runs and nothing waits.")
    pools: list[PoolDrainStatusOut]


class DumpOut(Schema):
    """Where the threads of a worker were, and the calls that it held."""

    worker: str
    pool: str
    pid: int
    at: float = Field(description="Seconds since the epoch.")
    threads: list[ThreadOut]
    calls: list[dict[str, Any]]


class FindingOut(Schema):
    check: str
    status: str = Field(description="ok, warning, problem or skipped.")
    evidence: str
    fix: str = Field(description="Empty: nothing is to be done.")
    pool: str = Field(description="Empty: it is not about one pool.")


class ReportOut(Schema):
    at: float = Field(description="Seconds since the epoch; a report is kept for ten seconds.")
    seconds: float = Field(description="That it took.")
    healthy: bool = Field(description="No finding is a problem.")
    counts: dict[str, int]
    findings: list[FindingOut]


class FieldChangeOut(Schema):
    field: str
    before: Any = Field(serialization_alias="from")
    to: Any


class RecommendationOut(Schema):
    id: str = Field(description="The rule and the pool; names the same advice again, as long as it holds.")
    rule: str
    pool: str
    title: str
    evidence: str = Field(description="The numbers that it rests on.")
    changes: list[FieldChangeOut]
    cost: str = Field(description="Such as +420 MiB; empty: none, or not known.")
    sentence: str
    settings_line: str = Field(description="For a pool of the settings, what to write there. Empty: it can be applied.")


class JudgementOut(Schema):
    rule: str
    pool: str
    verdict: str = Field(description="advised, fine, not enough evidence, or does not apply.")
    evidence: str


class RecommendationsOut(Schema):
    recommendations: list[RecommendationOut]
    judgements: list[JudgementOut] = Field(description="Every rule's word on every pool, the silent ones included.")


class LimitOut(Schema):
    resource: str = Field(description="size (the present one), CPU, memory, or largest size.")
    evidence: str = Field(description="What it was measured on, or what evidence lacks.")
    calls_per_second: float | None = Field(description="Null: not enough evidence.")
    workers: int | None


class ScalingOut(Schema):
    pool: str
    verdict: str = Field(description="measured, or not enough evidence.")
    sentence: str
    binds: str | None = Field(description="The resource that binds first; null: not enough evidence.")
    carries: LimitOut | None = Field(description="What the machine can carry, and the resource that ends it.")
    limits: list[LimitOut]
    lacks: list[str]
    notes: list[str]
    facts: dict[str, Any] = Field(description="The figures used, in seconds, MiB and cores; null: not known.")


class LibraryOut(Schema):
    name: str
    version: str
    status: str = Field(description="safe, conditional, unsafe or unknown, for this pool.")
    reasons: list[str]
    threads: str
    gil: str
    free_threading: str
    since: str
    abis: list[str] = Field(description="Free-threaded ABIs with wheels; empty where nothing tells them apart.")
    wheels: str = Field(description="free_threading, since and abis in a few words.")
    advice: str
    source: str = Field(description="The page about threads, or the one to look at first.")
    wheels_source: str = Field(description="The page about wheels; empty where it is the tracker.")
    checked: str = Field(description="The day on which the source was read; empty where it was not.")


class CompatOut(Schema):
    title: str
    profile: str
    python: str
    free_threaded: bool
    unsafe: bool
    verdicts: list[LibraryOut]
    left_out: int = Field(description="Packages of Python alone that the table does not have.")
    note: str = Field(description="What could not be looked at.")
    races: list[str] = Field(description="State that two threads were seen to write without a lock (thread_checks).")


class Ready(Schema):
    ready: bool
    problems: list[str]
