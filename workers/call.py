"""One call inside the worker: what to run, and the two things that change while it runs, its cancellation and credit.

I/O thread                          slot
cancel(reason) ──▶  reason  ──▶  cancelled, wait()
add_credit(n)  ──▶  credit  ──▶  take_credit()
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from snakepit.workers.buffers import LARGEST_INLINE, Incoming, Outgoing
from snakepit.workers.memory_file import PlacedFile

CANCELLED = "cancelled"
DEADLINE_EXCEEDED = "deadline_exceeded"


class AssignedCall:
    """A call from its assignment to its final report.

    One lock guards what changes. The condition on it is made by the first wait, since most calls never wait.
    """

    __slots__ = (
        "_condition",
        "_credit",
        "_credit_bytes",
        "_lock",
        "_reason",
        "_unacknowledged",
        "_unacknowledged_bytes",
        "_watcher",
        "arguments",
        "attachments",
        "batch",
        "began",
        "buffer_socket",
        "buffers",
        "call_id",
        "command",
        "deadline",
        "ended",
        "max_buffer",
        "max_result",
        "parts",
        "placed",
        "queued",
        "ref",
        "reply_socket",
        "sequence",
        "streaming",
    )

    def __init__(
        self,
        sequence: int,
        command: str,
        arguments: bytes = b"{}",
        budget: float = 0.0,
        *,
        call_id: str = "",
        attachments: Mapping[str, bytes] | None = None,
        credit: int = 0,
        credit_bytes: int = 0,
        max_result: int = 1 << 20,
        reply_socket: str = "",
        ref: int = 0,
        queued: float = 0.0,
        buffer_socket: str = "",
        max_buffer: int = 0,
        batch: int = 0,
    ) -> None:
        self.sequence = sequence
        self.call_id = call_id
        self.command = command
        self.arguments = arguments
        self.attachments: Mapping[str, bytes] = attachments or {}
        self.deadline = time.monotonic() + budget if budget > 0 else math.inf  # a budget of 0 is an unset field
        self.max_result = max_result
        self.reply_socket = reply_socket  # path of the caller's own socket, where the result may go
        self.ref = ref  # the caller's number for this call
        self.queued = queued  # seconds in the queues before it came here
        self.buffer_socket = buffer_socket  # path of the caller's own socket, where a result with buffers may go
        self.max_buffer = max_buffer  # bytes that its buffers may have
        self.buffers: Incoming | None = None  # large parts of the arguments
        self.placed: list[PlacedFile] = []  # that the command computes in
        self.batch = batch  # sequence of the last call of its batch; 0: it runs alone
        self.streaming = False  # the caller reads one result
        self.began, self.ended = 0.0, False
        self._credit = self._credit_bytes = 0
        self._unacknowledged: deque[int] | None = None  # sizes of chunks
        self._unacknowledged_bytes = self.parts = 0  # `parts`: Deliveries of large parts of a stream so far
        self._reason = ""
        self._lock = threading.Lock()
        self._condition: threading.Condition | None = None
        self._watcher: Callable[[], None] | None = None
        if credit > 0:
            self.stream(credit, credit_bytes)

    def stream(self, credit: int, credit_bytes: int) -> None:
        """The caller reads chunks. `credit_bytes`: maximum of unacknowledged chunk bytes; 0: unlimited."""
        self.streaming, self._credit, self._credit_bytes = True, credit, credit_bytes
        self._unacknowledged = deque() if credit_bytes else None

    @property
    def remaining(self) -> float:
        """Seconds until the deadline: 0 when it has passed, infinite if there is none."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def reason(self) -> str:
        """Why the call should stop; empty while it should not."""
        if self._reason:
            return self._reason
        return DEADLINE_EXCEEDED if time.monotonic() >= self.deadline else ""

    @property
    def cancelled(self) -> bool:
        return bool(self._reason) or time.monotonic() >= self.deadline

    @property
    def typed(self) -> bool:
        """Whether the caller is a Python client, which reads results with tags."""
        return self.arguments.startswith(b'{"@typed":')

    def new_buffers(self) -> Outgoing | None:
        """What takes the large parts of the result; None: its caller takes no descriptors."""
        takes = self.buffer_socket and self.max_buffer >= LARGEST_INLINE and self.typed
        return Outgoing(self.max_buffer, self.placed) if takes else None

    def begin(self) -> None:
        self.began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """How long the command has run; 0 if it has not begun."""
        return time.perf_counter() - self.began if self.began else 0.0

    def cancel(self, reason: str) -> None:
        with self._lock:
            self._reason = self._reason or reason or CANCELLED
            self._notify()

    def add_credit(self, chunks: int) -> None:
        with self._lock:
            self._credit += chunks
            if self._unacknowledged:
                for _ in range(min(chunks, len(self._unacknowledged))):
                    self._unacknowledged_bytes -= self._unacknowledged.popleft()
            self._notify()

    def _notify(self) -> None:
        if self._condition is not None:
            self._condition.notify_all()
        if self._watcher is not None:
            self._watcher()

    def watch(self, watcher: Callable[[], None] | None) -> None:
        """Call `watcher` at every cancel and credit, on the I/O thread, until `watch(None)`."""
        with self._lock:
            self._watcher = watcher

    def try_take_credit(self, size: int) -> bool:
        """Take credit for one more chunk of `size` bytes. False: there is none at the moment."""
        with self._lock:
            return self._take_credit(size)

    def take_credit(self, size: int) -> bool:
        """Wait for credit for one more chunk. False: the call was cancelled or its deadline passed meanwhile."""
        with self._lock:
            while not self.cancelled:
                if self._take_credit(size):
                    return True
                self._pause(math.inf)
            return False

    def _take_credit(self, size: int) -> bool:
        if self._credit == 0:
            return False
        if self._unacknowledged is not None:
            # Without the new chunk: one that is larger than the maximum could never be sent.
            if self._unacknowledged_bytes >= self._credit_bytes:
                return False
            self._unacknowledged.append(size)
            self._unacknowledged_bytes += size
        self._credit -= 1
        return True

    def wait(self, seconds: float) -> bool:
        """Sleep for these seconds, or until a cancel or the deadline. True: the call should stop."""
        until = time.monotonic() + seconds
        with self._lock:
            while not self.cancelled:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._pause(left)
            return True

    def _pause(self, seconds: float) -> None:
        if self._condition is None:
            self._condition = threading.Condition(self._lock)
        # Condition.wait refuses times above TIMEOUT_MAX, and infinity.
        self._condition.wait(min(seconds, self.remaining, threading.TIMEOUT_MAX))
