"""The runner's side of one worker: its process, the link to it, and which sequence number is whose call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pools.broker.call import Call
from pools.broker.errors import BrokerError
from pools.broker.ports import Assignment, Greeting, Link, Payload, Process, Race, WorkerFailure

MAX_LOG = 4096  # characters of one line that a command logs


@dataclass(frozen=True, slots=True)
class Timing:
    """Where a call's time went, in seconds."""

    call: str = ""
    worker: str = ""
    queued: float = 0.0
    ran: float = 0.0


class Reply(Protocol):
    """Whoever waits for a call. Exactly one of `done` and `failed` comes, once, and nothing after it."""

    def done(self, payload: Payload | None, timing: Timing) -> None: ...

    def failed(self, error: BrokerError, timing: Timing) -> None: ...

    def chunk(self, payload: Payload) -> None: ...

    def progress(self, fraction: float, message: str) -> None: ...

    def log(self, message: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Request:
    """A call as a caller asks for it. `timeout` 0: the command's or the pool's own."""

    pool: str
    command: str
    arguments: bytes = b"{}"
    attachments: Mapping[str, bytes] = field(default_factory=dict)
    timeout: float = 0.0
    priority: int = 0
    credit: int = 0

    @property
    def size(self) -> int:
        return len(self.arguments) + sum(len(value) for value in self.attachments.values())


@dataclass(slots=True, eq=False)
class Ticket:
    """A call with what the pool need not know: its arguments, and who waits for it."""

    call: Call
    public: str
    request: Request
    reply: Reply
    credit: int = 0  # granted so far by the caller, handed on at assignment
    sequence: int = 0

    def timing(self, now: float, ran: float | None = None) -> Timing:
        call = self.call
        queued = (call.assigned or now) - call.arrived
        took = (now - call.assigned if call.assigned else 0.0) if ran is None else ran
        return Timing(self.public, call.worker, round(queued, 6), round(took, 6))


class Ear(Protocol):
    """What a runner hears of its workers."""

    def greeted(self, staff: Staff, greeting: Greeting) -> None: ...

    def load_failed(self, staff: Staff, failure: WorkerFailure) -> None: ...

    def gil_switched_on(self, staff: Staff) -> None: ...

    def raced(self, staff: Staff, race: Race) -> None: ...

    def ended(self, staff: Staff, ticket: Ticket, outcome: Payload | WorkerFailure | None, seconds: float) -> None: ...

    def unlinked(self, staff: Staff) -> None: ...


@dataclass(slots=True, eq=False)
class Staff:
    """One worker's process and link; takes what the link reports and passes it on."""

    id: str
    ear: Ear
    clock: Callable[[], float]
    process: Process | None = None
    wire: Link | None = None
    greeting: Greeting | None = None
    doomed: bool = False  # killed before its process was there
    started_wall: float = 0.0
    probed_at: float | None = None  # of a probe that is not answered yet
    silence_told: bool = False
    gil_enabled: bool = True
    gil_culprit: str = ""
    _sequence: int = 0
    _held: dict[int, Ticket] = field(default_factory=dict)

    def assign(self, ticket: Ticket, max_result: int) -> None:
        if self.wire is None:
            return  # it is dying; its exit is on the way and decides about the call
        self._sequence += 1
        ticket.sequence = self._sequence
        self._held[self._sequence] = ticket
        request = ticket.request
        self.wire.assign(
            Assignment(
                sequence=self._sequence,
                call=ticket.public,
                command=request.command,
                arguments=request.arguments,
                attachments=request.attachments,
                budget=max(0.0, ticket.call.deadline - self.clock()),
                credit=ticket.credit,
                max_result=max_result,
            )
        )

    def cancel(self, ticket: Ticket, reason: str) -> None:
        if self.wire:
            self.wire.cancel(ticket.sequence, reason)

    def credit(self, ticket: Ticket, chunks: int) -> None:
        if self.wire and self._held.get(ticket.sequence) is ticket:
            self.wire.credit(ticket.sequence, chunks)

    def kill(self) -> None:
        self.doomed = True
        if self.process:
            self.process.kill()

    def begun(self) -> set[int]:
        """The calls among those it holds that it has begun to run."""
        last = self.process.last_begun() if self.process else 0
        return {ticket.call.id for sequence, ticket in self._held.items() if sequence <= last}

    def last_words(self) -> str:
        return "\n".join(self.process.output()[-20:]) if self.process else ""

    def probe(self) -> None:
        if self.wire and self.probed_at is None:
            self.probed_at = self.clock()
            self.wire.probe()

    # Reports: what the link delivers.

    def hello(self, greeting: Greeting) -> None:
        self.greeting = greeting
        self.gil_enabled, self.gil_culprit = greeting.gil_enabled, greeting.gil_culprit
        self.ear.greeted(self, greeting)

    def boot_failed(self, failure: WorkerFailure) -> None:
        self.ear.load_failed(self, failure)

    def result(self, sequence: int, payload: Payload | None, seconds: float) -> None:
        if ticket := self._held.pop(sequence, None):
            self.ear.ended(self, ticket, payload, seconds)

    def failure(self, sequence: int, failure: WorkerFailure, seconds: float) -> None:
        if ticket := self._held.pop(sequence, None):
            self.ear.ended(self, ticket, failure, seconds)

    def chunk(self, sequence: int, payload: Payload) -> None:
        if (ticket := self._held.get(sequence)) and not ticket.call.answered:
            ticket.call.idempotent = False  # a second run would bring its caller the same chunks twice
            ticket.reply.chunk(payload)

    def progress(self, sequence: int, fraction: float, message: str) -> None:
        if (ticket := self._held.get(sequence)) and not ticket.call.answered:
            ticket.reply.progress(min(1.0, max(0.0, fraction)), message[:MAX_LOG])

    def log(self, sequence: int, message: str) -> None:
        if (ticket := self._held.get(sequence)) and not ticket.call.answered:
            ticket.reply.log(message[:MAX_LOG])

    def vitals(self, gil_enabled: bool, gil_culprit: str) -> None:
        self.probed_at, self.silence_told = None, False
        switched_on = gil_enabled and not self.gil_enabled
        self.gil_enabled, self.gil_culprit = gil_enabled, gil_culprit
        if switched_on and self.greeting:
            self.ear.gil_switched_on(self)

    @property
    def parallelism(self) -> float:
        """Slots that run at once, as measured at the start; one, if the GIL was switched on since. 0: not measured."""
        measured = self.greeting.parallelism if self.greeting else 0.0
        return min(measured, 1.0) if self.gil_enabled else measured

    def raced(self, race: Race) -> None:
        self.ear.raced(self, race)

    def lost(self) -> None:
        self.wire = None
        self.ear.unlinked(self)

    def running(self, now: float) -> list[dict[str, Any]]:
        return [
            {
                "id": ticket.public,
                "command": ticket.request.command,
                "seconds": round(now - ticket.call.assigned, 3),
                "remaining": round(ticket.call.deadline - now, 3),
            }
            for ticket in self._held.values()
        ]
