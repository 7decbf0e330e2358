"""One event loop, run by whoever would otherwise wait for it.

    main thread:  hold ─ runs the loop ─▶ work came ─▶ leaves ─ runs a command ─▶ hold ...
    keeper:       dozes ────────────────▶ still away after PATIENCE? runs the loop until main comes back

Handing every call from an I/O thread to another one and back costs two wake-ups, which is more than a short call
itself. So the thread that runs commands reads its own orders. Only when a command takes long does the keeper take the
loop over, so that cancels, probes and the chunks of a stream move while it runs.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from snakepit.workers.transport.direct_read import DirectRead

PATIENCE = 0.005  # seconds that nobody may run the loop
LOOKS = 40  # without anything to do, after which the keeper stops looking and waits to be woken


class LoopOwner:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.ears = DirectRead(loop)
        self._running = threading.Lock()  # held by the thread that runs the loop
        self._errands: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()  # for whoever runs it next
        self._guard = threading.Lock()  # of the four below: each is read by one thread and written by the other
        self._away = True  # the main thread is not there to run the loop
        self._departures = 0
        self._asleep = False  # the keeper waits to be woken
        self._urgent = False
        self._news = threading.Event()
        self._kept = False  # the keeper runs the loop

    # A thread that waits for something that comes through the loop.

    def hold(self, until: Callable[[], bool]) -> None:
        """Run the loop on this thread until the question is true; somebody calls `leave` to have it asked."""
        running = False
        try:
            self._arrive()
            running = True
            self._run_errands()
            while not until():
                self._wait(None)
        finally:
            self._leave()
            if running:
                self._running.release()

    def turn(self) -> None:
        """Let the loop send and read what there is, without waiting for more."""
        running = False
        try:
            self._arrive()
            running = True
            self._run_errands()
            if self.ears:
                self.ears.wait(0.0)
            else:
                self.ears.turn()
        finally:
            self._leave()
            if running:
                self._running.release()

    def _arrive(self) -> None:
        with self._guard:
            self._away = self._urgent = False
        if not self._running.acquire(blocking=False):
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._running.acquire()

    def borrow(self, until: Callable[[], bool], patience: float | None, alone: bool, awake: float = 0.0) -> None:
        """As `hold`, for a thread that may as well wait without the loop; `until` may be false afterwards.

        Returns at once if another thread waits on the loop, or if the keeper runs it for others (not `alone`). For
        `awake` seconds it may be waited without sleeping.
        """
        if not self._running.acquire(blocking=False) and not (alone and self._take_from_keeper()):
            return
        try:
            with self._guard:
                self._away = self._urgent = False
            self._run_errands()
            ends = None if patience is None else self.loop.time() + patience
            while not until():
                left = None if ends is None else ends - self.loop.time()
                if left is not None and left <= 0:
                    return
                self._wait(left, awake)
        finally:
            self._leave()  # before the release: the next thread's arrival must not be undone by this departure
            self._running.release()

    def _take_from_keeper(self) -> bool:
        if not self._kept:
            return False
        taken = False
        with self._guard:
            self._away = False
        try:
            self.loop.call_soon_threadsafe(self.loop.stop)
            taken = self._running.acquire(timeout=PATIENCE)
        finally:  # also when a signal handler raises in the acquire: the keeper must not wait for ever
            if not taken:
                self._leave()
        return taken

    def _wait(self, patience: float | None, awake: float = 0.0) -> None:
        if self.ears:
            self.ears.wait(patience, awake)
            return
        alarm = None if patience is None else self.loop.call_later(patience, self.loop.stop)
        try:
            self.loop.run_forever()
        finally:
            if alarm is not None:
                alarm.cancel()

    def _run_errands(self) -> None:
        while self._errands:
            errand, args = self._errands.popleft()
            try:
                errand(*args)
            except Exception as error:  # as the loop does: one that fails stops nobody else
                self.loop.call_exception_handler({"message": f"{errand!r} failed", "exception": error})

    def leave(self) -> None:
        """On the thread that runs the loop: it is to ask its question now."""
        if self.loop.is_running():
            self.loop.stop()

    def leave_for_good(self) -> None:
        """From now on the keeper runs the loop."""
        with self._guard:
            self._away = True
        self.hurry()

    def _leave(self) -> None:
        with self._guard:
            self._away = True
            self._departures += 1
            wake, self._asleep = self._asleep, False
        if wake:
            self._news.set()

    # Any thread.

    def call(self, callback: Callable[..., Any], *args: Any) -> None:
        """Have whoever runs the loop call something, at once or as soon as there is somebody; nobody is woken for it.

        It may be called while the loop itself does not run, so it must not ask for the running loop.
        """
        if self.loop.is_closed():
            raise RuntimeError("the loop is closed: nobody runs it any more")
        if self._running.acquire(blocking=False):
            try:
                self._errands.append((callback, args))
            finally:
                self._running.release()
        else:
            self.loop.call_soon_threadsafe(callback, *args)

    def hurry(self) -> None:
        """There is something to send or to hear, and this thread does not come back soon."""
        with self._guard:
            if not self._away or self._kept:
                return
            self._urgent, self._asleep = True, False
        self._news.set()

    # The keeper's thread.

    def keep(self, over: Callable[[], bool]) -> None:
        """Run the loop whenever nobody else does for long; returns once `over` is true."""
        seen, looks = -1, 0
        while not over():
            with self._guard:
                take = self._away and (self._urgent or self._departures == seen)
                seen = self._departures if self._away else -1
                looks = 0 if self._away else looks + 1
                self._asleep = not take and looks > LOOKS
            if take:
                self._run(over)
                seen = -1
                continue
            if looks > LOOKS:
                self._news.wait()
                looks = 0  # there is traffic again: being woken by each call would cost what this saves
            else:
                self._news.wait(PATIENCE)
            self._news.clear()

    def _run(self, over: Callable[[], bool]) -> None:
        with self._running:
            self._kept = True
            try:
                self._run_errands()
                while self._away and not over():
                    self.loop.run_forever()
            finally:
                self._kept = False
