"""Finds data races: unlocked writes to state that an adapter's threads share.

For each piece of state (an attribute of the adapter, or a dict, list or set in one) the checker keeps the set of locks
that were held at every write since the setup. If two threads have written it and the set is empty, that is a race, also
if the writes did not overlap in time: nothing prevented it (the lockset method, Eraser, 1997). Reads are not checked.

Locks count if they are attributes of the adapter (such as `self.lock`) or globals of its module. The checker does not
find writes inside objects of other types, or to containers that another object holds as well.
"""

from __future__ import annotations

import linecache
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import CodeType
from typing import Any

from snakepit.workers.adapter import Adapter
from snakepit.workers.report import RaceReport, clean
from snakepit.workers.runtime.tracked_containers import TRACKED, tracked

MAX_STATE = 1000  # pieces of state that are checked
MAX_RACES = 50  # reports of one worker; each piece of state is reported once
MAX_FRAMES = 16
MAX_STACK = 4000  # characters
LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Condition)
HERE = os.path.dirname(__file__) + os.sep
NO_LOCKS: frozenset[int] = frozenset()

Stack = tuple[tuple[CodeType, int], ...]


class WatchedLock:
    """A lock that records which threads hold it. Everything else is passed on to the real lock."""

    def __init__(self, lock: Any, held: HeldLocks) -> None:
        self._lock = lock
        self._held = held
        # Entering a Condition takes its lock, so both have one token.
        self._token = id(getattr(lock, "_lock", lock))

    def acquire(self, *args: Any, **kwargs: Any) -> bool:
        got = bool(self._lock.acquire(*args, **kwargs))
        if got:
            self._held.tokens.append(self._token)
        return got

    def release(self) -> None:
        with suppress(ValueError):  # a plain lock may be released by another thread
            self._held.tokens.remove(self._token)
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)


class HeldLocks(threading.local):
    """The locks that this thread holds, with one entry per acquire."""

    def __init__(self) -> None:
        self.tokens: list[int] = []


@dataclass(frozen=True, slots=True)
class Write:
    thread: int
    name: str
    stack: Stack
    locked: bool


class SharedState:
    """One piece of shared state, and the locks that were held at all writes to it."""

    __slots__ = ("_checker", "_common", "_last", "_name", "_reported")

    def __init__(self, name: str, checker: RaceChecker) -> None:
        self._name = name
        self._checker = checker
        self._last: Write | None = None
        self._common: frozenset[int] | None = None  # None: never written
        self._reported = False

    def wrote(self) -> None:
        """Record a write, on the thread that is about to make it."""
        checker = self._checker
        if self._reported or not checker.on:
            return
        locks = frozenset(checker.held.tokens) if checker.held.tokens else NO_LOCKS
        me = threading.get_ident()
        now = Write(me, threading.current_thread().name, stack_here(), bool(locks))
        with checker.guard:
            before, self._last = self._last, now
            self._common = locks if self._common is None else self._common & locks
            if before is None or before.thread == me or self._common or self._reported:
                return
            self._reported = True
        checker.report(self._name, before, now)


class RaceChecker:
    """Watches one adapter from the end of its setup to the start of its teardown."""

    def __init__(self, report: Callable[[RaceReport], None]) -> None:
        self.on = True
        self.held = HeldLocks()
        self.guard = threading.RLock()  # reentrant: a finalizer may write while it is held
        self._report = report
        self._states: dict[str, SharedState] = {}
        self._fresh: set[str] = set()  # attributes that got a container since the last `settle`
        self._sole = 0  # the reference count of a container that only its adapter holds
        self._races = 0

    def watch(self, adapter: Adapter) -> None:
        """Check every write from now on. The adapter keeps its class's name, module and behaviour."""
        kind = type(adapter)
        for holder in (vars(adapter), vars(sys.modules[kind.__module__])):
            for name, value in list(holder.items()):
                if isinstance(value, LOCKS):
                    holder[name] = WatchedLock(value, self.held)
                del value  # references are counted below
        self._sole = references({"it": []}, "it")
        for name in list(vars(adapter)):
            self._track(vars(adapter), name)
        for owner in kind.__mro__[: kind.__mro__.index(Adapter)]:
            for name in [name for name in vars(owner) if not name.startswith("__")]:
                if self._is_its_own(vars(owner), name):
                    state = self._state(f"{owner.__name__}.{name}[...]")
                    setattr(owner, name, tracked(vars(owner)[name], state.wrote))
        adapter.__class__ = self._watched(kind)

    def stop(self) -> None:
        self.on = False

    def settle(self, adapter: Adapter) -> None:
        """After a call: track the containers that it stored in the adapter, if nothing else holds them."""
        while self._fresh:
            with suppress(KeyError):  # another thread has taken it
                self._track(vars(adapter), self._fresh.pop())

    def report(self, name: str, first: Write, second: Write) -> None:
        with self.guard:
            self._races += 1
            if self._races > MAX_RACES:
                return
        self._report(RaceReport(clean(name, 200), first.name, format_write(first), second.name, format_write(second)))

    def _watched(self, kind: type[Adapter]) -> type[Adapter]:
        checker = self

        def __setattr__(self: Any, name: str, value: Any) -> None:
            checker._state(name).wrote()
            if type(value) in TRACKED:
                checker._fresh.add(name)
            elif isinstance(value, LOCKS):
                value = WatchedLock(value, checker.held)
            kind.__setattr__(self, name, value)

        def __delattr__(self: Any, name: str) -> None:
            checker._state(name).wrote()
            kind.__delattr__(self, name)

        body = {"__slots__": (), "__setattr__": __setattr__, "__delattr__": __delattr__}
        body |= {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
        metaclass: Any = type(kind)
        watched: type[Adapter] = metaclass(kind.__name__, (kind,), body)
        return watched

    def _state(self, name: str) -> SharedState:
        state = self._states.get(name)
        if state is None:
            if len(self._states) >= MAX_STATE:
                name = "(others)"  # an adapter that makes up names: the rest is not reported
                return self._states.setdefault(name, UncheckedState(name, self))
            state = self._states.setdefault(name, SharedState(name, self))
        return state

    def _track(self, holder: dict[str, Any], name: str) -> None:
        if self._is_its_own(holder, name):
            holder[name] = tracked(holder[name], self._state(f"{name}[...]").wrote)

    def _is_its_own(self, holder: Mapping[str, Any], name: str) -> bool:
        """Another holder of the container would not see what is written to the tracked copy."""
        return type(holder[name]) in TRACKED and references(holder, name) <= self._sole


def references(holder: Mapping[str, Any], name: str) -> int:
    return sys.getrefcount(holder[name])


class UncheckedState(SharedState):
    __slots__ = ()

    def wrote(self) -> None: ...


def stack_here() -> Stack:
    """The caller's frames, innermost first, up to the worker's own. Formatting them would cost a hundred times more."""
    return tuple(_frames())


def _frames() -> Iterator[tuple[CodeType, int]]:
    frame = sys._getframe(1)
    seen = 0
    entered = False
    while frame is not None and seen < MAX_FRAMES:
        code = frame.f_code
        if not code.co_filename.startswith(HERE):
            entered = True
            seen += 1
            yield code, frame.f_lineno
        elif entered and not code.co_filename.endswith("adapter.py"):  # for @locked
            return  # the worker's own frames, which called the command
        frame = frame.f_back  # type: ignore[assignment]


def format_write(write: Write) -> str:
    """Format a write's stack like a traceback, the innermost call last."""
    lines = [] if not write.locked else ["(with a lock that not all writers hold)"]
    for code, line in reversed(write.stack):
        lines.append(f'File "{code.co_filename}", line {line}, in {code.co_qualname}')
        if text := linecache.getline(code.co_filename, line).strip():
            lines.append(f"  {text}")
    return clean("\n".join(lines), MAX_STACK)
