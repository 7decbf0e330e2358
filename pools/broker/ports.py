"""What the core needs of the world: one Protocol a need, each with one real and one fake implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from snakepit.pools.broker.events import Event
from snakepit.pools.broker.spec import PoolSpec


class Clock(Protocol):
    """Two clocks: one to compare, one to store. Never mix them: the wall clock jumps."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Definition:
    """A pool as it is wanted; the dotted path comes from this process's own settings, never from a row.

    `spec.python` is the interpreter's path here, empty for the broker's own.
    """

    spec: PoolSpec
    adapter_path: str
    interpreter: str = ""  # which interpreter was chosen, and why
    unfit: str = ""  # why no worker can be started at all; empty: one can


@dataclass(frozen=True, slots=True)
class Loaded:
    definitions: tuple[Definition, ...]
    problems: tuple[tuple[str, str], ...] = ()  # (pool name, what is wrong with its row)


class Definitions(Protocol):
    """The desired state. `load` may block; the broker calls it in a thread."""

    def load(self) -> Loaded: ...


class Recorder(Protocol):
    """The observed state's way out. `record` and `observe` never block and never raise."""

    def start(self) -> None: ...

    def record(self, at: float, event: Event) -> None: ...

    def observe(self, snapshot: dict[str, Any]) -> None: ...

    def stop(self) -> None: ...


class Meter(Protocol):
    """Counts and times calls, each that was asked for once."""

    def executed(self, pool: str, command: str, code: str, queued: float, ran: float) -> None:
        """A call was answered: `code` is "ok" or that of its error, times in seconds."""
        ...

    def succeeded(self, pool: str, command: str, queued: Sequence[float], ran: Sequence[float]) -> None:
        """Calls of one command were answered well: `executed` with "ok" for each."""
        ...

    def delivered(self, pool: str, results: int) -> None:
        """Results went from their workers straight to their callers; the calls are counted besides."""
        ...

    def full(self, pool: str, times: int) -> None:
        """The last free slot of a pool was taken, so many times."""
        ...


class NoMeter:
    """For a broker whose numbers nobody wants."""

    def executed(self, pool: str, command: str, code: str, queued: float, ran: float) -> None: ...

    def succeeded(self, pool: str, command: str, queued: Sequence[float], ran: Sequence[float]) -> None: ...

    def delivered(self, pool: str, results: int) -> None: ...

    def full(self, pool: str, times: int) -> None: ...


@dataclass(frozen=True, slots=True)
class LaunchOrder:
    """All that a launcher must know to bring one worker to life."""

    worker: str
    adapter_path: str
    spec: PoolSpec


@dataclass(frozen=True, slots=True)
class TemplateOrder:
    """All that a launcher must know to prepare one template."""

    template: str
    adapter_path: str
    spec: PoolSpec


@dataclass(frozen=True, slots=True)
class Exit:
    """How a worker's process ended. Either `code` or `signal` is set."""

    code: int | None = None
    signal: int | None = None


@dataclass(slots=True)  # not frozen, here and below: that doubles the price of what is made for each call
class Assignment:
    """A call on its way to a worker."""

    sequence: int
    call: str
    command: str
    arguments: bytes
    attachments: Mapping[str, bytes]
    budget: float
    credit: int
    max_result: int
    credit_bytes: int = 0  # of chunks on their way, from which the command waits; 0: no bound
    reply_socket: str = ""  # the path of a socket of the caller's, where the worker may put the result
    ref: int = 0  # the caller's number of the call, for its reply_socket
    queued: float = 0.0  # seconds that the call waited, for its reply_socket


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a worker says of itself once its adapter is loaded."""

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
    commands: tuple[Any, ...] = ()  # of CommandInfo


@dataclass(frozen=True, slots=True)
class CommandInfo:
    name: str
    summary: str = ""
    description: str = ""
    streams: bool = False
    idempotent: bool = False
    timeout: float = 0.0
    schema: str = "{}"


@dataclass(frozen=True, slots=True)
class WorkerFailure:
    """How a command, or the loading of an adapter, went wrong inside a worker."""

    code: str
    message: str
    type: str = ""
    traceback: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Race:
    """Two threads of a worker wrote to the same state of its adapter, with no lock in common."""

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


@dataclass(frozen=True, slots=True)
class Frame:
    """One Python frame; line 0: not known."""

    file: str
    line: int
    function: str


@dataclass(frozen=True, slots=True)
class ThreadStack:
    """Where one thread of a worker is, innermost frame first. A note says why there are no frames."""

    thread: int  # the kernel's number; the main thread has its process's
    name: str
    state: str  # the kernel's letter: R runs, S sleeps, D waits for a device
    cpu_seconds: float  # used since it was started
    frames: tuple[Frame, ...] = ()
    note: str = ""


class Process(Protocol):
    """One worker's process. Everything but `kill` only looks."""

    @property
    def pid(self) -> int: ...

    @property
    def socket_path(self) -> str: ...

    def kill(self) -> None:
        """SIGKILL to the process and its group; harmless when it is gone."""
        ...

    def last_begun(self) -> int:
        """The highest sequence that the worker has begun to run, true even after its death."""
        ...

    def has_begun(self, sequence: int) -> bool:
        """Whether the worker has begun to run this one, or may have; true even after its death."""
        ...

    def revoke(self, first: int, last: int) -> None:
        """Keep the worker from beginning these sequences. Whether it began one before it saw this, `has_begun` says
        a millisecond later; if it did not, it never will."""
        ...

    def output(self) -> Sequence[str]:
        """The last lines that it printed."""
        ...

    def memory_mb(self) -> float | None:
        """Memory of the process and its descendants now; None once it is gone."""
        ...

    def cpu_seconds(self) -> float | None:
        """CPU time that the process and its descendants have used; None once it is gone, or where it is not told."""
        ...

    async def stacks(self) -> tuple[ThreadStack, ...]:
        """Where each thread is now. Raises StacksUnavailable."""
        ...


class Unforked(Exception):
    """A worker did not come out of its template, which says nothing about the worker: nothing of it ever ran."""


class TemplateReports(Protocol):
    """What a launcher tells of a template: how its loading went, and, after everything else, that it is reaped."""

    def loaded(self, seconds: float) -> None:
        """Workers can be forked from it now."""
        ...

    def refused(self, reason: str, why: str) -> None:
        """It cannot be forked from, and ends by itself. `reason` is one of no_preload, unsafe, load_failed."""
        ...

    def ended(self, exit: Exit) -> None: ...


class Template(Protocol):
    """A template's process. Workers that came out of it do not need it."""

    @property
    def pid(self) -> int: ...

    def dismiss(self) -> None:
        """Nobody will be forked from it any more."""
        ...

    def kill(self) -> None: ...

    def output(self) -> Sequence[str]: ...

    def memory_mb(self) -> float | None: ...


class Launcher(Protocol):
    """Brings workers to life. What cannot be started raises OSError with the reason."""

    async def launch(self, order: LaunchOrder, on_exit: Callable[[Exit], None]) -> Process:
        """Start a worker plainly. `on_exit` is called once, on the loop, after the process is reaped."""
        ...

    async def prepare(self, order: TemplateOrder, reports: TemplateReports) -> Template:
        """Start a template. Returns before it has loaded."""
        ...

    async def fork(self, template: Template, order: LaunchOrder, on_exit: Callable[[Exit], None]) -> Process:
        """As `launch`, out of a loaded template. Raises Unforked if the worker did not come to life."""
        ...

    async def close(self) -> None: ...


class Reports(Protocol):
    """Where a link delivers what its worker says; every method is called on the loop."""

    def hello(self, greeting: Greeting) -> None: ...

    def boot_failed(self, failure: WorkerFailure) -> None: ...

    def results(self, ended: Iterable[tuple[int, Payload | None, float]]) -> None:
        """Calls that ended well, in this order: sequence, value, seconds that it ran."""
        ...

    def delivered(self, sequence: int, seconds: float) -> None:
        """A call ended well, and its result lies in the caller's reply_socket."""
        ...

    def failure(self, sequence: int, failure: WorkerFailure, seconds: float) -> None: ...

    def returned(self, sequence: int) -> None:
        """A revoked call, whose turn came: the worker did not begin it."""
        ...

    def chunk(self, sequence: int, payload: Payload) -> None: ...

    def progress(self, sequence: int, fraction: float, message: str) -> None: ...

    def log(self, sequence: int, message: str) -> None: ...

    def vitals(self, gil_enabled: bool, gil_culprit: str) -> None: ...

    def raced(self, race: Race) -> None: ...

    def lost(self) -> None: ...


class Link(Protocol):
    """The way to one worker. Sending never blocks; what waits goes out together."""

    def assign(self, assignment: Assignment) -> None: ...

    def assign_alike(
        self, first: Assignment, calls: Sequence[str], arguments: Sequence[bytes], budgets: Sequence[float]
    ) -> None:
        """As `assign` for each of these calls, whose sequences count up from the first's; else they are as it is.

        It has no attachments, no credit and no reply_socket; the lists begin with what is its own.
        """
        ...

    def cancel(self, sequence: int, reason: str) -> None: ...

    def credit(self, sequence: int, chunks: int) -> None: ...

    def drain(self) -> None: ...

    def probe(self) -> None: ...

    def close(self) -> None: ...


class Linker(Protocol):
    def link(self, socket_path: str, reports: Reports) -> Link: ...
