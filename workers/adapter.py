"""What a user subclasses: Adapter, and the `command` decorator that opens a method to callers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any, ClassVar, Self, TypeVar, cast, overload

MARK = "__snakepit_command__"

Method = TypeVar("Method", bound=Callable[..., Any])


class AdapterError(Exception):
    """The adapter cannot be used as it is written; the message says what to change."""


def locked(method: Method) -> Method:
    """Run a plain method with `self.lock` held: one thread of the worker at a time.

    Not for generators and async methods. A generator would keep the lock while its reader is slow; an async method
    shares its thread with all others, which a thread's lock does not keep apart (asyncio.Lock does).
    """
    inner = getattr(method, "__wrapped__", method)
    for kind, test in (("generator", isgeneratorfunction), ("async method", iscoroutinefunction)):
        if test(inner):
            raise AdapterError(f"@locked cannot hold the lock through the {kind} {method.__name__!r}: lock inside it")
    if isasyncgenfunction(inner):
        raise AdapterError(f"@locked cannot hold the lock through the async generator {method.__name__!r}")

    @wraps(method)
    def holding(self: Adapter, *args: Any, **kwargs: Any) -> Any:
        with self.lock:
            return method(self, *args, **kwargs)

    return cast("Method", holding)


class Adapter:
    """Warm state and the commands on it. One instance lives in each worker.

    `preload` runs before the instance is made, in the template where there is one; `setup` once in each worker;
    `teardown` when the worker drains. `setup` and `teardown` may be async.
    """

    thread_safe: ClassVar[bool] = False
    """Say True when several threads may run commands at once; the thread profile refuses the adapter otherwise."""

    local: threading.local
    """State of the slot (thread) that runs the command. Async commands share one thread, and so one `local`."""

    lock: Any
    """A reentrant lock for writes to state that slots share: `with self.lock: ...`"""

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        # In __new__, so that a subclass whose __init__ forgets super().__init__() has them all the same.
        self = super().__new__(cls)
        self.local = threading.local()
        self.lock = threading.RLock()
        return self

    def __init__(self) -> None:
        """Subclasses take the pool's `args` here, as keyword arguments."""

    @classmethod
    def preload(cls) -> None:
        """Load what all workers share and nobody writes to: imports, models. May name some of the pool's `args`.

        No threads, no connections, no GPU: with those the workers are spawned one by one. An adapter whose imports
        are all there is to share says `preload = True` instead.
        """

    def setup(self) -> Any:
        """Make what each worker needs for itself: connections, GPU contexts, random seeds."""

    def teardown(self) -> Any:
        """Give back what `setup` took."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the decorator was told about a command."""

    name: str
    idempotent: bool = False
    timeout: float = 0.0  # seconds; 0: the pool's


@overload
def command(method: Method, /) -> Method: ...
@overload
def command(
    *, name: str = "", idempotent: bool = False, timeout: float | None = None
) -> Callable[[Method], Method]: ...
def command(method: Any = None, /, *, name: str = "", idempotent: bool = False, timeout: float | None = None) -> Any:
    """Open a method to callers.

    `idempotent`: running it twice does no harm, so the broker may retry it when a worker dies.
    `timeout`: seconds that a call of it may take, in place of the pool's.
    """
    if timeout is not None and not (isinstance(timeout, int | float) and 0 < timeout < float("inf")):
        raise AdapterError(f"@command(timeout={timeout!r}): give seconds above 0, or leave it out for the pool's")

    def mark(method: Any) -> Any:
        inner = getattr(method, "__func__", method)  # of a staticmethod or classmethod
        if not callable(inner):
            raise AdapterError(f"@command stands before a method, not before {type(method).__name__}")
        public = name or inner.__name__
        if not public.isidentifier() or public.startswith("_"):
            raise AdapterError(
                f"command {public!r}: a command's name is an identifier without a leading underscore; "
                "rename the method or give @command(name=...)"
            )
        setattr(inner, MARK, Options(public, idempotent, float(timeout or 0.0)))
        return method

    return mark if method is None else mark(method)
