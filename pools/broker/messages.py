"""What a caller gives to the broker and gets back: a request, a reply, and where its time went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from snakepit.pools.broker.caller import CallerIdentity
from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.ports import Buffers, Payload

PARTS = "$buffer"  # the attachment with large parts of the arguments, which their text names by their place
DELIVERED = Payload(b"")  # stands for a result that the caller has already
MAX_AFFINITY = 200  # characters of a key


@dataclass(slots=True)  # not frozen, here and below: that doubles the cost of what is made for each call
class Request:
    """A call as its caller asks for it. `timeout` 0: that of the command or the pool."""

    pool: str
    command: str
    arguments: bytes = b"{}"
    attachments: Mapping[str, bytes | memoryview] = field(default_factory=dict)
    timeout: float = 0.0
    priority: int = 0
    credit: int = 0
    credit_bytes: int = 0  # most chunk bytes that may be unacknowledged; 0: no limit
    reply_socket: str = ""  # the path of a socket of the caller's, where the worker may put the result
    ref: int = 0  # the caller's number of the call, for its reply_socket
    buffer_socket: str = ""  # the same, for a result with buffers only
    caller: CallerIdentity | None = None  # None: no limits but those of the pool
    buffers: Buffers | None = None  # large parts of the arguments
    affinity: str = ""  # a key: a worker that had a call with it is preferred

    @property
    def beside_parts(self) -> Mapping[str, bytes | memoryview]:
        """The attachments that are arguments of their own."""
        return {name: data for name, data in self.attachments.items() if name != PARTS}


@dataclass(slots=True)
class Timing:
    """Where a call's time went, in seconds."""

    call: str = ""
    worker: str = ""
    queued: float = 0.0
    ran: float = 0.0
    calls_left: int = -1  # that the caller may make now; -1: it has no rate
    calls_reset: float = 0.0


class Reply(Protocol):
    """The caller's side of a call. Exactly one of `done` and `failed` is called, once, and nothing after it."""

    def done(self, payload: Payload | None, timing: Timing) -> None: ...

    def failed(self, error: BrokerError, timing: Timing) -> None: ...

    def chunk(self, payload: Payload) -> None: ...

    def progress(self, fraction: float, message: str) -> None: ...

    def log(self, message: str) -> None: ...
