"""The event loop that all sessions of a process share, its background thread, and what a fork does to them.

A thread that waits for its answer runs the loop itself (workers/transport/loop_owner.py): passing each call to a
background thread and back costs two wake-ups. The background thread runs the loop while no thread waits, or several do.

A forked child has the parent's memory but not its threads: no thread runs the loop, and the loop's sockets are still
the parent's connections. The child must neither use nor close them:

- `loop.close()` would remove the sockets from the epoll set that parent and child share: the parent reads nothing more.
- Closing a connection in order would end the parent's session.
- Closing the bare descriptors would let their numbers be used again, while old objects will still close them.

So the child points each descriptor of the loop at /dev/null and keeps the old objects for ever.

A loop whose state is unknown is retired (steps.py): its calls end, and the next call starts another loop.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import select
import selectors
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from snakepit.pools.broker.errors import NOT_STARTED, UNKNOWN, BrokerUnreachable
from snakepit.workers.transport.loop_owner import LoopOwner

T = TypeVar("T")
PATCHED = (
    "gevent or eventlet has patched this process, and the client's event loop cannot run in it. Use threads: "
    "gunicorn -k gthread, or celery -P threads."
)

END_TURNS = 10  # in which the tasks of a loop end
END_TIMEOUT = 0.2  # seconds of each turn: a task that was interrupted may never end
STOP_TIMEOUT = 2.0  # seconds that the end of the process waits for the sessions to end in order


class ClientLoop(asyncio.SelectorEventLoop):
    """A loop that can be run again after an interrupt in the middle of asyncio's own `run_forever`."""

    _thread_id: int | None

    def let_go(self) -> None:
        """On the interrupted thread: undo what `run_forever` sets and has not reset."""
        if self._thread_id == threading.get_ident():
            self._thread_id = None
        if runs_here(self):
            asyncio._set_running_loop(None)
        hooks = sys.get_asyncgen_hooks()
        if getattr(hooks.firstiter, "__self__", None) is self:
            sys.set_asyncgen_hooks(None, None)


def runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this thread runs the loop now."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


class LoopThread:
    """One event loop, and the daemon thread that is its backup until the process ends."""

    def __init__(self) -> None:
        if sys.platform == "linux" and not hasattr(select, "epoll"):  # gevent and eventlet remove it
            raise BrokerUnreachable(PATCHED)
        # Our own selector, because the child of a fork has to know which descriptors the loop has.
        self.selector = selectors.DefaultSelector()
        self.loop = ClientLoop(self.selector)
        self.loop.set_exception_handler(self._report)
        self.loop_owner = LoopOwner(self.loop)
        self._over = False
        self.thread = threading.Thread(target=self._run, name="snakepit-client", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop_owner.run_backup(lambda: self._over)
        except BaseException as error:  # of a callback of a caller's Future, for example SystemExit
            retire(self, error)
        try:
            ended = self._end_tasks()
        except Exception:
            if not self.loop_owner.retired:
                raise
            ended = False
        if ended:
            self.loop.close()
        else:  # an interrupt left the loop unusable: only its connections can be ended
            _kept.append(self)
            self.abandon()

    def _end_tasks(self) -> bool:
        for _ in range(END_TURNS):
            tasks = asyncio.all_tasks(self.loop)
            if not tasks:
                with contextlib.suppress(RuntimeError):
                    self.loop.run_until_complete(asyncio.sleep(0))  # transports close one turn later
                    return True
            for task in tasks:
                task.cancel()
            with contextlib.suppress(RuntimeError):  # a `stop` that was meant for a waiter
                self.loop.run_until_complete(asyncio.wait(tasks, timeout=END_TIMEOUT))
        return False

    def _report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Have the main thread raise what a signal handler raised in a callback: asyncio would only log it."""
        error = context.get("exception")
        own = any(source in context for source in ("handle", "callback", "transport"))
        if error is None or not own or threading.current_thread() is not threading.main_thread():
            loop.default_exception_handler(context)
            return
        if "transport" in context:  # closed by now; the peer's bytes may be the cause, too
            failure = BrokerUnreachable(f"The connection to the broker was lost: {error!r}", outcome=UNKNOWN)
            failure.__cause__ = error
            error = failure
        self.loop_owner.failure = error
        loop.stop()

    def retire(self) -> None:
        self._over = True
        self.loop.let_go()
        self.loop_owner.retire()

    def stop(self) -> None:
        """End the loop; its tasks are cancelled and end their sessions."""
        self._over = True
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self.loop.call_soon_threadsafe(self.loop.stop)
        self.loop_owner.leave_to_backup()
        self.thread.join(STOP_TIMEOUT)

    def abandon(self) -> None:
        """In the child of a fork: let go of the parent's descriptors without a message to any broker."""
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        own = [self.selector.fileno()] if hasattr(self.selector, "fileno") else []
        for descriptor in [*own, *(key.fd for key in self.selector.get_map().values())]:
            os.dup2(nowhere, descriptor, inheritable=False)
        os.close(nowhere)


lock = threading.RLock()  # of all clients; a finalizer or a signal handler may call while its thread holds it
_current: LoopThread | None = None
_shut_down = False
_kept: list[object] = []  # objects of the parent that must never be collected in a child
_after_fork: list[Callable[[], None]] = []
_on_retire: list[Callable[[asyncio.AbstractEventLoop, BrokerUnreachable], None]] = []


def run(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Run a coroutine on the process's loop, soon."""
    loop_owner = event_loop()
    running = asyncio.run_coroutine_threadsafe(coroutine, loop_owner.loop)
    loop_owner.ensure_running()
    return running


def event_loop() -> LoopOwner:
    """Return the process's loop and its owner; started on first use."""
    global _current
    current = _current
    if current is None:
        check_shutdown()
        with lock:
            if _current is None:
                try:
                    _current = LoopThread()
                except RuntimeError as error:  # no thread can be started at the end of the interpreter
                    raise BrokerUnreachable(f"No call can be sent: {error}.", outcome=NOT_STARTED) from error
            current = _current
    return current.loop_owner


def check_shutdown() -> None:
    """Refuse a call that no thread would serve."""
    if _shut_down or sys.is_finalizing():
        raise BrokerUnreachable("The interpreter is shutting down: no call can be sent.", outcome=NOT_STARTED)


def retire(loop_thread: LoopThread | None, cause: BaseException | None) -> None:
    """Give up a loop (None: the current one) whose state is unknown; its calls end, the next call starts another."""
    global _current
    if loop_thread is None or loop_thread is _current:
        loop_thread, _current = _current, None
    try:
        while True:
            lock.release()  # the interrupted thread may hold it
    except RuntimeError:  # this thread does not hold it any more
        pass
    if loop_thread is None:
        return
    loop_thread.loop_owner.retired = True
    by = "an exception" if cause is None else type(cause).__name__
    error = BrokerUnreachable(f"The connection was interrupted by {by}.", outcome=UNKNOWN)
    for end_calls in _on_retire:
        end_calls(loop_thread.loop, error)
    loop_thread.retire()  # last: a waiter whose call has ended now leaves the loop


def on_retire(end_calls: Callable[[asyncio.AbstractEventLoop, BrokerUnreachable], None]) -> None:
    """Have a function called that ends the calls of a loop."""
    _on_retire.append(end_calls)


def after_fork(forget: Callable[[], None]) -> None:
    """Have a function called in the child of each fork, after `abandon`."""
    _after_fork.append(forget)


def stop() -> None:
    """End the background thread; the next call starts a new one."""
    global _current
    with lock:
        current, _current = _current, None
    if current is not None:
        current.stop()


def _shut_down_at_exit() -> None:
    global _shut_down
    _shut_down = True
    stop()


def _forget() -> None:
    global lock, _current
    lock = threading.RLock()  # another thread may have held it when the process forked
    current, _current = _current, None
    if current is not None:
        _kept.append(current)
        current.abandon()
    for forget in _after_fork:
        forget()


os.register_at_fork(after_in_child=_forget)
atexit.register(_shut_down_at_exit)
