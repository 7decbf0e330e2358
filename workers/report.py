"""What a worker reports to its broker, as plain values, and the queue of reports that wait to be sent.

     slots ── put() ──▶ [reports] ── take() ──▶ the link, which turns them into protobuf
                   └─ wake(final): once per flush, however many reports come; final: the report ends its call

The queue cannot grow without bound when the broker reads slowly: a call has one final report, chunks are bounded by
credit, only the newest progress of a call waits, and log lines have a limit.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from snakepit.workers.buffers import Outgoing

OVERHEAD = 64  # bytes, about: what a report needs on the wire beside its payload
MAX_TEXT = 8 * 1024  # characters of one log line or progress message
BATCH_BYTES = 1 << 20
LOG_LINES = 1000


def utf8(text: str) -> str:
    """Make text fit for UTF-8. A path that Python could not decode by the locale gets its own characters back.

    >>> utf8("/tmp/st\\udcc3\\udca4te"), utf8("a\\ud800b")
    ('/tmp/stäte', 'a?b')
    """
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return text.encode("utf-8", "replace").decode("utf-8")


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """Make text fit for protobuf: replace lone surrogates, which it refuses, and bound the length.

    >>> clean("a\\ud800b"), clean("abcdef", 4)
    ('a?b', 'abc…')
    """
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return utf8(text)


@dataclass(slots=True)  # not frozen, which would triple the cost of making one
class EncodedValue:
    """A result or chunk as it is sent: JSON in UTF-8, or the bytes that the command returned (`raw`)."""

    data: bytes
    raw: bool = False
    buffers: Outgoing | None = None  # its large parts
    parts: int = 0  # the number of the Delivery that brought the large parts of a stream's value; 0: none did
    parts_bytes: int = 0

    @property
    def size(self) -> int:
        """Bytes of the text and of the large parts."""
        return len(self.data) + (self.buffers.size if self.buffers else 0)


@dataclass(slots=True)
class ResultReport:
    """The call has succeeded."""

    sequence: int
    value: EncodedValue | None  # None at the end of a stream
    seconds: float = 0.0

    @property
    def size(self) -> int:
        return OVERHEAD + (len(self.value.data) if self.value else 0)


@dataclass(slots=True)
class DeliveredReport:
    """The call has succeeded, and its caller has received the result directly."""

    sequence: int
    seconds: float = 0.0
    buffer_bytes: int = 0
    size: int = OVERHEAD


@dataclass(slots=True)
class FailureReport:
    """The call has failed."""

    sequence: int
    code: str
    message: str
    type: str = ""
    traceback: str = ""
    seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return OVERHEAD + len(self.message) + len(self.traceback)


@dataclass(slots=True)
class RevokedReport:
    """The broker revoked this call before it began, and the worker did not run it."""

    sequence: int
    size: int = OVERHEAD


@dataclass(slots=True)
class ChunkReport:
    sequence: int
    value: EncodedValue

    @property
    def size(self) -> int:
        return OVERHEAD + len(self.value.data)


@dataclass(slots=True)
class ProgressReport:
    sequence: int
    fraction: float
    message: str

    @property
    def size(self) -> int:
        return OVERHEAD + len(self.message)


@dataclass(slots=True)
class LogReport:
    sequence: int
    message: str

    @property
    def size(self) -> int:
        return OVERHEAD + len(self.message)


@dataclass(slots=True)
class VitalsReport:
    """The answer to a probe, or news about the GIL: calls served and running, and whether the GIL is on."""

    nonce: int
    served: int
    load: int
    gil_enabled: bool
    gil_culprit: str
    size: int = OVERHEAD


@dataclass(slots=True)
class RaceReport:
    """Two threads wrote to the same state without a common lock; see `Race` in worker.proto."""

    attribute: str
    first_thread: str
    first_stack: str
    second_thread: str
    second_stack: str
    size: int = 16 * 1024


@dataclass(slots=True)
class HelloReport:
    """What the worker is; see `Hello` in worker.proto."""

    facts: Mapping[str, Any]
    commands: tuple[Mapping[str, Any], ...]
    size: int = OVERHEAD


@dataclass(slots=True)
class BootFailureReport:
    """The adapter could not be loaded. The worker ends."""

    type: str
    message: str
    traceback: str
    size: int = OVERHEAD


AnswerReport = ResultReport | FailureReport
FinalReport = AnswerReport | DeliveredReport
FINAL = frozenset({ResultReport, FailureReport, DeliveredReport})
Report = (
    FinalReport
    | RevokedReport
    | ChunkReport
    | ProgressReport
    | LogReport
    | VitalsReport
    | RaceReport
    | HelloReport
    | BootFailureReport
)


class Outbox:
    """Reports that wait to be sent, from any thread."""

    def __init__(
        self, wake: Callable[[bool], None], *, batch_bytes: int = BATCH_BYTES, log_lines: int = LOG_LINES
    ) -> None:
        self._wake = wake
        self._batch_bytes = batch_bytes
        self._log_lines = log_lines
        self._lock = threading.Lock()
        self._reports: deque[Report] = deque()
        self._progress: dict[int, ProgressReport] = {}  # the waiting one of each call
        self._lines = 0  # log lines that wait
        self._dropped: dict[int, tuple[LogReport, int]] = {}  # by call: the line that reports it, and the count
        self._awake = False
        self._closed = False

    def close(self) -> None:
        """Drop all reports from now on. For a forked process; there, a thread that does not exist may hold the lock."""
        self._closed = True

    def put(self, report: Report) -> None:
        if self._closed:
            return
        with self._lock:
            if type(report) is ProgressReport:
                if not self._keep_progress(report):
                    return
            elif type(report) is LogReport:
                if not self._keep_line(report):
                    return
            else:
                self._reports.append(report)
            if self._awake:
                return
            self._awake = True
        self._wake(type(report) in FINAL)

    def put_all(self, reports: Sequence[FinalReport]) -> None:
        """As `put` of each of these last reports, in one step."""
        if self._closed:
            return
        with self._lock:
            self._reports.extend(reports)
            if self._awake:
                return
            self._awake = True
        self._wake(True)

    def take(self) -> list[Report]:
        """Return the next batch, about 1 MiB at most. If it is empty, the next `put` calls `wake` again."""
        with self._lock:
            batch: list[Report] = []
            room = self._batch_bytes
            while self._reports and (not batch or self._reports[0].size <= room):
                report = self._reports.popleft()
                room -= report.size
                batch.append(report)
                if type(report) is ProgressReport:
                    self._progress.pop(report.sequence, None)
                elif type(report) is LogReport:
                    self._lines -= 1
                    if report is self._dropped.get(report.sequence, (None, 0))[0]:
                        del self._dropped[report.sequence]
            self._awake = bool(batch)
            return batch

    def _keep_progress(self, report: ProgressReport) -> bool:
        waiting = self._progress.get(report.sequence)
        if waiting is not None:
            waiting.fraction, waiting.message = report.fraction, report.message
            return False
        self._progress[report.sequence] = report
        self._reports.append(report)
        return True

    def _keep_line(self, report: LogReport) -> bool:
        if self._lines < self._log_lines:
            self._lines += 1
            self._reports.append(report)
            return True
        line, count = self._dropped.get(report.sequence) or (LogReport(report.sequence, ""), 0)
        if not count:
            self._lines += 1
            self._reports.append(line)
        line.message = f"({count + 1} log lines were dropped: they came faster than they were read)"
        self._dropped[report.sequence] = (line, count + 1)
        return not count
