from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Orders(_message.Message):
    __slots__ = ("orders",)
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    orders: _containers.RepeatedCompositeFieldContainer[Order]
    def __init__(self, orders: _Optional[_Iterable[_Union[Order, _Mapping]]] = ...) -> None: ...

class Order(_message.Message):
    __slots__ = ("assign", "cancel", "credit", "drain", "probe", "assigns")
    ASSIGN_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    ASSIGNS_FIELD_NUMBER: _ClassVar[int]
    assign: Assign
    cancel: Cancel
    credit: Credit
    drain: Drain
    probe: Probe
    assigns: Assigns
    def __init__(self, assign: _Optional[_Union[Assign, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., probe: _Optional[_Union[Probe, _Mapping]] = ..., assigns: _Optional[_Union[Assigns, _Mapping]] = ...) -> None: ...

class Assign(_message.Message):
    __slots__ = ("sequence", "call", "command", "arguments", "attachments", "budget", "credit", "max_result", "credit_bytes", "reply_socket", "ref", "queued", "buffer_socket", "max_buffer", "batch", "buffers")
    class AttachmentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    MAX_RESULT_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    REPLY_SOCKET_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    BUFFER_SOCKET_FIELD_NUMBER: _ClassVar[int]
    MAX_BUFFER_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    call: str
    command: str
    arguments: bytes
    attachments: _containers.ScalarMap[str, bytes]
    budget: float
    credit: int
    max_result: int
    credit_bytes: int
    reply_socket: str
    ref: int
    queued: float
    buffer_socket: str
    max_buffer: int
    batch: int
    buffers: bool
    def __init__(self, sequence: _Optional[int] = ..., call: _Optional[str] = ..., command: _Optional[str] = ..., arguments: _Optional[bytes] = ..., attachments: _Optional[_Mapping[str, bytes]] = ..., budget: _Optional[float] = ..., credit: _Optional[int] = ..., max_result: _Optional[int] = ..., credit_bytes: _Optional[int] = ..., reply_socket: _Optional[str] = ..., ref: _Optional[int] = ..., queued: _Optional[float] = ..., buffer_socket: _Optional[str] = ..., max_buffer: _Optional[int] = ..., batch: _Optional[int] = ..., buffers: bool = ...) -> None: ...

class Assigns(_message.Message):
    __slots__ = ("first", "command", "calls", "arguments", "budgets", "max_result", "buffer_socket", "refs", "queued", "max_buffer", "batch", "credit", "credit_bytes")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    MAX_RESULT_FIELD_NUMBER: _ClassVar[int]
    BUFFER_SOCKET_FIELD_NUMBER: _ClassVar[int]
    REFS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    MAX_BUFFER_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    first: int
    command: str
    calls: _containers.RepeatedScalarFieldContainer[str]
    arguments: _containers.RepeatedScalarFieldContainer[bytes]
    budgets: _containers.RepeatedScalarFieldContainer[float]
    max_result: int
    buffer_socket: str
    refs: _containers.RepeatedScalarFieldContainer[int]
    queued: _containers.RepeatedScalarFieldContainer[float]
    max_buffer: int
    batch: int
    credit: int
    credit_bytes: int
    def __init__(self, first: _Optional[int] = ..., command: _Optional[str] = ..., calls: _Optional[_Iterable[str]] = ..., arguments: _Optional[_Iterable[bytes]] = ..., budgets: _Optional[_Iterable[float]] = ..., max_result: _Optional[int] = ..., buffer_socket: _Optional[str] = ..., refs: _Optional[_Iterable[int]] = ..., queued: _Optional[_Iterable[float]] = ..., max_buffer: _Optional[int] = ..., batch: _Optional[int] = ..., credit: _Optional[int] = ..., credit_bytes: _Optional[int] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("sequence", "reason")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    reason: str
    def __init__(self, sequence: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("sequence", "chunks")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    chunks: int
    def __init__(self, sequence: _Optional[int] = ..., chunks: _Optional[int] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Probe(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    def __init__(self, nonce: _Optional[int] = ...) -> None: ...

class Reports(_message.Message):
    __slots__ = ("reports",)
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    reports: _containers.RepeatedCompositeFieldContainer[Report]
    def __init__(self, reports: _Optional[_Iterable[_Union[Report, _Mapping]]] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("hello", "boot_failure", "result", "failure", "chunk", "progress", "log", "vitals", "race", "revoked", "results", "delivered")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    BOOT_FAILURE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    VITALS_FIELD_NUMBER: _ClassVar[int]
    RACE_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    boot_failure: BootFailure
    result: Result
    failure: Failure
    chunk: Chunk
    progress: Progress
    log: Log
    vitals: Vitals
    race: Race
    revoked: Revoked
    results: Results
    delivered: Delivered
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., boot_failure: _Optional[_Union[BootFailure, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., log: _Optional[_Union[Log, _Mapping]] = ..., vitals: _Optional[_Union[Vitals, _Mapping]] = ..., race: _Optional[_Union[Race, _Mapping]] = ..., revoked: _Optional[_Union[Revoked, _Mapping]] = ..., results: _Optional[_Union[Results, _Mapping]] = ..., delivered: _Optional[_Union[Delivered, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "pid", "python", "implementation", "executable", "free_threaded", "gil_enabled", "gil_culprit", "load_seconds", "slots", "blas_threads", "commands", "parallelism", "cores", "sandbox")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    PYTHON_FIELD_NUMBER: _ClassVar[int]
    IMPLEMENTATION_FIELD_NUMBER: _ClassVar[int]
    EXECUTABLE_FIELD_NUMBER: _ClassVar[int]
    FREE_THREADED_FIELD_NUMBER: _ClassVar[int]
    GIL_ENABLED_FIELD_NUMBER: _ClassVar[int]
    GIL_CULPRIT_FIELD_NUMBER: _ClassVar[int]
    LOAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    BLAS_THREADS_FIELD_NUMBER: _ClassVar[int]
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    PARALLELISM_FIELD_NUMBER: _ClassVar[int]
    CORES_FIELD_NUMBER: _ClassVar[int]
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    pid: int
    python: str
    implementation: str
    executable: str
    free_threaded: bool
    gil_enabled: bool
    gil_culprit: str
    load_seconds: float
    slots: int
    blas_threads: int
    commands: _containers.RepeatedCompositeFieldContainer[Command]
    parallelism: float
    cores: int
    sandbox: str
    def __init__(self, protocol: _Optional[int] = ..., pid: _Optional[int] = ..., python: _Optional[str] = ..., implementation: _Optional[str] = ..., executable: _Optional[str] = ..., free_threaded: bool = ..., gil_enabled: bool = ..., gil_culprit: _Optional[str] = ..., load_seconds: _Optional[float] = ..., slots: _Optional[int] = ..., blas_threads: _Optional[int] = ..., commands: _Optional[_Iterable[_Union[Command, _Mapping]]] = ..., parallelism: _Optional[float] = ..., cores: _Optional[int] = ..., sandbox: _Optional[str] = ...) -> None: ...

class Command(_message.Message):
    __slots__ = ("name", "summary", "streams", "idempotent", "timeout", "schema", "description", "batch", "batch_wait", "result_schema")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENT_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    BATCH_WAIT_FIELD_NUMBER: _ClassVar[int]
    RESULT_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    name: str
    summary: str
    streams: bool
    idempotent: bool
    timeout: float
    schema: str
    description: str
    batch: int
    batch_wait: float
    result_schema: str
    def __init__(self, name: _Optional[str] = ..., summary: _Optional[str] = ..., streams: bool = ..., idempotent: bool = ..., timeout: _Optional[float] = ..., schema: _Optional[str] = ..., description: _Optional[str] = ..., batch: _Optional[int] = ..., batch_wait: _Optional[float] = ..., result_schema: _Optional[str] = ...) -> None: ...

class BootFailure(_message.Message):
    __slots__ = ("type", "message", "traceback")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    type: str
    message: str
    traceback: str
    def __init__(self, type: _Optional[str] = ..., message: _Optional[str] = ..., traceback: _Optional[str] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("json", "raw", "parts", "parts_bytes")
    JSON_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    PARTS_BYTES_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    raw: bytes
    parts: int
    parts_bytes: int
    def __init__(self, json: _Optional[bytes] = ..., raw: _Optional[bytes] = ..., parts: _Optional[int] = ..., parts_bytes: _Optional[int] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("sequence", "value", "seconds")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    value: Value
    seconds: float
    def __init__(self, sequence: _Optional[int] = ..., value: _Optional[_Union[Value, _Mapping]] = ..., seconds: _Optional[float] = ...) -> None: ...

class Results(_message.Message):
    __slots__ = ("sequences", "json", "seconds")
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    sequences: _containers.RepeatedScalarFieldContainer[int]
    json: _containers.RepeatedScalarFieldContainer[bytes]
    seconds: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, sequences: _Optional[_Iterable[int]] = ..., json: _Optional[_Iterable[bytes]] = ..., seconds: _Optional[_Iterable[float]] = ...) -> None: ...

class Delivered(_message.Message):
    __slots__ = ("sequence", "seconds", "buffer_bytes")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    BUFFER_BYTES_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    seconds: float
    buffer_bytes: int
    def __init__(self, sequence: _Optional[int] = ..., seconds: _Optional[float] = ..., buffer_bytes: _Optional[int] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("sequence", "code", "message", "type", "traceback", "seconds", "details")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    code: str
    message: str
    type: str
    traceback: str
    seconds: float
    details: str
    def __init__(self, sequence: _Optional[int] = ..., code: _Optional[str] = ..., message: _Optional[str] = ..., type: _Optional[str] = ..., traceback: _Optional[str] = ..., seconds: _Optional[float] = ..., details: _Optional[str] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("sequence", "value")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    value: Value
    def __init__(self, sequence: _Optional[int] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("sequence", "fraction", "message")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    fraction: float
    message: str
    def __init__(self, sequence: _Optional[int] = ..., fraction: _Optional[float] = ..., message: _Optional[str] = ...) -> None: ...

class Log(_message.Message):
    __slots__ = ("sequence", "message")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    message: str
    def __init__(self, sequence: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class Revoked(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class Vitals(_message.Message):
    __slots__ = ("nonce", "served", "load", "gil_enabled", "gil_culprit")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    GIL_ENABLED_FIELD_NUMBER: _ClassVar[int]
    GIL_CULPRIT_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    served: int
    load: int
    gil_enabled: bool
    gil_culprit: str
    def __init__(self, nonce: _Optional[int] = ..., served: _Optional[int] = ..., load: _Optional[int] = ..., gil_enabled: bool = ..., gil_culprit: _Optional[str] = ...) -> None: ...

class Race(_message.Message):
    __slots__ = ("attribute", "first_thread", "first_stack", "second_thread", "second_stack")
    ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    FIRST_THREAD_FIELD_NUMBER: _ClassVar[int]
    FIRST_STACK_FIELD_NUMBER: _ClassVar[int]
    SECOND_THREAD_FIELD_NUMBER: _ClassVar[int]
    SECOND_STACK_FIELD_NUMBER: _ClassVar[int]
    attribute: str
    first_thread: str
    first_stack: str
    second_thread: str
    second_stack: str
    def __init__(self, attribute: _Optional[str] = ..., first_thread: _Optional[str] = ..., first_stack: _Optional[str] = ..., second_thread: _Optional[str] = ..., second_stack: _Optional[str] = ...) -> None: ...

class Delivery(_message.Message):
    __slots__ = ("ref", "json", "call", "worker", "queued_seconds", "run_seconds", "buffers", "text", "parts")
    REF_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    QUEUED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RUN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    ref: int
    json: bytes
    call: str
    worker: str
    queued_seconds: float
    run_seconds: float
    buffers: int
    text: _containers.RepeatedScalarFieldContainer[int]
    parts: int
    def __init__(self, ref: _Optional[int] = ..., json: _Optional[bytes] = ..., call: _Optional[str] = ..., worker: _Optional[str] = ..., queued_seconds: _Optional[float] = ..., run_seconds: _Optional[float] = ..., buffers: _Optional[int] = ..., text: _Optional[_Iterable[int]] = ..., parts: _Optional[int] = ...) -> None: ...
