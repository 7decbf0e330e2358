"""What the broker needs from outside: one Protocol for each need, each with a real and a fake implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from snakepit.pools.broker.events import Event
from snakepit.pools.broker.spec import PoolSpec
from snakepit.pools.broker.status import BrokerStatus, CommandInfo, ThreadStack


class Clock(Protocol):
    """Two clocks: one for comparisons, one for storage. Never mix them: the wall clock jumps."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Definition:
    """The desired state of a pool. The dotted path comes from this process's own settings, never from a row.

    `spec.python` is the interpreter's path here; empty: that of the broker.
    """

    spec: PoolSpec
    adapter_path: str
    interpreter: str = ""  # which interpreter was chosen, and why
    unfit: str = ""  # why no worker can start at all; empty: workers can start
    code: tuple[int, str] = (0, "")  # changes of the adapter's source files so far, and the file that changed last

    def find_code_change(self, before: Definition) -> str:
        """Why workers of the definition before run other code; empty: they run the same."""
        if self.adapter_path != before.adapter_path:
            return "the adapter's path changed"
        return f"{self.code[1]} changed" if self.code != before.code else ""


@dataclass(frozen=True, slots=True)
class Loaded:
    definitions: tuple[Definition, ...]
    problems: tuple[tuple[str, str], ...] = ()  # (pool name, what is wrong with its row)
    elsewhere: Mapping[str, str] = field(default_factory=dict)  # pool name to the nodes that it lives on


class Definitions(Protocol):
    """Where the desired state is read. `load` may block; the broker calls it in a thread."""

    def load(self) -> Loaded: ...


class Recorder(Protocol):
    """Where events and snapshots are written. `record` and `observe` never block and never raise."""

    def start(self) -> None: ...

    def record(self, at: float, event: Event) -> None: ...

    def observe(self, status: BrokerStatus) -> None: ...

    def stop(self) -> None: ...


class Meter(Protocol):
    """Counts and times calls, each of them once."""

    def executed(self, pool: str, command: str, code: str, queued: float, ran: float) -> None:
        """A call was answered. `code` is "ok" or that of its error; times are in seconds."""
        ...

    def succeeded(self, pool: str, command: str, queued: Sequence[float], ran: Sequence[float]) -> None:
        """Calls of one command were answered with a result: as `executed` with "ok" for each."""
        ...

    def delivered(self, pool: str, results: int) -> None:
        """Results went from workers directly to their callers; the calls are counted by `succeeded` as well."""
        ...

    def buffered(self, pool: str, of: str, size: int) -> None:
        """Large parts travelled in memory files of that many bytes: of a "result", a "chunk" or an "argument"."""
        ...

    def full(self, pool: str, times: int) -> None:
        """The last free slot of a pool was taken, so many times."""
        ...


class NoMeter:
    """For a broker without metrics."""

    def executed(self, pool: str, command: str, code: str, queued: float, ran: float) -> None: ...

    def succeeded(self, pool: str, command: str, queued: Sequence[float], ran: Sequence[float]) -> None: ...

    def delivered(self, pool: str, results: int) -> None: ...

    def buffered(self, pool: str, of: str, size: int) -> None: ...

    def full(self, pool: str, times: int) -> None: ...


class Buffers(Protocol):
    """Large parts of a call's arguments in memory files. They are closed when nothing refers to this any more."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        ...

    @property
    def descriptors(self) -> Sequence[int]: ...


@dataclass(frozen=True, slots=True)
class LaunchOrder:
    """What a launcher needs to start one worker."""

    worker: str
    adapter_path: str
    spec: PoolSpec
    parallelism: float = 0.0  # measured by another worker of the pool without a GIL; 0: this one measures


@dataclass(frozen=True, slots=True)
class TemplateOrder:
    """What a launcher needs to start one template."""

    template: str
    adapter_path: str
    spec: PoolSpec


@dataclass(frozen=True, slots=True)
class Exit:
    """How a worker's process ended. Either `code` or `signal` is set."""

    code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False  # the kernel killed it, because its memory cgroup reached its limit
    stacks: str = ""  # where its threads were when the broker killed it, if it hung


@dataclass(slots=True)  # not frozen, here and below: that doubles the cost of what is made for each call
class Assignment:
    """A call on its way to a worker."""

    sequence: int
    call: str
    command: str
    arguments: bytes
    attachments: Mapping[str, bytes | memoryview]
    budget: float
    credit: int
    max_result: int
    credit_bytes: int = 0  # most chunk bytes that may be unacknowledged; 0: no limit
    reply_socket: str = ""  # the path of a socket of the caller's, where the worker may put the result
    ref: int = 0  # the caller's number of the call, for its reply_socket
    queued: float = 0.0  # seconds that the call waited, for its reply_socket
    buffer_socket: str = ""  # as reply_socket, for a result with buffers only
    max_buffer: int = 0  # bytes that its buffers may have
    batch: int = 0  # sequence of the last call of its batch; 0: it runs alone
    buffers: bool = False  # large parts of the arguments were passed beside it, under this sequence


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a worker reports about itself when its adapter is loaded."""

    python: str = ""
    implementation: str = ""
    executable: str = ""
    free_threaded: bool = False
    gil_enabled: bool = True
    gil_culprit: str = ""
    load_seconds: float = 0.0
    blas_threads: int = 0
    parallelism: float = 0.0
    cores: int = 0
    sandbox: str = ""  # what it gave up; empty: nothing
    commands: tuple[CommandInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerFailure:
    """The failure of a command, or of the loading of an adapter, inside a worker."""

    code: str
    message: str
    type: str = ""
    traceback: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Race:
    """Two threads of a worker wrote to the same state of its adapter without a common lock."""

    attribute: str
    first_thread: str
    first_stack: str
    second_thread: str
    second_stack: str


@dataclass(slots=True)
class Payload:
    """A result or chunk as the worker encoded it: JSON in UTF-8, or raw bytes."""

    data: bytes
    raw: bool = False
    parts: int = 0  # the number under which the client has the large parts of a stream's value; 0: there are none
    parts_bytes: int = 0


class Process(Protocol):
    """One worker's process."""

    @property
    def pid(self) -> int: ...

    @property
    def socket_path(self) -> str: ...

    def kill(self) -> None:
        """SIGKILL to the process and its group; harmless when it is gone."""
        ...

    def last_begun(self) -> int:
        """Return the highest sequence that the worker has begun to run; correct after its death, too."""
        ...

    def has_begun(self, sequence: int) -> bool:
        """Whether the worker has begun to run this sequence, or may have; correct after its death, too."""
        ...

    def revoke(self, first: int, last: int) -> None:
        """Keep the worker from beginning these sequences. A millisecond later `has_begun` is final: a revoked sequence
        that has not begun by then never will."""
        ...

    def pass_buffers(self, sequence: int, parts: Buffers | bytes | memoryview) -> bool:
        """Pass large parts of a call's arguments, before the call itself. False: they were not passed. Bytes then go in
        the call; without its descriptors a call fails."""
        ...

    def output(self) -> Sequence[str]:
        """Return the last lines that it printed."""
        ...

    def memory_mb(self) -> float | None:
        """Return the memory of the process and its descendants; None once it is gone."""
        ...

    def cpu_seconds(self) -> float | None:
        """Return the CPU time of the process and its descendants; None once it is gone or where it is unknown."""
        ...

    async def stacks(self) -> tuple[ThreadStack, ...]:
        """Return the stack of each thread. Raises StacksUnavailable."""
        ...


class ForkFailed(Exception):
    """A template did not fork a worker. None of the worker's code ran, so the worker is not the cause."""


class TemplateReports(Protocol):
    """What a launcher reports of a template: how its loading went, and last of all that it is reaped."""

    def loaded(self, seconds: float) -> None:
        """Workers can be forked from it now."""
        ...

    def refused(self, reason: str, why: str) -> None:
        """It cannot fork workers and ends by itself. `reason` is one of no_preload, unsafe, load_failed."""
        ...

    def ended(self, exit: Exit) -> None: ...


class Template(Protocol):
    """A template's process. The workers that it forked do not need it."""

    @property
    def pid(self) -> int: ...

    def dismiss(self) -> None:
        """No worker will be forked from it any more."""
        ...

    def kill(self) -> None: ...

    def output(self) -> Sequence[str]: ...

    def memory_mb(self) -> float | None: ...


class Launcher(Protocol):
    """Starts workers. Raises OSError with the reason if a process cannot be started."""

    async def launch(self, order: LaunchOrder, on_exit: Callable[[Exit], None]) -> Process:
        """Spawn a worker. `on_exit` is called once, on the loop, after the process is reaped."""
        ...

    async def prepare(self, order: TemplateOrder, reports: TemplateReports) -> Template:
        """Start a template. Returns before it has loaded."""
        ...

    async def fork(self, template: Template, order: LaunchOrder, on_exit: Callable[[Exit], None]) -> Process:
        """As `launch`, from a loaded template. Raises ForkFailed if it did not fork the worker."""
        ...

    async def close(self) -> None: ...


class WorkerReports(Protocol):
    """Where a link delivers what its worker reports; every method is called on the loop."""

    def hello(self, greeting: Greeting) -> None: ...

    def boot_failed(self, failure: WorkerFailure) -> None: ...

    def results(self, ended: Iterable[tuple[int, Payload | None, float]]) -> None:
        """Calls that ended with a result, in this order: sequence, value, seconds that it ran."""
        ...

    def delivered(self, sequence: int, seconds: float, buffer_bytes: int = 0) -> None:
        """A call ended with a result, which the worker wrote to the caller's reply_socket, perhaps with buffers."""
        ...

    def failure(self, sequence: int, failure: WorkerFailure, seconds: float) -> None: ...

    def revoked(self, sequence: int) -> None:
        """The turn of a revoked call came: the worker did not begin it."""
        ...

    def chunk(self, sequence: int, payload: Payload) -> None: ...

    def progress(self, sequence: int, fraction: float, message: str) -> None: ...

    def log(self, sequence: int, message: str) -> None: ...

    def vitals(self, gil_enabled: bool, gil_culprit: str) -> None: ...

    def raced(self, race: Race) -> None: ...

    def lost(self) -> None: ...


class Link(Protocol):
    """The connection to one worker. Sending never blocks; waiting messages go out together."""

    def assign(self, assignment: Assignment) -> None: ...

    def assign_alike(
        self,
        first: Assignment,
        calls: Sequence[str],
        arguments: Sequence[bytes],
        budgets: Sequence[float],
        takers: Sequence[tuple[int, float]] = (),
    ) -> None:
        """Assign calls that differ from the first only in what the lists have; sequences count up from the first's.

        They have no attachments and no reply_socket. The lists begin with the first call's own values.
        `takers`: the ref and the seconds queued of each call, if they have a buffer_socket.
        """
        ...

    def cancel(self, sequence: int, reason: str) -> None: ...

    def credit(self, sequence: int, chunks: int) -> None: ...

    def drain(self) -> None: ...

    def probe(self) -> None: ...

    def close(self) -> None: ...


class Linker(Protocol):
    def link(self, socket_path: str, reports: WorkerReports) -> Link: ...


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything that a broker needs from outside."""

    launcher: Launcher
    linker: Linker
    clock: Clock
    definitions: Definitions
    recorder: Recorder
    meter: Meter = field(default_factory=NoMeter)
