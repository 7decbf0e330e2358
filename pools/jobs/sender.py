"""Run sends to the message transport in one thread, so that a transport that hangs blocks no caller for long.

caller ─▶ queue ─▶ thread "snakepit-send" ─▶ the transport
   └─ waits at most PATIENCE for the outcome. While the thread hangs in an older send, callers do not wait at all.

Socket time-outs do not help here: the transport's library retries and reconnects, and each round has its own time-out.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

PATIENCE = 1.0  # seconds that a caller, such as a web request, waits for the message transport


class TransportHangs(Exception):
    """The message transport does not answer."""

    def __init__(self) -> None:
        super().__init__(f"the message transport did not answer within {PATIENCE:g} s")


class Sender:
    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """Also in the child of a fork, which has neither the thread nor the right to the parent's locks."""
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[tuple[Callable[[], object], Future[None]]] = queue.SimpleQueue()
        self._started = False
        self._busy_since: float | None = None

    def run(self, work: Callable[[], object]) -> None:
        """Run `work` in the thread. Raises its error, or TransportHangs; then the message may still be sent later."""
        if self._hangs():
            raise TransportHangs
        with self._lock:
            if not self._started:
                self._started = True
                threading.Thread(target=self._serve, args=(self._work,), name="snakepit-send", daemon=True).start()
        future: Future[None] = Future()
        self._work.put((work, future))
        try:
            future.result(PATIENCE)
        except TimeoutError:
            if future.done():  # the error is that of `work`
                raise
            future.cancel()  # if it has not begun: `reconcile` sends it
            raise TransportHangs from None

    def _hangs(self) -> bool:
        since = self._busy_since
        return since is not None and time.monotonic() - since > PATIENCE

    def _serve(self, items: queue.SimpleQueue[tuple[Callable[[], object], Future[None]]]) -> None:
        while True:
            work, future = items.get()
            if not future.set_running_or_notify_cancel():
                continue
            self._busy_since = time.monotonic()
            try:
                work()
            except BaseException as error:  # raised in the caller
                future.set_exception(error)
            else:
                future.set_result(None)
            finally:
                self._busy_since = None


sender = Sender()
