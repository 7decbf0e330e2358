"""Finds unlocked writes to state that an adapter's threads share: by the locks that were held, not by chance.

Each piece of state (an attribute of the adapter, or a dict, list or set that is one) remembers which locks were held at
every write since the setup. When two threads have written it and no lock was held at all of these writes, that is a
race, also if the two never met: nothing kept them apart (the lockset method, Eraser, 1997). Reads are not watched.

Seen are locks that are attributes of the adapter (`self.lock` first of all) or globals of its module. Not seen are
writes inside objects of other kinds, and containers that something else than the adapter holds, too.
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
from snakepit.workers.runtime.tracked_containers import SHADOWS, shadow_of

MAX_STATE = 1000  # pieces of state that are watched
MAX_RACES = 50  # that one worker reports; each piece of state is reported once
MAX_FRAMES = 16
MAX_STACK = 4000  # characters
LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Condition)
HERE = os.path.dirname(__file__) + os.sep
NO_LOCKS: frozenset[int] = frozenset()

Stack = tuple[tuple[CodeType, int], ...]


class WatchedLock:
    """A lock that knows which threads hold it; all else is the lock's own affair."""

    def __init__(self, lock: Any, held: HeldLocks) -> None:
        self._lock = lock
        self._held = held
        # A Condition is entered through its lock: both are one.
        self._token = id(getattr(lock, "_lock", lock))

    def acquire(self, *args: Any, **kwargs: Any) -> bool:
        got = bool(self._lock.acquire(*args, **kwargs))
        if got:
            self._held.tokens.append(self._token)
        return got

    def release(self) -> None:
        with suppress(ValueError):  # a plain lock may be given back by another thread than the one that took it
            self._held.tokens.remove(self._token)
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)


class HeldLocks(threading.local):
    """The locks that this thread holds, one entry for each time that it took one."""

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
        """On the thread that is about to write."""
        checker = self._checker
        if self._reported or not checker.on:
            return
        locks = frozenset(checker.held.tokens) if checker.held.tokens else NO_LOCKS
        me = threading.get_ident()
        now = Write(me, threading.current_thread().name, stack_here(), bool(locks))
        with checker.books:
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
        self.books = threading.RLock()  # a finalizer may write in the midst of it
        self._report = report
        self._states: dict[str, SharedState] = {}
        self._fresh: set[str] = set()  # attributes that were given a container since the last look
        self._sole = 0  # what getrefcount says of a container that only its adapter holds
        self._races = 0

    def watch(self, adapter: Adapter) -> None:
        """From now on every write counts. The adapter keeps its class's name, module and behaviour."""
        kind = type(adapter)
        for holder in (vars(adapter), vars(sys.modules[kind.__module__])):
            for name, value in list(holder.items()):
                if isinstance(value, LOCKS):
                    holder[name] = WatchedLock(value, self.held)
                del value  # a reference less: they are counted below
        self._sole = references({"it": []}, "it")
        for name in list(vars(adapter)):
            self._shadow(vars(adapter), name)
        for owner in kind.__mro__[: kind.__mro__.index(Adapter)]:
            for name in [name for name in vars(owner) if not name.startswith("__")]:
                if self._is_its_own(vars(owner), name):
                    state = self._state(f"{owner.__name__}.{name}[...]")
                    setattr(owner, name, shadow_of(vars(owner)[name], state.wrote))
        adapter.__class__ = self._watched(kind)

    def stop(self) -> None:
        self.on = False

    def settle(self, adapter: Adapter) -> None:
        """After a call: containers that it gave to the adapter are watched, once nothing else holds them."""
        while self._fresh:
            with suppress(KeyError):  # another thread was first
                self._shadow(vars(adapter), self._fresh.pop())

    def report(self, name: str, first: Write, second: Write) -> None:
        with self.books:
            self._races += 1
            if self._races > MAX_RACES:
                return
        self._report(RaceReport(clean(name, 200), first.name, text_of(first), second.name, text_of(second)))

    def _watched(self, kind: type[Adapter]) -> type[Adapter]:
        checker = self

        def __setattr__(self: Any, name: str, value: Any) -> None:
            checker._state(name).wrote()
            if type(value) in SHADOWS:
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
                name = "(others)"  # an adapter that makes up names; their writes are not told apart, nor reported
                return self._states.setdefault(name, Unwatched(name, self))
            state = self._states.setdefault(name, SharedState(name, self))
        return state

    def _shadow(self, holder: dict[str, Any], name: str) -> None:
        if self._is_its_own(holder, name):
            holder[name] = shadow_of(holder[name], self._state(f"{name}[...]").wrote)

    def _is_its_own(self, holder: Mapping[str, Any], name: str) -> bool:
        """Whoever else held the container would not see what is written to its shadow."""
        return type(holder[name]) in SHADOWS and references(holder, name) <= self._sole


def references(holder: Mapping[str, Any], name: str) -> int:
    return sys.getrefcount(holder[name])


class Unwatched(SharedState):
    __slots__ = ()

    def wrote(self) -> None: ...


def stack_here() -> Stack:
    """The caller's frames from inside out, up to the worker's own; kept as they are, for text costs a hundred times."""
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
        elif entered and not code.co_filename.endswith("adapter.py"):  # there is @locked
            return  # the worker's own frames, that called the command
        frame = frame.f_back  # type: ignore[assignment]


def text_of(write: Write) -> str:
    """As a traceback shows it: the innermost call last."""
    lines = [] if not write.locked else ["(with a lock that not all writers hold)"]
    for code, line in reversed(write.stack):
        lines.append(f'File "{code.co_filename}", line {line}, in {code.co_qualname}')
        if text := linecache.getline(code.co_filename, line).strip():
            lines.append(f"  {text}")
    return clean("\n".join(lines), MAX_STACK)
