"""Run blocking work in one thread, so that a service that hangs blocks no caller for long.

caller ─▶ queue ─▶ the thread ─▶ the service
   └─ waits at most `patience` for the result. While the thread hangs in older work, callers do not wait at all.

Socket time-outs do not help here: libraries retry and reconnect, and each round has its own time-out.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

STEPS = 5  # of one wait: a machine that stops for seconds uses up one of them, and the service has the others


class Hangs(Exception):
    """The work did not end in time."""


class BoundedThread:
    def __init__(self, name: str, service: str, patience: float) -> None:
        self.patience = patience  # seconds that a caller waits at most
        self._name = name
        self._service = service
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """Also in the child of a fork, which has no thread, and perhaps locks that stay locked."""
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._started = False
        self._busy_since: float | None = None

    def run(self, work: Callable[[], Any]) -> Any:
        """Return the result of `work`, or raise its error. Hangs: it goes on, or is dropped if it has not begun."""
        if self._hangs():
            raise self._error()
        with self._lock:
            if not self._started:
                self._started = True
                threading.Thread(target=self._serve, args=(self._work,), name=self._name, daemon=True).start()
        future: Future[Any] = Future()
        self._work.put((work, future))
        for _ in range(STEPS):
            try:
                return future.result(self.patience / STEPS)
            except TimeoutError:
                if future.done():  # just now, or the error is that of `work`
                    return future.result()
        future.cancel()
        raise self._error()

    def _error(self) -> Hangs:
        return Hangs(f"the {self._service} did not answer within {self.patience:g} s")

    def _hangs(self) -> bool:
        since = self._busy_since
        return since is not None and time.monotonic() - since > self.patience

    def _serve(self, items: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]]) -> None:
        while True:
            work, future = items.get()
            if not future.set_running_or_notify_cancel():
                continue
            self._busy_since = time.monotonic()
            try:
                result = work()
            except BaseException as error:  # raised in the caller
                future.set_exception(error)
            else:
                future.set_result(result)
            finally:
                self._busy_since = None
