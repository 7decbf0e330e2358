from snakepit.workers.wire import worker_pb2 as _worker_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Requests(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[Request]
    def __init__(self, requests: _Optional[_Iterable[_Union[Request, _Mapping]]] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("call", "cancel", "credit", "calls")
    CALL_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    call: Call
    cancel: Cancel
    credit: Credit
    calls: Calls
    def __init__(self, call: _Optional[_Union[Call, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., calls: _Optional[_Union[Calls, _Mapping]] = ...) -> None: ...

class Call(_message.Message):
    __slots__ = ("ref", "pool", "command", "arguments", "attachments", "timeout", "priority", "credit", "credit_bytes", "direct_reply", "caller", "buffers", "buffer", "affinity")
    class AttachmentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    REF_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIRECT_REPLY_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    BUFFER_FIELD_NUMBER: _ClassVar[int]
    AFFINITY_FIELD_NUMBER: _ClassVar[int]
    ref: int
    pool: str
    command: str
    arguments: bytes
    attachments: _containers.ScalarMap[str, bytes]
    timeout: float
    priority: int
    credit: int
    credit_bytes: int
    direct_reply: bool
    caller: Caller
    buffers: bool
    buffer: int
    affinity: str
    def __init__(self, ref: _Optional[int] = ..., pool: _Optional[str] = ..., command: _Optional[str] = ..., arguments: _Optional[bytes] = ..., attachments: _Optional[_Mapping[str, bytes]] = ..., timeout: _Optional[float] = ..., priority: _Optional[int] = ..., credit: _Optional[int] = ..., credit_bytes: _Optional[int] = ..., direct_reply: bool = ..., caller: _Optional[_Union[Caller, _Mapping]] = ..., buffers: bool = ..., buffer: _Optional[int] = ..., affinity: _Optional[str] = ...) -> None: ...

class Caller(_message.Message):
    __slots__ = ("key", "owner", "key_limits", "owner_limits")
    KEY_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    KEY_LIMITS_FIELD_NUMBER: _ClassVar[int]
    OWNER_LIMITS_FIELD_NUMBER: _ClassVar[int]
    key: str
    owner: str
    key_limits: Limits
    owner_limits: Limits
    def __init__(self, key: _Optional[str] = ..., owner: _Optional[str] = ..., key_limits: _Optional[_Union[Limits, _Mapping]] = ..., owner_limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("calls_per_second", "calls_burst", "calls_in_flight", "calls_waiting", "share")
    CALLS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    CALLS_BURST_FIELD_NUMBER: _ClassVar[int]
    CALLS_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    CALLS_WAITING_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    calls_per_second: float
    calls_burst: int
    calls_in_flight: int
    calls_waiting: int
    share: float
    def __init__(self, calls_per_second: _Optional[float] = ..., calls_burst: _Optional[int] = ..., calls_in_flight: _Optional[int] = ..., calls_waiting: _Optional[int] = ..., share: _Optional[float] = ...) -> None: ...

class Calls(_message.Message):
    __slots__ = ("refs", "pool", "command", "arguments", "timeout", "priority", "buffers", "credit", "credit_bytes")
    REFS_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    refs: _containers.RepeatedScalarFieldContainer[int]
    pool: str
    command: str
    arguments: _containers.RepeatedScalarFieldContainer[bytes]
    timeout: float
    priority: int
    buffers: bool
    credit: int
    credit_bytes: int
    def __init__(self, refs: _Optional[_Iterable[int]] = ..., pool: _Optional[str] = ..., command: _Optional[str] = ..., arguments: _Optional[_Iterable[bytes]] = ..., timeout: _Optional[float] = ..., priority: _Optional[int] = ..., buffers: bool = ..., credit: _Optional[int] = ..., credit_bytes: _Optional[int] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("ref",)
    REF_FIELD_NUMBER: _ClassVar[int]
    ref: int
    def __init__(self, ref: _Optional[int] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("ref", "chunks")
    REF_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    ref: int
    chunks: int
    def __init__(self, ref: _Optional[int] = ..., chunks: _Optional[int] = ...) -> None: ...

class Replies(_message.Message):
    __slots__ = ("replies",)
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    replies: _containers.RepeatedCompositeFieldContainer[Reply]
    def __init__(self, replies: _Optional[_Iterable[_Union[Reply, _Mapping]]] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("ref", "result", "error", "chunk", "progress", "log", "results")
    REF_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    ref: int
    result: Result
    error: Error
    chunk: _worker_pb2.Value
    progress: Progress
    log: str
    results: Results
    def __init__(self, ref: _Optional[int] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., chunk: _Optional[_Union[_worker_pb2.Value, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., log: _Optional[str] = ..., results: _Optional[_Union[Results, _Mapping]] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("value", "timing")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    value: _worker_pb2.Value
    timing: Timing
    def __init__(self, value: _Optional[_Union[_worker_pb2.Value, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class Results(_message.Message):
    __slots__ = ("refs", "json", "worker", "calls", "queued_seconds", "run_seconds")
    REFS_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RUN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    refs: _containers.RepeatedScalarFieldContainer[int]
    json: _containers.RepeatedScalarFieldContainer[bytes]
    worker: str
    calls: _containers.RepeatedScalarFieldContainer[str]
    queued_seconds: _containers.RepeatedScalarFieldContainer[float]
    run_seconds: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, refs: _Optional[_Iterable[int]] = ..., json: _Optional[_Iterable[bytes]] = ..., worker: _Optional[str] = ..., calls: _Optional[_Iterable[str]] = ..., queued_seconds: _Optional[_Iterable[float]] = ..., run_seconds: _Optional[_Iterable[float]] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("call", "worker", "queued_seconds", "run_seconds", "calls_left", "calls_reset")
    CALL_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    QUEUED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RUN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CALLS_LEFT_FIELD_NUMBER: _ClassVar[int]
    CALLS_RESET_FIELD_NUMBER: _ClassVar[int]
    call: str
    worker: str
    queued_seconds: float
    run_seconds: float
    calls_left: int
    calls_reset: float
    def __init__(self, call: _Optional[str] = ..., worker: _Optional[str] = ..., queued_seconds: _Optional[float] = ..., run_seconds: _Optional[float] = ..., calls_left: _Optional[int] = ..., calls_reset: _Optional[float] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "message", "outcome", "details", "retry_after", "timing")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    outcome: str
    details: str
    retry_after: float
    timing: Timing
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., outcome: _Optional[str] = ..., details: _Optional[str] = ..., retry_after: _Optional[float] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("fraction", "message")
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    fraction: float
    message: str
    def __init__(self, fraction: _Optional[float] = ..., message: _Optional[str] = ...) -> None: ...

class ExecuteRequest(_message.Message):
    __slots__ = ("pool", "command", "arguments", "attachments", "timeout", "priority", "caller", "affinity")
    class AttachmentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    POOL_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    AFFINITY_FIELD_NUMBER: _ClassVar[int]
    pool: str
    command: str
    arguments: str
    attachments: _containers.ScalarMap[str, bytes]
    timeout: float
    priority: int
    caller: Caller
    affinity: str
    def __init__(self, pool: _Optional[str] = ..., command: _Optional[str] = ..., arguments: _Optional[str] = ..., attachments: _Optional[_Mapping[str, bytes]] = ..., timeout: _Optional[float] = ..., priority: _Optional[int] = ..., caller: _Optional[_Union[Caller, _Mapping]] = ..., affinity: _Optional[str] = ...) -> None: ...

class ExecuteReply(_message.Message):
    __slots__ = ("json", "raw", "timing")
    JSON_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    json: str
    raw: bytes
    timing: Timing
    def __init__(self, json: _Optional[str] = ..., raw: _Optional[bytes] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ("pool", "watch", "events_after", "histograms")
    POOL_FIELD_NUMBER: _ClassVar[int]
    WATCH_FIELD_NUMBER: _ClassVar[int]
    EVENTS_AFTER_FIELD_NUMBER: _ClassVar[int]
    HISTOGRAMS_FIELD_NUMBER: _ClassVar[int]
    pool: str
    watch: bool
    events_after: int
    histograms: bool
    def __init__(self, pool: _Optional[str] = ..., watch: bool = ..., events_after: _Optional[int] = ..., histograms: bool = ...) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("node", "pools", "workers", "events", "histograms", "quotas")
    NODE_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    HISTOGRAMS_FIELD_NUMBER: _ClassVar[int]
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    node: Node
    pools: _containers.RepeatedCompositeFieldContainer[Pool]
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    histograms: _containers.RepeatedCompositeFieldContainer[PoolHistograms]
    quotas: _containers.RepeatedCompositeFieldContainer[Quota]
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., pools: _Optional[_Iterable[_Union[Pool, _Mapping]]] = ..., workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., histograms: _Optional[_Iterable[_Union[PoolHistograms, _Mapping]]] = ..., quotas: _Optional[_Iterable[_Union[Quota, _Mapping]]] = ...) -> None: ...

class Quota(_message.Message):
    __slots__ = ("of", "name", "in_flight", "accepted", "refused", "over_rate", "over_in_flight", "over_waiting", "calls_per_second", "calls_burst", "calls_in_flight")
    OF_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    OVER_RATE_FIELD_NUMBER: _ClassVar[int]
    OVER_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    OVER_WAITING_FIELD_NUMBER: _ClassVar[int]
    CALLS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    CALLS_BURST_FIELD_NUMBER: _ClassVar[int]
    CALLS_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    of: str
    name: str
    in_flight: int
    accepted: int
    refused: int
    over_rate: int
    over_in_flight: int
    over_waiting: int
    calls_per_second: float
    calls_burst: int
    calls_in_flight: int
    def __init__(self, of: _Optional[str] = ..., name: _Optional[str] = ..., in_flight: _Optional[int] = ..., accepted: _Optional[int] = ..., refused: _Optional[int] = ..., over_rate: _Optional[int] = ..., over_in_flight: _Optional[int] = ..., over_waiting: _Optional[int] = ..., calls_per_second: _Optional[float] = ..., calls_burst: _Optional[int] = ..., calls_in_flight: _Optional[int] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("seq", "at", "kind", "pool", "worker", "reason", "message", "level")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    seq: int
    at: float
    kind: str
    pool: str
    worker: str
    reason: str
    message: str
    level: str
    def __init__(self, seq: _Optional[int] = ..., at: _Optional[float] = ..., kind: _Optional[str] = ..., pool: _Optional[str] = ..., worker: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., level: _Optional[str] = ...) -> None: ...

class PoolHistograms(_message.Message):
    __slots__ = ("pool", "ran", "queued", "recycled")
    class RanEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    class QueuedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    class RecycledEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    POOL_FIELD_NUMBER: _ClassVar[int]
    RAN_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    RECYCLED_FIELD_NUMBER: _ClassVar[int]
    pool: str
    ran: _containers.ScalarMap[int, int]
    queued: _containers.ScalarMap[int, int]
    recycled: _containers.ScalarMap[str, int]
    def __init__(self, pool: _Optional[str] = ..., ran: _Optional[_Mapping[int, int]] = ..., queued: _Optional[_Mapping[int, int]] = ..., recycled: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("name", "version", "pid", "address", "started_at", "uptime", "draining", "clock", "loop_lag", "python", "sessions", "problems", "drain_since", "drain_actor", "drain_reason", "labels", "advertised", "listeners")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    LOOP_LAG_FIELD_NUMBER: _ClassVar[int]
    PYTHON_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    DRAIN_SINCE_FIELD_NUMBER: _ClassVar[int]
    DRAIN_ACTOR_FIELD_NUMBER: _ClassVar[int]
    DRAIN_REASON_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ADVERTISED_FIELD_NUMBER: _ClassVar[int]
    LISTENERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    pid: int
    address: str
    started_at: float
    uptime: float
    draining: bool
    clock: str
    loop_lag: float
    python: str
    sessions: int
    problems: _containers.RepeatedScalarFieldContainer[str]
    drain_since: float
    drain_actor: str
    drain_reason: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    advertised: _containers.RepeatedScalarFieldContainer[str]
    listeners: _containers.RepeatedCompositeFieldContainer[Listener]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., pid: _Optional[int] = ..., address: _Optional[str] = ..., started_at: _Optional[float] = ..., uptime: _Optional[float] = ..., draining: bool = ..., clock: _Optional[str] = ..., loop_lag: _Optional[float] = ..., python: _Optional[str] = ..., sessions: _Optional[int] = ..., problems: _Optional[_Iterable[str]] = ..., drain_since: _Optional[float] = ..., drain_actor: _Optional[str] = ..., drain_reason: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., advertised: _Optional[_Iterable[str]] = ..., listeners: _Optional[_Iterable[_Union[Listener, _Mapping]]] = ...) -> None: ...

class Listener(_message.Message):
    __slots__ = ("address", "tls", "certificate_expires", "problem", "connections", "accepted", "refused", "lists_expire", "lists_issued", "certificate_issued", "authorities_expire", "authorities_issued")
    class RefusedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_EXPIRES_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    LISTS_EXPIRE_FIELD_NUMBER: _ClassVar[int]
    LISTS_ISSUED_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_ISSUED_FIELD_NUMBER: _ClassVar[int]
    AUTHORITIES_EXPIRE_FIELD_NUMBER: _ClassVar[int]
    AUTHORITIES_ISSUED_FIELD_NUMBER: _ClassVar[int]
    address: str
    tls: str
    certificate_expires: float
    problem: str
    connections: int
    accepted: int
    refused: _containers.ScalarMap[str, int]
    lists_expire: float
    lists_issued: float
    certificate_issued: float
    authorities_expire: float
    authorities_issued: float
    def __init__(self, address: _Optional[str] = ..., tls: _Optional[str] = ..., certificate_expires: _Optional[float] = ..., problem: _Optional[str] = ..., connections: _Optional[int] = ..., accepted: _Optional[int] = ..., refused: _Optional[_Mapping[str, int]] = ..., lists_expire: _Optional[float] = ..., lists_issued: _Optional[float] = ..., certificate_issued: _Optional[float] = ..., authorities_expire: _Optional[float] = ..., authorities_issued: _Optional[float] = ...) -> None: ...

class Pool(_message.Message):
    __slots__ = ("name", "profile", "adapter", "state", "reason", "size", "ready", "busy", "slots", "free", "lost", "waiting", "oldest_wait", "queue_limit", "generation", "finished", "failed", "refused", "retried", "recycled", "died", "memory_mb", "warnings", "interpreter", "load_seconds", "growth", "gil", "gil_culprit", "parallelism", "parallel", "suspended", "races", "prefetched", "run_times", "batches", "buffer_bytes", "usage", "template")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    FREE_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    OLDEST_WAIT_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    RETRIED_FIELD_NUMBER: _ClassVar[int]
    RECYCLED_FIELD_NUMBER: _ClassVar[int]
    DIED_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MB_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    INTERPRETER_FIELD_NUMBER: _ClassVar[int]
    LOAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    GROWTH_FIELD_NUMBER: _ClassVar[int]
    GIL_FIELD_NUMBER: _ClassVar[int]
    GIL_CULPRIT_FIELD_NUMBER: _ClassVar[int]
    PARALLELISM_FIELD_NUMBER: _ClassVar[int]
    PARALLEL_FIELD_NUMBER: _ClassVar[int]
    SUSPENDED_FIELD_NUMBER: _ClassVar[int]
    RACES_FIELD_NUMBER: _ClassVar[int]
    PREFETCHED_FIELD_NUMBER: _ClassVar[int]
    RUN_TIMES_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    BUFFER_BYTES_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    name: str
    profile: str
    adapter: str
    state: str
    reason: str
    size: int
    ready: int
    busy: int
    slots: int
    free: int
    lost: int
    waiting: int
    oldest_wait: float
    queue_limit: int
    generation: int
    finished: float
    failed: float
    refused: float
    retried: float
    recycled: float
    died: float
    memory_mb: float
    warnings: _containers.RepeatedScalarFieldContainer[str]
    interpreter: str
    load_seconds: float
    growth: Growth
    gil: str
    gil_culprit: str
    parallelism: float
    parallel: str
    suspended: _containers.RepeatedScalarFieldContainer[str]
    races: _containers.RepeatedScalarFieldContainer[str]
    prefetched: int
    run_times: _containers.RepeatedCompositeFieldContainer[RunTimes]
    batches: _containers.RepeatedCompositeFieldContainer[Batches]
    buffer_bytes: int
    usage: Usage
    template: Template
    def __init__(self, name: _Optional[str] = ..., profile: _Optional[str] = ..., adapter: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., size: _Optional[int] = ..., ready: _Optional[int] = ..., busy: _Optional[int] = ..., slots: _Optional[int] = ..., free: _Optional[int] = ..., lost: _Optional[int] = ..., waiting: _Optional[int] = ..., oldest_wait: _Optional[float] = ..., queue_limit: _Optional[int] = ..., generation: _Optional[int] = ..., finished: _Optional[float] = ..., failed: _Optional[float] = ..., refused: _Optional[float] = ..., retried: _Optional[float] = ..., recycled: _Optional[float] = ..., died: _Optional[float] = ..., memory_mb: _Optional[float] = ..., warnings: _Optional[_Iterable[str]] = ..., interpreter: _Optional[str] = ..., load_seconds: _Optional[float] = ..., growth: _Optional[_Union[Growth, _Mapping]] = ..., gil: _Optional[str] = ..., gil_culprit: _Optional[str] = ..., parallelism: _Optional[float] = ..., parallel: _Optional[str] = ..., suspended: _Optional[_Iterable[str]] = ..., races: _Optional[_Iterable[str]] = ..., prefetched: _Optional[int] = ..., run_times: _Optional[_Iterable[_Union[RunTimes, _Mapping]]] = ..., batches: _Optional[_Iterable[_Union[Batches, _Mapping]]] = ..., buffer_bytes: _Optional[int] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., template: _Optional[_Union[Template, _Mapping]] = ...) -> None: ...

class RunTimes(_message.Message):
    __slots__ = ("command", "count", "seconds", "smoothed", "buckets")
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    SMOOTHED_FIELD_NUMBER: _ClassVar[int]
    BUCKETS_FIELD_NUMBER: _ClassVar[int]
    command: str
    count: int
    seconds: float
    smoothed: float
    buckets: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, command: _Optional[str] = ..., count: _Optional[int] = ..., seconds: _Optional[float] = ..., smoothed: _Optional[float] = ..., buckets: _Optional[_Iterable[int]] = ...) -> None: ...

class Batches(_message.Message):
    __slots__ = ("command", "limit", "wait", "active", "batches", "calls", "size", "gain")
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    GAIN_FIELD_NUMBER: _ClassVar[int]
    command: str
    limit: int
    wait: float
    active: bool
    batches: float
    calls: float
    size: float
    gain: float
    def __init__(self, command: _Optional[str] = ..., limit: _Optional[int] = ..., wait: _Optional[float] = ..., active: bool = ..., batches: _Optional[float] = ..., calls: _Optional[float] = ..., size: _Optional[float] = ..., gain: _Optional[float] = ...) -> None: ...

class Template(_message.Message):
    __slots__ = ("state", "reason", "why", "id", "pid", "generation", "memory_mb", "load_seconds", "deaths", "output")
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MB_FIELD_NUMBER: _ClassVar[int]
    LOAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DEATHS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    state: str
    reason: str
    why: str
    id: str
    pid: int
    generation: int
    memory_mb: float
    load_seconds: float
    deaths: int
    output: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, state: _Optional[str] = ..., reason: _Optional[str] = ..., why: _Optional[str] = ..., id: _Optional[str] = ..., pid: _Optional[int] = ..., generation: _Optional[int] = ..., memory_mb: _Optional[float] = ..., load_seconds: _Optional[float] = ..., deaths: _Optional[int] = ..., output: _Optional[_Iterable[str]] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("seconds", "answered", "calls_per_second", "busy", "peak", "waited", "wait_p50", "wait_p95", "refused", "timed_out", "overran", "lost", "not_admitted", "cpu_per_call", "cpu_calls")
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    CALLS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    PEAK_FIELD_NUMBER: _ClassVar[int]
    WAITED_FIELD_NUMBER: _ClassVar[int]
    WAIT_P50_FIELD_NUMBER: _ClassVar[int]
    WAIT_P95_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    TIMED_OUT_FIELD_NUMBER: _ClassVar[int]
    OVERRAN_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    NOT_ADMITTED_FIELD_NUMBER: _ClassVar[int]
    CPU_PER_CALL_FIELD_NUMBER: _ClassVar[int]
    CPU_CALLS_FIELD_NUMBER: _ClassVar[int]
    seconds: float
    answered: int
    calls_per_second: float
    busy: float
    peak: int
    waited: int
    wait_p50: float
    wait_p95: float
    refused: int
    timed_out: int
    overran: int
    lost: int
    not_admitted: int
    cpu_per_call: float
    cpu_calls: int
    def __init__(self, seconds: _Optional[float] = ..., answered: _Optional[int] = ..., calls_per_second: _Optional[float] = ..., busy: _Optional[float] = ..., peak: _Optional[int] = ..., waited: _Optional[int] = ..., wait_p50: _Optional[float] = ..., wait_p95: _Optional[float] = ..., refused: _Optional[int] = ..., timed_out: _Optional[int] = ..., overran: _Optional[int] = ..., lost: _Optional[int] = ..., not_admitted: _Optional[int] = ..., cpu_per_call: _Optional[float] = ..., cpu_calls: _Optional[int] = ...) -> None: ...

class Growth(_message.Message):
    __slots__ = ("mb_per_1000_calls", "calls", "samples", "mostly", "verdict", "commands")
    MB_PER_1000_CALLS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    MOSTLY_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    mb_per_1000_calls: float
    calls: int
    samples: int
    mostly: str
    verdict: str
    commands: _containers.RepeatedCompositeFieldContainer[CommandGrowth]
    def __init__(self, mb_per_1000_calls: _Optional[float] = ..., calls: _Optional[int] = ..., samples: _Optional[int] = ..., mostly: _Optional[str] = ..., verdict: _Optional[str] = ..., commands: _Optional[_Iterable[_Union[CommandGrowth, _Mapping]]] = ...) -> None: ...

class CommandGrowth(_message.Message):
    __slots__ = ("command", "mb_per_1000_calls", "error", "calls", "samples", "verdict")
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    MB_PER_1000_CALLS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    command: str
    mb_per_1000_calls: float
    error: float
    calls: int
    samples: int
    verdict: str
    def __init__(self, command: _Optional[str] = ..., mb_per_1000_calls: _Optional[float] = ..., error: _Optional[float] = ..., calls: _Optional[int] = ..., samples: _Optional[int] = ..., verdict: _Optional[str] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("id", "pool", "pid", "state", "reason", "load", "capacity", "lost", "served", "memory_mb", "gil", "gil_culprit", "generation", "started_at", "load_seconds", "python", "parallelism", "calls", "output", "due_in", "expected", "growth", "silent_for", "prefetched", "mb_per_hour", "template", "sandbox")
    ID_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MB_FIELD_NUMBER: _ClassVar[int]
    GIL_FIELD_NUMBER: _ClassVar[int]
    GIL_CULPRIT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    LOAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PYTHON_FIELD_NUMBER: _ClassVar[int]
    PARALLELISM_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    DUE_IN_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    GROWTH_FIELD_NUMBER: _ClassVar[int]
    SILENT_FOR_FIELD_NUMBER: _ClassVar[int]
    PREFETCHED_FIELD_NUMBER: _ClassVar[int]
    MB_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    id: str
    pool: str
    pid: int
    state: str
    reason: str
    load: int
    capacity: int
    lost: int
    served: float
    memory_mb: float
    gil: str
    gil_culprit: str
    generation: int
    started_at: float
    load_seconds: float
    python: str
    parallelism: float
    calls: _containers.RepeatedCompositeFieldContainer[RunningCall]
    output: _containers.RepeatedScalarFieldContainer[str]
    due_in: float
    expected: bool
    growth: Growth
    silent_for: float
    prefetched: int
    mb_per_hour: float
    template: str
    sandbox: str
    def __init__(self, id: _Optional[str] = ..., pool: _Optional[str] = ..., pid: _Optional[int] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., load: _Optional[int] = ..., capacity: _Optional[int] = ..., lost: _Optional[int] = ..., served: _Optional[float] = ..., memory_mb: _Optional[float] = ..., gil: _Optional[str] = ..., gil_culprit: _Optional[str] = ..., generation: _Optional[int] = ..., started_at: _Optional[float] = ..., load_seconds: _Optional[float] = ..., python: _Optional[str] = ..., parallelism: _Optional[float] = ..., calls: _Optional[_Iterable[_Union[RunningCall, _Mapping]]] = ..., output: _Optional[_Iterable[str]] = ..., due_in: _Optional[float] = ..., expected: bool = ..., growth: _Optional[_Union[Growth, _Mapping]] = ..., silent_for: _Optional[float] = ..., prefetched: _Optional[int] = ..., mb_per_hour: _Optional[float] = ..., template: _Optional[str] = ..., sandbox: _Optional[str] = ...) -> None: ...

class RunningCall(_message.Message):
    __slots__ = ("id", "command", "seconds", "remaining")
    ID_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    id: str
    command: str
    seconds: float
    remaining: float
    def __init__(self, id: _Optional[str] = ..., command: _Optional[str] = ..., seconds: _Optional[float] = ..., remaining: _Optional[float] = ...) -> None: ...

class CommandsRequest(_message.Message):
    __slots__ = ("pool",)
    POOL_FIELD_NUMBER: _ClassVar[int]
    pool: str
    def __init__(self, pool: _Optional[str] = ...) -> None: ...

class CommandsReply(_message.Message):
    __slots__ = ("commands",)
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    commands: _containers.RepeatedCompositeFieldContainer[_worker_pb2.Command]
    def __init__(self, commands: _Optional[_Iterable[_Union[_worker_pb2.Command, _Mapping]]] = ...) -> None: ...

class SweepRequest(_message.Message):
    __slots__ = ("source", "interval")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    source: str
    interval: float
    def __init__(self, source: _Optional[str] = ..., interval: _Optional[float] = ...) -> None: ...

class SweepReply(_message.Message):
    __slots__ = ("pools", "workers", "planned")
    POOLS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    PLANNED_FIELD_NUMBER: _ClassVar[int]
    pools: int
    workers: int
    planned: int
    def __init__(self, pools: _Optional[int] = ..., workers: _Optional[int] = ..., planned: _Optional[int] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("pool", "action", "actor", "reason")
    POOL_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    pool: str
    action: str
    actor: str
    reason: str
    def __init__(self, pool: _Optional[str] = ..., action: _Optional[str] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ApplyReply(_message.Message):
    __slots__ = ("pools",)
    POOLS_FIELD_NUMBER: _ClassVar[int]
    pools: int
    def __init__(self, pools: _Optional[int] = ...) -> None: ...

class RecycleRequest(_message.Message):
    __slots__ = ("pool", "worker", "actor", "reason")
    POOL_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    pool: str
    worker: str
    actor: str
    reason: str
    def __init__(self, pool: _Optional[str] = ..., worker: _Optional[str] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RecycleReply(_message.Message):
    __slots__ = ("planned",)
    PLANNED_FIELD_NUMBER: _ClassVar[int]
    planned: int
    def __init__(self, planned: _Optional[int] = ...) -> None: ...

class PlanRequest(_message.Message):
    __slots__ = ("pool", "worker")
    POOL_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    pool: str
    worker: str
    def __init__(self, pool: _Optional[str] = ..., worker: _Optional[str] = ...) -> None: ...

class PlanReply(_message.Message):
    __slots__ = ("workers", "at_once", "max_surge", "max_unavailable", "load_seconds")
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    AT_ONCE_FIELD_NUMBER: _ClassVar[int]
    MAX_SURGE_FIELD_NUMBER: _ClassVar[int]
    MAX_UNAVAILABLE_FIELD_NUMBER: _ClassVar[int]
    LOAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[PlannedWorker]
    at_once: int
    max_surge: int
    max_unavailable: int
    load_seconds: float
    def __init__(self, workers: _Optional[_Iterable[_Union[PlannedWorker, _Mapping]]] = ..., at_once: _Optional[int] = ..., max_surge: _Optional[int] = ..., max_unavailable: _Optional[int] = ..., load_seconds: _Optional[float] = ...) -> None: ...

class PlannedWorker(_message.Message):
    __slots__ = ("id", "state", "reason", "detail", "age", "served", "load", "seconds_until_ttl", "calls_until_max", "in_turn", "effect", "seconds_until_successor")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    SECONDS_UNTIL_TTL_FIELD_NUMBER: _ClassVar[int]
    CALLS_UNTIL_MAX_FIELD_NUMBER: _ClassVar[int]
    IN_TURN_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    SECONDS_UNTIL_SUCCESSOR_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: str
    reason: str
    detail: str
    age: float
    served: int
    load: int
    seconds_until_ttl: float
    calls_until_max: int
    in_turn: int
    effect: str
    seconds_until_successor: float
    def __init__(self, id: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ..., age: _Optional[float] = ..., served: _Optional[int] = ..., load: _Optional[int] = ..., seconds_until_ttl: _Optional[float] = ..., calls_until_max: _Optional[int] = ..., in_turn: _Optional[int] = ..., effect: _Optional[str] = ..., seconds_until_successor: _Optional[float] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("resume", "actor", "reason")
    RESUME_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    resume: bool
    actor: str
    reason: str
    def __init__(self, resume: bool = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class DrainReply(_message.Message):
    __slots__ = ("draining",)
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    draining: bool
    def __init__(self, draining: bool = ...) -> None: ...

class KillRequest(_message.Message):
    __slots__ = ("worker", "actor", "reason")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    worker: str
    actor: str
    reason: str
    def __init__(self, worker: _Optional[str] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class KillReply(_message.Message):
    __slots__ = ("worker",)
    WORKER_FIELD_NUMBER: _ClassVar[int]
    worker: str
    def __init__(self, worker: _Optional[str] = ...) -> None: ...

class DumpRequest(_message.Message):
    __slots__ = ("worker", "actor", "reason")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    worker: str
    actor: str
    reason: str
    def __init__(self, worker: _Optional[str] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class DumpReply(_message.Message):
    __slots__ = ("worker", "pool", "pid", "at", "threads", "calls")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    worker: str
    pool: str
    pid: int
    at: float
    threads: _containers.RepeatedCompositeFieldContainer[ThreadStack]
    calls: _containers.RepeatedCompositeFieldContainer[RunningCall]
    def __init__(self, worker: _Optional[str] = ..., pool: _Optional[str] = ..., pid: _Optional[int] = ..., at: _Optional[float] = ..., threads: _Optional[_Iterable[_Union[ThreadStack, _Mapping]]] = ..., calls: _Optional[_Iterable[_Union[RunningCall, _Mapping]]] = ...) -> None: ...

class ThreadStack(_message.Message):
    __slots__ = ("thread", "name", "state", "cpu_seconds", "frames", "note")
    THREAD_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    thread: int
    name: str
    state: str
    cpu_seconds: float
    frames: _containers.RepeatedCompositeFieldContainer[Frame]
    note: str
    def __init__(self, thread: _Optional[int] = ..., name: _Optional[str] = ..., state: _Optional[str] = ..., cpu_seconds: _Optional[float] = ..., frames: _Optional[_Iterable[_Union[Frame, _Mapping]]] = ..., note: _Optional[str] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("file", "line", "function")
    FILE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    file: str
    line: int
    function: str
    def __init__(self, file: _Optional[str] = ..., line: _Optional[int] = ..., function: _Optional[str] = ...) -> None: ...

class MetricsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MetricsReply(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...
