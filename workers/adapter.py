"""What a user writes: a subclass of Adapter whose methods, marked with `@command`, are the commands of a pool."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any, ClassVar, Self, TypeVar, cast, overload

MARK = "__snakepit_command__"
ON_FAILURE = "on_failure"  # the hook's method, and its name as a command of the pool
MAX_BATCH = 1024  # calls
MAX_WAIT = 1.0  # seconds
DEFAULT_WAIT = 0.005

Method = TypeVar("Method", bound=Callable[..., Any])


class InvalidAdapter(Exception):
    """The adapter cannot be used as it is written. The message says what to change."""


def locked(method: Method) -> Method:
    """Run a plain method while it holds `self.lock`, so that one thread of the worker runs it at a time.

    Use it on methods that write to state which the slots of a thread pool share:

    >>> class Counter(Adapter):
    ...     thread_safe = True
    ...     def __init__(self) -> None:
    ...         self.total = 0
    ...     @command
    ...     @locked
    ...     def add(self, amount: int) -> int:
    ...         self.total += amount
    ...         return self.total
    >>> Counter().add(amount=3)
    3

    Raises InvalidAdapter for generators and async methods. A generator would hold the lock while its caller reads
    slowly. Async methods share one thread, which a thread's lock does not separate; use asyncio.Lock there.
    """
    inner = getattr(method, "__wrapped__", method)
    for kind, test in (("generator", isgeneratorfunction), ("async method", iscoroutinefunction)):
        if test(inner):
            raise InvalidAdapter(f"@locked cannot hold the lock through the {kind} {method.__name__!r}: lock inside it")
    if isasyncgenfunction(inner):
        raise InvalidAdapter(f"@locked cannot hold the lock through the async generator {method.__name__!r}")

    @wraps(method)
    def with_lock(self: Adapter, *args: Any, **kwargs: Any) -> Any:
        with self.lock:
            return method(self, *args, **kwargs)

    return cast("Method", with_lock)


class Adapter:
    """The base class of your code in a worker: state that stays loaded, and commands that use it.

    Each worker process makes one instance. It lives as long as the worker, so what you load once serves every call.

    >>> class Temperatures(Adapter):
    ...     def __init__(self, offset: float = 0.0) -> None:
    ...         self.offset = offset
    ...     def setup(self) -> None:
    ...         self.readings = [18.5, 21.0]
    ...     @command(idempotent=True)
    ...     def mean(self) -> float:
    ...         '''The mean of all readings, in degrees Celsius.'''
    ...         return sum(self.readings) / len(self.readings) + self.offset
    >>> adapter = Temperatures(offset=0.25)
    >>> adapter.setup()
    >>> adapter.mean()
    20.0

    The order in a worker: `preload` (once, on the class), `__init__`, `setup`, calls, `teardown`. An exception in one
    of the first three ends the worker; the pool shows it and starts another one after a pause.
    """

    thread_safe: ClassVar[bool] = False
    """Set it to True if several threads may run commands of one instance together. The thread profile needs it."""

    local: threading.local
    """State of one slot (one thread). Async commands share one thread, and therefore one `local`."""

    lock: Any
    """A reentrant lock for state that the slots of a worker share: `with self.lock: ...`, or `@locked`."""

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        # In __new__, so that a subclass whose __init__ does not call super().__init__() has them too.
        self = super().__new__(cls)
        self.local = threading.local()
        self.lock = threading.RLock()
        return self

    def __init__(self) -> None:
        """Take the pool's `args`, by name. They are checked against the annotations like a command's arguments."""

    @classmethod
    def preload(cls) -> None:
        """Load what all workers share and only read: imports, models, tables. Store it on the class.

        It runs before the instance is made. An adapter that has one gets a template: a process that runs `preload` once
        and then forks the workers, so that they start in milliseconds and share this memory. It may name some of the
        pool's `args` as parameters.

        Leave no threads, no open connections and no GPU context behind: they do not survive a fork. If the check finds
        any, the broker spawns the workers instead, and the pool's status has the reason. Write `preload = True` if you
        share only imports.
        """

    def setup(self) -> Any:
        """Make what each worker needs for itself: connections, GPU contexts, random generators. May be async."""

    def on_failure(self, job: dict[str, Any]) -> Any:
        """Handle the final failure of a job of this pool. May be async.

        It runs in a worker of the pool after the job has ended as `failed`, `lost` or `quarantined`, at least once for
        each such end. `job` has the keys id, pool, command, arguments, state, error, attempts, owner and tags. It is a
        job itself, so callers cannot run it, it may run twice, and its own failure changes no other job.
        """

    def teardown(self) -> Any:
        """Release what `setup` made. May be async. It runs after the last call, but not if the worker is killed."""


@dataclass(frozen=True, slots=True)
class CommandOptions:
    """The arguments of the `@command` decorator."""

    name: str
    idempotent: bool = False
    timeout: float = 0.0  # seconds; 0: the pool's
    batch: int = 0  # calls that may run together; 0: each runs alone
    wait: float = 0.0  # seconds that calls may wait for more of them


@overload
def command(method: Method, /) -> Method: ...
@overload
def command(
    *,
    name: str = "",
    idempotent: bool = False,
    timeout: float | None = None,
    batch: int | None = None,
    wait: float | None = None,
) -> Callable[[Method], Method]: ...
def command(
    method: Any = None, /, *,
    name: str = "", idempotent: bool = False, timeout: float | None = None,
    batch: int | None = None, wait: float | None = None,
) -> Any:  # fmt: skip
    """Make a method a command, which callers of the pool may run.

    `name`: the command's public name; the method's own by default.
    `idempotent`: True if running it twice does no harm. The broker may then retry a call whose worker died,
    and a worker may repeat a call that ran after another call had changed the process.
    `timeout`: the longest time of one call in seconds, instead of the pool's.
    `batch`: the most calls that run together as one call of the method. Each parameter then is a list with one item for
    each call (`list[T]` for arguments of type T), and the method returns a list with one result for each. An item that
    is an exception is the error of its call alone.
    `wait`: the most seconds that calls wait beside a free slot for more calls of their batch; 0.005 by default.

    The annotations decide what callers may send: arguments are checked and converted before the method runs, and a call
    that does not fit fails with `bad_arguments`. The docstring's first line is the command's summary. A plain method,
    an async one, a generator and an async generator are all possible; a generator's items are streamed as chunks.

    >>> class Texts(Adapter):
    ...     @command(name="words", idempotent=True, timeout=5)
    ...     def count_words(self, text: str) -> int:
    ...         '''Count the words of a text.'''
    ...         return len(text.split())
    >>> Texts().count_words(text="one call at a time")
    5

    >>> class Lengths(Adapter):
    ...     @command(idempotent=True, batch=32)
    ...     def length(self, text: list[str]) -> list[int]:
    ...         return [len(one) for one in text]
    >>> Lengths().length(text=["two", "calls"])
    [3, 5]

    Raises InvalidAdapter if the name is not an identifier or begins with an underscore, or if a number is outside its
    bounds: the timeout is above 0, the batch 2 to 1024, the wait 0 to 1.
    """
    require_timeout(timeout)
    require_batch(batch, wait)
    together = (batch, DEFAULT_WAIT if wait is None else float(wait)) if batch else (0, 0.0)
    options = CommandOptions(name, idempotent, float(timeout or 0.0), *together)
    return partial(mark, options) if method is None else mark(options, method)


def mark(options: CommandOptions, method: Method) -> Method:
    """Note on a method that it is a command. Its own name is the default."""
    inner = getattr(method, "__func__", method)  # of a staticmethod or classmethod
    if not callable(inner):
        raise InvalidAdapter(f"@command stands before a method, not before {type(method).__name__}")
    public = options.name or inner.__name__
    if not public.isidentifier() or public.startswith("_"):
        raise InvalidAdapter(
            f"command {public!r}: a command's name is an identifier without a leading underscore; "
            "rename the method or give @command(name=...)"
        )
    setattr(inner, MARK, replace(options, name=public))
    return method


def require_timeout(timeout: Any) -> None:
    if timeout is not None and not (isinstance(timeout, int | float) and 0 < timeout < float("inf")):
        raise InvalidAdapter(f"@command(timeout={timeout!r}): give seconds above 0, or leave it out for the pool's")


def require_batch(batch: Any, wait: Any) -> None:
    """Refuse invalid values of `@command(batch=, wait=)`."""
    if batch is None:
        if wait is not None:
            raise InvalidAdapter(f"@command(wait={wait!r}) is for batches: give batch= as well")
        return
    if isinstance(batch, bool) or not isinstance(batch, int) or not 2 <= batch <= MAX_BATCH:
        raise InvalidAdapter(f"@command(batch={batch!r}): give 2 to {MAX_BATCH} calls, or leave it out")
    if wait is not None and (isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait <= MAX_WAIT):
        raise InvalidAdapter(f"@command(wait={wait!r}): give 0 to {MAX_WAIT:g} seconds, or leave it out")
