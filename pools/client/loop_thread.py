"""The event loop that all sessions of a process share, its background thread, and what a fork does to them.

A thread that waits for its answer runs the loop itself (workers/transport/loop_owner.py): passing each call to a
background thread and back costs two wake-ups. The background thread runs the loop while no thread waits, or several do.

A forked child has the parent's memory but not its threads: no thread runs the loop, and the loop's sockets are still
the parent's connections. The child must neither use nor close them:

- `loop.close()` would remove the sockets from the epoll set that parent and child share: the parent reads nothing more.
- Closing a connection in order would end the parent's session.
- Closing the bare descriptors would let their numbers be used again, while old objects will still close them.

So the child points each descriptor of the loop at /dev/null and keeps the old objects forever.

A signal handler or a finalizer may interrupt a thread anywhere in the state that all calls share. So threads change it
in steps:

    run_step ─▶ inside ─▶ send, or wait on the loop ─▶ outside
                  ├─ an exception came out: the state is unknown, so the loop and its sessions are given up as one
                  └─ inside at the next step: a call within a call (next level), or the last step never ended (give up)

Nothing of a loop that was given up is used again, so it does not matter where the exception came, nor which locks were
held. An exception that came while the loop waited for events changed nothing: the session stays.

A signal handler or a finalizer that calls inside another call gets a loop and a session of its own, those of the next
level.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable
from threading import current_thread, get_ident
from types import FrameType
from typing import Any, TypeVar

from snakepit.pools.broker.errors import NOT_STARTED, UNKNOWN, BadRequest, BrokerUnreachable
from snakepit.pools.greenlets import PATCHED, is_patched
from snakepit.workers.transport.loop_owner import BoundedSelector, LoopOwner, came_while_waiting, release
from snakepit.workers.transport.own_files import DescriptorGone, GuardedLoop

T = TypeVar("T")

END_TURNS = 3  # in which the tasks of a loop end
END_TIMEOUT = 0.2  # seconds of each turn: a task that was interrupted may never end
STOP_TIMEOUT = 2.0  # seconds that the end of the process waits for the sessions to end in order
LEVELS = 4  # calls of one thread inside each other
NESTED = (
    "A signal handler or a finalizer (__del__) called the client while its thread was inside another call of it: "
    "note the event and call later, or call from another thread"
)
FORKED = "The call belongs to the process that forked this one."


class ClientLoop(GuardedLoop):
    """A loop that can be run again after an interrupt in the middle of asyncio's own `run_forever`."""

    _thread_id: int | None

    def __init__(self, selector: BoundedSelector) -> None:
        super().__init__(selector)
        self.network_transports: weakref.WeakSet[Any] = weakref.WeakSet()  # TLS of both ends closes one: it takes turns

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """As asyncio's, but raise what a signal handler raises meanwhile: asyncio logs it, and the loop would go on in
        an unknown state."""
        handler = self.get_exception_handler()
        if handler is None or threading.get_ident() != threading.main_thread().ident:  # no signal comes there
            super().call_exception_handler(context)
        else:
            handler(self, context)

    def let_go(self) -> None:
        """On the interrupted thread: undo what `run_forever` sets and has not reset."""
        if self._thread_id == threading.get_ident():
            self._thread_id = None
        if running_loop() is self:
            asyncio._set_running_loop(None)
        hooks = sys.get_asyncgen_hooks()
        if getattr(hooks.firstiter, "__self__", None) is self:
            sys.set_asyncgen_hooks(None, None)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Take the exception of a task, which asyncio would report otherwise: its coroutine may be closed by now."""
    if not task.cancelled():
        task.exception()


# Returns the event loop that this thread runs now, the client's or the caller's own: it cannot run another one.
running_loop: Callable[[], asyncio.AbstractEventLoop | None] = asyncio._get_running_loop


class LoopThread:
    """One event loop, the daemon thread that is its backup until the process ends, and the sessions on the loop.

    `inside`: the threads that change its state at the moment (`run_step`). `level`: 0, or how many calls of one thread
    are inside each other. The loop and its thread start at the first use, so that making this object changes nothing.
    """

    def __init__(self, level: int = 0) -> None:
        self.level = level
        self.inside: set[int] = set()
        self.sessions: dict[Any, Any] = {}  # by target: those that the next call uses
        self.latest: Any = None  # one of them: most processes have one broker, and need no look-up
        self.open_sessions: set[Any] = set()  # all that have a task still, also those that were lost
        self.questions: set[Any] = set()  # to the broker itself, that are not answered yet
        self.lock = threading.RLock()  # a finalizer or a signal handler may call while its thread holds it
        self.retired = False
        self.forked = False  # this is the copy of the parent's, in the child of a fork
        self.thread: threading.Thread | None = None
        self._owner: LoopOwner | None = None
        self._over = False

    def owner(self) -> LoopOwner:
        """Return the loop's owner; starts both at the first use."""
        if self._owner is None:
            with self.lock:
                if self._owner is None:
                    self._start()
        assert self._owner is not None
        return self._owner

    def _start(self) -> None:
        if is_patched():
            raise BrokerUnreachable(PATCHED, outcome=NOT_STARTED)
        # Our own selector, because the child of a fork has to find the descriptors of the loop.
        self.selector = BoundedSelector()
        self.loop = ClientLoop(self.selector)
        self.loop.set_exception_handler(self._report)
        owner = self._owner = LoopOwner(self.loop)
        self.thread = threading.Thread(target=self._run, args=(owner,), name="snakepit-client", daemon=True)
        _alive.add(self)
        try:
            self.thread.start()
        except RuntimeError as error:  # no thread can be started at the end of the interpreter
            raise BrokerUnreachable(f"No call can be sent: {error}.", outcome=NOT_STARTED) from error

    def _run(self, owner: LoopOwner) -> None:
        self.inside.add(threading.get_ident())  # a callback of a caller's Future that calls must not wait for itself
        asyncio.set_event_loop(self.loop)
        try:
            owner.run_backup(lambda: self._over or self.retired)
        except BaseException as error:  # of a callback of a caller's Future, for example SystemExit
            retire(self, error)
        finally:
            if owner.retired:  # the waiter that was interrupted may have been interrupted again before it retired this
                retire(self, None)
            owner.take_for_end()
            self._end_tasks()
            for session in self.open_sessions.copy():
                session.end_calls(interrupted(None))
                session.release()
            with contextlib.suppress(Exception):  # what cannot be closed, the collection of garbage closes
                self.loop.close()
            _alive.discard(self)

    def _end_tasks(self) -> None:
        for _ in range(END_TURNS):
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            if not tasks:
                for transport in tuple(self.loop.network_transports):
                    transport.abort()  # TLS would wait for the broker's end of it
            # Transports close one turn later.
            turn = asyncio.wait(tasks, timeout=END_TIMEOUT) if tasks else asyncio.sleep(0)
            with contextlib.suppress(Exception):  # a `stop` that was meant for a waiter, or a loop in a wrong state
                task = self.loop.create_task(turn)
                task.add_done_callback(_retrieve)
                self.loop.run_until_complete(task)
                if not tasks:
                    return
            turn.close()

    def _report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Have the waiting thread raise what a signal handler raised in a callback: asyncio would only log it."""
        error = context.get("exception")
        if self.retired:
            return
        own = any(source in context for source in ("handle", "callback", "transport"))
        if error is None or not own or self._owner is None or threading.current_thread() is self.thread:
            loop.default_exception_handler(context)
            return
        if "transport" in context:  # closed by now; the peer's bytes may be the cause, too
            failure = BrokerUnreachable(f"The connection to the broker was lost: {error!r}", outcome=UNKNOWN)
            failure.__cause__ = error
            error = failure
        self._owner.failure = error
        loop.stop()

    def let_go(self) -> None:
        """Let go of the loop on the interrupted thread; the background thread closes it."""
        release(self.lock)
        if self._owner is not None:
            self.loop.let_go()
            self._owner.retire()

    def check_descriptors(self) -> None:
        """Raise if the process has closed a descriptor of the loop: no thread would wake up any more."""
        try:
            self.selector.check()
        except OSError as error:
            raise BrokerUnreachable("The process has closed the client's descriptors.", outcome=UNKNOWN) from error

    def stop(self) -> None:
        """End the loop; its tasks are cancelled and end their sessions."""
        self._over = True
        if self._owner is None or self.thread is None:
            return
        with contextlib.suppress(RuntimeError, DescriptorGone):  # the loop is closed already
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._owner.leave_to_backup()
        self.thread.join(STOP_TIMEOUT)

    def abandon(self) -> None:
        """In the child of a fork: release the parent's descriptors without a message to any broker."""
        self.forked = self.retired = True
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        own = [self.selector.fileno()] if self.selector.is_ours() and hasattr(self.selector, "fileno") else []
        for descriptor in [*own, *self.selector.registered()]:
            os.dup2(nowhere, descriptor, inheritable=False)
        os.close(nowhere)


current: dict[int, LoopThread] = {}  # by level
_alive: set[LoopThread] = set()  # those that have descriptors, also while they end
_shut_down = False
_kept: list[object] = []  # objects of the parent that must never be collected in a child
_after_fork: list[Callable[[], None]] = []


def at_level(level: int) -> LoopThread:
    """Return the process's loop of a level; a new one if there is none or it was retired."""
    found = current.get(level)
    if found is None or found.retired:
        check_shutdown()
        if found is not None:
            retire(found, None)  # again: an interrupt may have come in the middle of it
        found = current.setdefault(level, LoopThread(level))
    return found


def all_loops() -> list[LoopThread]:
    return list(current.values())


def event_loop() -> LoopOwner:
    """Return the process's loop and its owner; started on first use."""
    return at_level(0).owner()


def check_shutdown() -> None:
    """Refuse a call that no thread would serve."""
    if _shut_down or sys.is_finalizing():
        raise BrokerUnreachable("The interpreter is shutting down: no call can be sent.", outcome=NOT_STARTED)


def retire(loop_thread: LoopThread, cause: BaseException | None) -> None:
    """Give up a loop whose state is unknown: its calls end, and the next call starts another one.

    Safe to call again, also after an interrupt in the middle of it.
    """
    loop_thread.retired = True  # first: no call begins on it any more
    loop_thread.let_go()  # the background thread ends all the same, should this thread be interrupted again
    reason = interrupted(cause)
    for waiting in (*loop_thread.open_sessions.copy(), *loop_thread.questions.copy()):
        waiting.end_calls(reason)
    remove(loop_thread)


def interrupted(cause: BaseException | None) -> BrokerUnreachable:
    by = "an exception" if cause is None else type(cause).__name__
    return BrokerUnreachable(f"The connection was interrupted by {by}.", outcome=UNKNOWN)


def remove(loop_thread: LoopThread) -> None:
    if current.get(loop_thread.level) is loop_thread:
        current.pop(loop_thread.level, None)


def current_loop() -> LoopThread:
    """Return the loop that this thread's next call may use."""
    found = current.get(0)
    if found is not None and not found.retired and get_ident() not in found.inside:  # nearly always
        return found
    for level in range(LEVELS):
        found = at_level(level)
        if get_ident() not in found.inside:
            return found
        if not _is_nested(found, sys._getframe()):
            return at_level(level)
    raise BadRequest(NESTED)


def _is_nested(loop_thread: LoopThread, frame: FrameType | None) -> bool:
    """Whether a frame below runs a step of a loop. If not, the last step never ended, and the loop is given up."""
    if current_thread() is loop_thread.thread:
        return True
    while frame is not None:
        if frame.f_code is run_step.__code__ and frame.f_locals.get("loop_thread") is loop_thread:
            return True
        frame = frame.f_back
    retire(loop_thread, None)
    return False


def run_step(loop_thread: LoopThread, step: Callable[..., T], *args: Any) -> T:
    """Run one step; refuses one inside another of the same thread, which would wait for itself."""
    thread, inside = get_ident(), loop_thread.inside
    if thread in inside and _is_nested(loop_thread, sys._getframe(1)):
        raise BadRequest(NESTED)
    try:
        inside.add(thread)
        result = step(*args)
        inside.discard(thread)
    except BaseException as error:
        if loop_thread.forked:  # in the child, the wait itself fails
            raise BrokerUnreachable(FORKED, outcome=UNKNOWN) from None
        if not came_while_waiting(error):
            retire(loop_thread, error)
        inside.discard(thread)
        if isinstance(error, OSError) and error.errno is not None:  # not the TimeoutError of a signal handler
            reason = f"The client's own descriptors cannot be used: {error.strerror}."
            raise BrokerUnreachable(reason, outcome=UNKNOWN) from error
        raise
    return result


def run_short_step(loop_thread: LoopThread, step: Callable[..., T], *args: Any) -> T:
    """Run a step that never waits: a finalizer may do so inside another step."""
    if get_ident() in loop_thread.inside and _is_nested(loop_thread, sys._getframe()):
        return step(*args)
    return run_step(loop_thread, step, *args)


def after_fork(forget: Callable[[], None]) -> None:
    """Have a function called in the child of each fork, after `abandon`."""
    _after_fork.append(forget)


def stop() -> None:
    """End the background threads; the next call starts a new one."""
    for loop_thread in all_loops():
        remove(loop_thread)
        loop_thread.stop()


def _shut_down_at_exit() -> None:
    global _shut_down
    _shut_down = True
    stop()


def _forget() -> None:
    global current
    current = {}
    for loop_thread in _alive.copy():
        _kept.append(loop_thread)
        loop_thread.abandon()
        for session in loop_thread.open_sessions.copy():
            session.forget()
    for forget in _after_fork:
        forget()


os.register_at_fork(after_in_child=_forget)
atexit.register(_shut_down_at_exit)
