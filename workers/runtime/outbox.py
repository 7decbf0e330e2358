"""Reports waiting for the wire, from any thread.

     slots ── put() ──▶ [reports] ── take() ──▶ writer on the I/O loop
                   └─ wake(last): once per flush, however many reports come; last: by a call's last word

It cannot grow without bound when the broker reads slowly: a call has one last word, chunks are bounded by credit,
progress keeps its newest, and log lines have a limit.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from snakepit.workers.report import Delivered, Failure, Log, Progress, Report, Result

BATCH_BYTES = 1 << 20
LOG_LINES = 1000


class Outbox:
    def __init__(
        self, wake: Callable[[bool], None], *, batch_bytes: int = BATCH_BYTES, log_lines: int = LOG_LINES
    ) -> None:
        self._wake = wake
        self._batch_bytes = batch_bytes
        self._log_lines = log_lines
        self._lock = threading.Lock()
        self._reports: deque[Report] = deque()
        self._progress: dict[int, Progress] = {}  # the waiting one of each call
        self._lines = 0  # log lines that wait
        self._dropped: dict[int, tuple[Log, int]] = {}  # the line that will tell of dropped ones, and how many
        self._awake = False
        self._closed = False

    def close(self) -> None:
        """Take no more reports. For a forked process, where a lock may be held by a thread that is not there."""
        self._closed = True

    def put(self, report: Report) -> None:
        if self._closed:
            return
        with self._lock:
            if type(report) is Progress:
                if not self._keep_progress(report):
                    return
            elif type(report) is Log:
                if not self._keep_line(report):
                    return
            else:
                self._reports.append(report)
            if self._awake:
                return
            self._awake = True
        self._wake(isinstance(report, Result | Delivered | Failure))

    def take(self) -> list[Report]:
        """The next batch, about a MiB at most. Empty: nothing waits, and the next put wakes again."""
        with self._lock:
            batch: list[Report] = []
            room = self._batch_bytes
            while self._reports and (not batch or self._reports[0].size <= room):
                report = self._reports.popleft()
                room -= report.size
                batch.append(report)
                if type(report) is Progress:
                    self._progress.pop(report.sequence, None)
                elif type(report) is Log:
                    self._lines -= 1
                    if report is self._dropped.get(report.sequence, (None, 0))[0]:
                        del self._dropped[report.sequence]
            self._awake = bool(batch)
            return batch

    def _keep_progress(self, report: Progress) -> bool:
        waiting = self._progress.get(report.sequence)
        if waiting is not None:
            waiting.fraction, waiting.message = report.fraction, report.message
            return False
        self._progress[report.sequence] = report
        self._reports.append(report)
        return True

    def _keep_line(self, report: Log) -> bool:
        if self._lines < self._log_lines:
            self._lines += 1
            self._reports.append(report)
            return True
        telling, count = self._dropped.get(report.sequence) or (Log(report.sequence, ""), 0)
        if not count:
            self._lines += 1
            self._reports.append(telling)
        telling.message = f"({count + 1} log lines were dropped: they came faster than they were read)"
        self._dropped[report.sequence] = (telling, count + 1)
        return not count
