"""What a broker reports about itself: frozen values from the broker to the client, screens, shell, REST and metrics.

    runner ─▶ snapshot ─▶ BrokerStatus ─┬─▶ recorder, metrics          (in the broker's process)
                                        └─▶ protobuf ─▶ client ─▶ dashboard, shell, diagnostics, REST

`as_json` makes JSON-ready data of them. None: not known, or no such limit. Times are seconds, memory is MiB of PSS.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from operator import attrgetter
from typing import Any

from snakepit.pools.broker.caller import QuotaStatus
from snakepit.pools.broker.command_status import BatchStatus, CommandRunTimes
from snakepit.pools.broker.node_status import NodeStatus as NodeStatus

PLAIN = frozenset({str, int, float, bool, type(None)})  # what JSON takes as it is
NOT_READ = "the definitions cannot be read"  # how a node's problem begins, such as while the database is away
BEAT, NO_SWEEP_YET, CLOCK_MISSING = "beat", "waiting", "lifecycle clock missing"  # what drives the lifecycle


@dataclass(frozen=True, slots=True)
class CommandGrowthStatus:
    """How much one command makes its workers grow."""

    command: str
    mb_per_1000_calls: float | None  # None: see the verdict
    error: float | None  # one standard deviation of it
    calls: int
    samples: int  # pairs of samples between which the command ran
    verdict: str  # "measured", "not enough evidence" or "cannot be told apart" (it only ran together with others)


@dataclass(frozen=True, slots=True)
class GrowthStatus:
    """How memory grows with the calls: of a worker, or of all workers of a pool's generation together."""

    mb_per_1000_calls: float | None  # None: not enough evidence, less than 20 calls or 3 pairs of samples
    calls: int  # calls that ended between two samples of a worker
    samples: int  # pairs of samples
    mostly: str  # the command that makes more than half of the growth; empty: none, or not known
    verdict: str  # "measured" or "not enough evidence"
    commands: tuple[CommandGrowthStatus, ...] = ()  # of a pool, the largest growth first


@dataclass(frozen=True, slots=True)
class UsageStatus:
    """How a pool was used in the last ten minutes, or since its definition came into force."""

    seconds: float  # length of this window
    answered: int  # calls that were answered, with a result or an error
    calls_per_second: float | None  # None: the window has no length yet
    busy: float | None  # share of the slot time that was taken, by one reading a second; None: there was no slot
    peak: int  # most slots that were taken together
    waited: int  # calls whose wait for a slot is known
    wait_p50: float | None  # seconds, within a tenth; None: no call waited
    wait_p95: float | None
    refused: int  # the queue was full
    timed_out: int  # no slot was free within queue_timeout
    overran: int  # the deadline passed
    lost: int  # the worker died
    not_admitted: int  # refused for another reason, such as a paused pool or a limit; not in `answered`
    cpu_per_call: float | None  # CPU seconds of worker and descendants; None: of fewer than 20 calls
    cpu_calls: int  # calls that this figure is of


@dataclass(frozen=True, slots=True)
class TemplateStatus:
    """What workers are forked from, or why each is started as a new process."""

    state: str  # "off" (not configured), "absent" (made by the next start), "loading", "ready" or "refused"
    reason: str  # of "off" and "refused": off, thread_profile, no_preload, unsafe, load_failed, ...
    why: str  # the same as a sentence
    id: str  # of the newest template; empty: there was none yet
    pid: int  # 0: there is none now
    generation: int
    memory_mb: float  # -1: not measured yet
    load_seconds: float
    deaths: int  # templates of this pool that died
    output: tuple[str, ...]  # the last lines that it printed


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """One pool. Counters rise from the broker's start."""

    name: str
    profile: str  # "process" or "thread"
    adapter: str
    state: str  # "starting", "ready", "degraded", "paused", "failed" or "stopping"
    reason: str  # why it is in this state, where it is not simply ready
    size: int  # desired number of workers
    ready: int
    busy: int  # ready workers with at least one call
    slots: int  # of ready workers
    free: int  # slots that would take a call now
    lost: int  # slots that are held by threads that did not stop
    waiting: int  # calls without a slot
    oldest_wait: float
    queue_limit: int
    generation: int
    finished: int
    failed: int
    refused: int
    retried: int
    recycled: int
    died: int
    memory_mb: float  # of all workers and the template
    warnings: tuple[str, ...]  # what works, but differently from what the definition suggests
    interpreter: str  # which interpreter runs the workers, and why; empty: the broker's own
    load_seconds: float  # from the start of a worker until it is ready, the longest of the last five; 0: not known yet
    growth: GrowthStatus
    gil: str  # of ready workers with threads: "off", or "on" if it is on in one of them; empty: not known
    gil_culprit: str  # module whose import switched the GIL on, where known
    parallelism: float  # slots of a worker that run together, of the ready worker with the fewest; 0: not measured
    parallel: str  # the same as a sentence, with the reason
    suspended: tuple[str, ...]  # commands that ended their workers too often: their calls are refused for a while
    races: tuple[str, ...]  # with thread_checks: state that two threads wrote without a common lock
    prefetched: int  # of `waiting`: calls that were sent to a busy worker before a slot was free
    run_times: tuple[CommandRunTimes, ...]
    batches: tuple[BatchStatus, ...]  # of commands that run in batches, by name
    buffer_bytes: int  # of the arguments in shared memory, of calls that wait or run
    usage: UsageStatus
    template: TemplateStatus

    @property
    def taken(self) -> int:
        """Slots that hold a call."""
        return self.slots - self.free

    @property
    def answered(self) -> int:
        """Calls that the pool accepted and that have ended."""
        return self.finished + self.failed

    @property
    def buffer_mb(self) -> float:
        """MiB of arguments in shared memory."""
        return self.buffer_bytes / 2**20


@dataclass(frozen=True, slots=True)
class RunningCall:
    """A call in a worker's slot."""

    id: str
    command: str
    seconds: float  # since it was assigned
    remaining: float  # until its deadline


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker's process."""

    id: str
    pool: str
    pid: int  # 0: the process is not there yet
    state: str  # "starting", "ready", "draining" or "stopping"
    reason: str  # why it drains or stops
    load: int  # calls that run
    capacity: int  # slots
    lost: int  # slots that are held by threads that did not stop
    served: int
    memory_mb: float  # with its descendants; -1: not measured yet
    gil: str  # "on" or "off"; empty: not known yet
    gil_culprit: str  # module whose import switched the GIL on, where known
    generation: int
    started_at: float  # seconds since the epoch; 0: not started yet
    load_seconds: float  # time to load its adapter, as the worker reports it
    python: str
    parallelism: float  # slots that run at the same time, measured; 0: not measured
    calls: tuple[RunningCall, ...]
    output: tuple[str, ...]  # the last lines that it printed
    due_in: float | None  # seconds until its age limit (ttl); None: no limit, or not ready yet
    expected: bool  # it is due so soon that its successor starts already; it serves until then
    growth: GrowthStatus  # without commands
    silent_for: float  # seconds that its event loop has not answered a probe; 0: it answered
    prefetched: int  # calls that were sent before a slot was free and have not begun
    mb_per_hour: float | None  # slope of its memory since its first call; None: under 4 samples or 4 minutes
    template: str  # id of the template that it was forked from; empty: it was started as a new process
    sandbox: str = ""  # what the kernel keeps from it, such as "network, files (Landlock 7)"; empty: nothing

    @property
    def activity(self) -> str:
        """The state; "busy" for a ready worker with a call."""
        return "busy" if self.state == "ready" and self.load else self.state

    @property
    def call(self) -> RunningCall | None:
        """The oldest running call."""
        return self.calls[0] if self.calls else None

    @property
    def measured_mb(self) -> float | None:
        """Its memory; None: not measured yet."""
        return self.memory_mb if self.memory_mb >= 0 else None


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event with its number; numbers rise by one while the broker lives."""

    seq: int
    at: float  # seconds since the epoch
    kind: str
    pool: str
    worker: str
    reason: str
    message: str
    level: str  # "info", "warning" or "error"
    node: str = ""  # of its broker; the client adds it


@dataclass(frozen=True, slots=True)
class PoolHistograms:
    """How long a pool's calls ran and waited since the broker started, as counts by bucket (stats.histogram)."""

    ran: Mapping[int, int] = field(default_factory=dict)
    queued: Mapping[int, int] = field(default_factory=dict)
    recycled: Mapping[str, int] = field(default_factory=dict)  # workers that were replaced, by reason


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """The broker, its pools and their workers at one moment. Events and histograms are there for watchers only."""

    node: NodeStatus
    pools: tuple[PoolStatus, ...]
    workers: tuple[WorkerStatus, ...]
    events: tuple[RecordedEvent, ...] = field(default=(), metadata={"json": False})  # the oldest first
    histograms: Mapping[str, PoolHistograms] = field(default_factory=dict, metadata={"json": False})  # by pool
    quotas: tuple[QuotaStatus, ...] = field(default=(), metadata={"json": False})

    def pool(self, name: str) -> PoolStatus | None:
        return next((one for one in self.pools if one.name == name), None)

    def worker(self, ident: str) -> WorkerStatus | None:
        return next((one for one in self.workers if one.id == ident), None)

    def workers_of(self, pool: str) -> tuple[WorkerStatus, ...]:
        return tuple(one for one in self.workers if one.pool == pool)


@dataclass(frozen=True, slots=True)
class PlannedWorker:
    """What a recycle would do to one worker, and what its limits of age and count will do."""

    id: str
    state: str
    reason: str  # why it leaves, or will leave at the next sweep; empty: nothing scheduled
    detail: str
    age: float  # seconds since it was ready
    served: int
    load: int
    seconds_until_ttl: float | None  # None: no limit, or not ready yet
    calls_until_max: int | None  # None: no limit, or not ready yet
    in_turn: int  # 1 leaves first if the recycle is ordered now; 0: it stays
    effect: str  # what the order would do to it, as a clause
    seconds_until_successor: float | None  # its age limit less the time of a start; 0: it starts now, or has started


@dataclass(frozen=True, slots=True)
class RecyclePlan:
    """What a recycle that is ordered now would replace."""

    pool: str
    workers: tuple[PlannedWorker, ...]  # in the order of their start
    at_once: int  # workers that are replaced together
    max_surge: int
    max_unavailable: int
    load_seconds: float  # expected time of a start; 0: not known yet


@dataclass(frozen=True, slots=True)
class StackFrame:
    """One Python frame."""

    file: str
    line: int  # 0: not known
    function: str


@dataclass(frozen=True, slots=True)
class ThreadStack:
    """Where one thread of a worker is, innermost frame first."""

    thread: int  # the kernel's thread id; the main thread has the process id
    name: str
    state: str  # the kernel's letter: R runs, S sleeps, D waits for a device
    cpu_seconds: float  # used since the thread started
    frames: tuple[StackFrame, ...] = ()
    note: str = ""  # why there are no frames


@dataclass(frozen=True, slots=True)
class WorkerDump:
    """Where the threads of a worker were at a moment, and the calls that it held."""

    worker: str
    pool: str
    pid: int
    at: float  # seconds since the epoch
    threads: tuple[ThreadStack, ...]  # the main thread first
    calls: tuple[RunningCall, ...]


@dataclass(frozen=True, slots=True)
class CommandInfo:
    """A command as its worker describes it."""

    name: str
    summary: str = ""
    description: str = ""
    streams: bool = False
    idempotent: bool = False
    timeout: float = 0.0  # seconds; 0: the pool's default
    schema: str = "{}"  # JSON Schema of the arguments, as text
    batch: int = 0  # calls that may run together; 0: each runs alone
    batch_wait: float = 0.0  # seconds that calls may wait for more of them
    result_schema: str = "{}"  # JSON Schema of one result's JSON form, or of one chunk, as text; {}: any value

    @property
    def arguments(self) -> dict[str, Any]:
        """The JSON Schema of its arguments."""
        return dict(json.loads(self.schema or "{}"))

    @property
    def result(self) -> dict[str, Any]:
        """The JSON Schema of its result, or of a chunk if it streams; empty: any value."""
        return dict(json.loads(self.result_schema or "{}"))


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What one sweep looked at."""

    pools: int
    workers: int
    planned: int  # workers that will be replaced


def as_json(value: Any) -> Any:
    """A status as JSON-ready data: objects by field name, tuples as lists. The schemas of a command are objects."""
    if type(value) in PLAIN:
        return value
    if is_dataclass(value):
        if isinstance(value, CommandInfo):
            return _object(value) | {"schema": value.arguments, "result_schema": value.result}
        return _object(value)
    if isinstance(value, Mapping):
        return {key: as_json(one) for key, one in value.items()}
    return [as_json(one) for one in value] if isinstance(value, tuple | list) else value


def _object(value: Any) -> dict[str, Any]:
    names, read = _fields(value.__class__)
    # Plain values first, without a call: a broker with many workers does this for thousands of fields.
    return {name: one if type(one) in PLAIN else as_json(one) for name, one in zip(names, read(value), strict=True)}


@cache
def _fields(kind: type) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    """The names of a class's fields, and a function that reads them; a status has two fields or more."""
    names = tuple(one.name for one in fields(kind) if one.metadata.get("json", True))
    return names, attrgetter(*names)
