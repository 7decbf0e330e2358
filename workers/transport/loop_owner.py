"""One event loop that several threads can run, one at a time: the leader/followers pattern.

    waiter:         run_until ─ runs the loop ─▶ its work arrived ─▶ returns ─ runs a command ─▶ run_until ...
    backup thread:  sleeps ───────────────────▶ no waiter for BACKUP_DELAY? runs the loop until one comes back

Passing each call from an I/O thread to another thread and back costs two wake-ups, more than a short call itself. So
the thread that waits for a call, or for its answer, runs the loop meanwhile and reads its own socket. The backup thread
takes over when no thread waits for long: cancels, probes and the chunks of a stream then move while a command runs.

The exception of a signal handler, or a finalizer that calls, may interrupt any statement here. So the backup thread
waits for nothing without a bound, `_state` may be taken twice by one thread, and `retire` gives up an owner whose state
is unknown.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from traceback import walk_tb
from typing import Any

from snakepit.workers.transport.own_files import DescriptorGone, OwnSelector

BACKUP_DELAY = 0.005  # seconds that the loop may stand still
QUIET_CHECKS = 4  # in a row in which no waiter came or left, after which the backup thread sleeps until one leaves
LONGEST_SLEEP = 1.0  # seconds after which the backup thread checks again, even if its wake-up was lost
LONGEST_SELECT = 1.0  # seconds of one wait of the main thread for events
LONGEST_OF_OTHERS = 5.0  # of another thread


class BoundedSelector(OwnSelector):
    """A selector whose wait has a bound, so that it finds a late signal, and a descriptor that was closed."""

    def __init__(self) -> None:
        super().__init__(LONGEST_OF_OTHERS, LONGEST_SELECT)


WAITING = tuple(kind.select.__code__ for kind in (selectors.DefaultSelector, OwnSelector))


def came_while_waiting(error: BaseException) -> bool:
    """Whether a signal handler raised while the loop waited for events: this leaves no state half-changed.

    An error of the wait itself does not count: its descriptor was closed.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return False
    return any(frame.f_code in WAITING for frame, _ in walk_tb(error.__traceback__))


def release(lock: threading.RLock) -> None:
    """Release a lock as often as this thread holds it: an interrupt may have come between the acquire and the block."""
    try:
        while True:
            lock.release()
    except RuntimeError:  # this thread does not hold it any more
        pass


class LoopOwner:
    """`turns`: of the loop that `run_once` takes, so that what was queued is written."""

    def __init__(self, loop: asyncio.AbstractEventLoop, turns: int = 1) -> None:
        self.loop = loop
        self._turns = turns
        self._running = threading.Lock()  # held by the thread that runs the loop
        self._callbacks: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()  # for the next one to run it
        # Guards the four below: a waiter and the backup thread write them. A finalizer may come while it is held.
        self._state = threading.RLock()
        self._no_waiter = True
        self._departures = 0  # of waiters
        self._backup_sleeps = False
        self._urgent = False
        self._asleep = threading.Lock()  # its release wakes the backup thread; an Event is not safe in a finalizer
        self._asleep.acquire()
        self._backup_runs = False
        self.runner = 0  # the thread that runs the loop, or ran it last
        self.retired = False
        self._intact = True  # False while a waiter runs the loop, and for good if an interrupt cut it off there
        self.failure: BaseException | None = None  # of a callback; the thread that runs the loop raises it

    # Waiters.

    def run_until(self, is_done: Callable[[], object]) -> None:
        """Run the loop on this thread until `is_done`; takes it from the backup thread. See `recheck`."""
        running = False
        try:
            running = self._take()
            if self._callbacks:
                self._run_callbacks()
            while not is_done():
                self.loop.run_forever()
        finally:
            self._give_back(running)

    def run_once(self) -> None:
        """Let the loop write and read what there is, without waiting for more."""
        running = False
        try:
            running = self._take()
            self._run_callbacks()
            for _ in range(self._turns):
                self.loop.stop()  # before it runs: it then takes one turn
                self.loop.run_forever()
        finally:
            self._give_back(running)

    def _take(self) -> bool:
        with self._state:
            self._no_waiter = self._urgent = False
        if not self._running.acquire(blocking=False):
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._running.acquire()
        return True

    def _give_back(self, running: bool) -> None:
        self._leave()  # before the release: the next waiter's arrival must not be undone by this departure
        if running:
            self._running.release()

    def try_run_until(self, is_done: Callable[[], object], timeout: float | None, *, alone: bool) -> None:
        """As `run_until`, for a thread that can also wait without the loop; `is_done` may be false afterwards.

        Returns immediately if another waiter has the loop, or if the backup thread runs it for others (not `alone`).
        """
        if not self._running.acquire(blocking=False) and not (alone and self._take_from_backup()):
            return
        try:
            if (self.retired or not self._intact) and self._is_given_up():
                return
            self._intact = False
            self.runner = threading.get_ident()
            with self._state:
                self._no_waiter = self._urgent = False
            if self._callbacks:
                self._run_callbacks()
            if timeout is None:
                while not is_done():
                    self.loop.run_forever()
                    if self.failure is not None:
                        break
            else:
                self._run_with_timeout(is_done, timeout)
            if self.failure is not None:
                self._raise_failure()
            self._intact = True
        except BaseException as error:
            # Before the release: no other thread may run a loop whose state is unknown. A second interrupt may come
            # here, so the loop counts as intact only once that is certain. A failure that waits is this thread's own.
            self._intact = came_while_waiting(error) and self.failure is None
            self.retired = self.retired or not self._intact
            raise
        finally:
            self._leave()
            self._running.release()

    def _is_given_up(self) -> bool:
        """Whether the loop may not be run: it was retired, or an interrupt cut off the thread that ran it last."""
        if not self._intact:
            self.retired = True
        return self.retired

    def _take_from_backup(self) -> bool:
        if not self._backup_runs:
            return False
        taken = False
        with self._state:
            self._no_waiter = False
        try:
            self.loop.call_soon_threadsafe(self.loop.stop)
            taken = self._running.acquire(timeout=BACKUP_DELAY)
        finally:  # also when a signal handler raises in the acquire: the backup thread must not sleep forever
            if not taken:
                self._leave()
        return taken

    def _run_with_timeout(self, is_done: Callable[[], object], timeout: float) -> None:
        expired = threading.Event()  # not a look at the clock: a timer of asyncio may fire a little early
        timer = self.loop.call_later(timeout, self._expire, expired)
        try:
            while not is_done() and not expired.is_set():
                self.loop.run_forever()
                self._raise_failure()
        finally:
            timer.cancel()

    def _expire(self, expired: threading.Event) -> None:
        expired.set()
        self.loop.stop()

    def _leave(self) -> None:
        with self._state:
            self._no_waiter = True
            self._departures += 1
            wake, self._backup_sleeps = self._backup_sleeps, False
        if wake:
            self._wake_backup()

    def _raise_failure(self) -> None:
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    # The thread that runs the loop.

    def recheck(self) -> None:
        """Have the waiter evaluate `is_done` again after this turn of the loop."""
        if self.loop.is_running():
            self.loop.stop()

    # Any thread.

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> None:
        """Schedule a callback. If no thread runs the loop, none is woken: the next one to run it calls it first.

        The callback may then run while the loop does not, so it must not ask for the running loop. A turn of the loop
        for it would cost more than a short callback itself.
        """
        if self.loop.is_closed():
            raise RuntimeError("the event loop is closed: no thread runs it any more")
        if self._running.acquire(blocking=False):
            try:
                self._callbacks.append((callback, args))
            finally:
                self._running.release()
        else:
            self.loop.call_soon_threadsafe(callback, *args)

    def _run_callbacks(self) -> None:
        while self._callbacks:
            callback, args = self._callbacks.popleft()
            try:
                callback(*args)
            except Exception as error:  # as the loop does: one that fails does not stop the others
                message = f"{callback!r} failed"
                self.loop.call_exception_handler({"message": message, "exception": error, "callback": callback})

    def ensure_running(self) -> None:
        """Have the backup thread run the loop now unless a waiter does: the caller will not come to it soon."""
        with self._state:
            if not self._no_waiter or self._backup_runs:
                return
            self._urgent, self._backup_sleeps = True, False
        self._wake_backup()

    def leave_to_backup(self) -> None:
        """No waiter comes any more: the backup thread runs the loop from now on."""
        with self._state:
            self._no_waiter = True
        self.ensure_running()

    def retire(self) -> None:
        """Give the loop up: its state is unknown. The backup thread, if it lives, comes to its end."""
        self.retired = True
        release(self._state)
        with suppress(RuntimeError, DescriptorGone):  # the loop is closed, or its wake-up pipe is gone
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._wake_backup()

    def _wake_backup(self) -> None:
        with suppress(RuntimeError):  # it is awake
            self._asleep.release()

    # The backup thread.

    def take_for_end(self) -> None:
        """Take the loop for its end: no waiter gets it any more."""
        self.retired = True
        self._running.acquire(timeout=LONGEST_SLEEP)  # an interrupted thread may hold it forever
        self.runner = threading.get_ident()

    def run_backup(self, is_over: Callable[[], bool]) -> None:
        """Run the loop whenever no waiter does for long; returns once `is_over`."""
        seen, before, quiet = -1, 0, 0
        while not is_over() and not self.retired:
            with self._state:
                take = self._no_waiter and (self._urgent or self._departures == seen)
                seen = self._departures if self._no_waiter else -1
                quiet = 0 if self._no_waiter or self._departures != before else quiet + 1
                before = self._departures
                self._backup_sleeps = not take and quiet > QUIET_CHECKS
            if take:
                self._run_as_backup(is_over)
                seen = -1
                continue
            if quiet > QUIET_CHECKS:
                if self._asleep.acquire(timeout=LONGEST_SLEEP):
                    quiet = 0  # there is traffic again: a wake-up for each call would cost what this saves
            else:
                self._asleep.acquire(timeout=BACKUP_DELAY)

    def _run_as_backup(self, is_over: Callable[[], bool]) -> None:
        while not self._running.acquire(timeout=LONGEST_SLEEP):
            if is_over():  # an interrupted thread may hold the lock forever
                return
        try:
            if self._is_given_up():
                return
            self._backup_runs = True
            self.runner = threading.get_ident()
            self._run_callbacks()
            while self._no_waiter and not is_over():
                self.loop.run_forever()
        finally:
            self._backup_runs = False
            self._running.release()
