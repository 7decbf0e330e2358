"""The runner's side of one worker: its process, the link to it, and which sequence number is whose call."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from snakepit.pools.broker import errors
from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.events import Event, Kind
from snakepit.pools.broker.pool.call import Call
from snakepit.pools.broker.pool.recycle_policy import last_words
from snakepit.pools.broker.ports import Assignment, Exit, Greeting, Link, Payload, Process, Race, WorkerFailure

MAX_LOG = 4096  # characters of one line that a command logs
DELIVERED = Payload(b"")  # stands for a result that the caller has already


@dataclass(slots=True)  # not frozen, here and below: that doubles the price of what is made for each call
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


@dataclass(slots=True)
class Request:
    """A call as a caller asks for it. `timeout` 0: the command's or the pool's own."""

    pool: str
    command: str
    arguments: bytes = b"{}"
    attachments: Mapping[str, bytes] = field(default_factory=dict)
    timeout: float = 0.0
    priority: int = 0
    credit: int = 0
    credit_bytes: int = 0  # of chunks on their way, from which the command waits; 0: no bound
    reply_socket: str = ""  # the path of a socket of the caller's, where the worker may put the result
    ref: int = 0  # the caller's number of the call, for its reply_socket

    @property
    def size(self) -> int:
        size = len(self.arguments)
        return size + sum(len(value) for value in self.attachments.values()) if self.attachments else size


@dataclass(slots=True, eq=False)
class Ticket:
    """A call with what the pool need not know: its arguments, and who waits for it."""

    call: Call
    public: str
    request: Request
    reply: Reply
    credit: int = 0  # granted so far by the caller, handed on at assignment
    sequence: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether it may be handed over together with calls like it."""
        return not (self.credit or self.request.attachments or self.request.reply_socket)

    def assignment(self, now: float, max_result: int) -> Assignment:
        request, call = self.request, self.call
        return Assignment(
            self.sequence,
            self.public,
            request.command,
            request.arguments,
            request.attachments,
            max(0.0, call.deadline - now),
            self.credit,
            max_result,
            request.credit_bytes,
            request.reply_socket,
            request.ref,
            call.assigned - call.arrived,
        )

    def timing(self, now: float, ran: float | None = None) -> Timing:
        call = self.call
        if ran is None:
            ran = now - call.assigned if call.assigned else 0.0
            queued = (call.assigned or now) - call.arrived
        elif call.ahead:  # it waited in its worker's hands as well
            queued = max(0.0, now - call.arrived - ran)
        else:
            queued = call.assigned - call.arrived
        return Timing(self.public, call.worker, queued, ran)


class Ear(Protocol):
    """What a runner hears of its workers."""

    def greeted(self, staff: WorkerHandle, greeting: Greeting) -> None: ...

    def load_failed(self, staff: WorkerHandle, failure: WorkerFailure) -> None: ...

    def gil_switched_on(self, staff: WorkerHandle) -> None: ...

    def raced(self, staff: WorkerHandle, race: Race) -> None: ...

    def failed(self, staff: WorkerHandle, ticket: Ticket, failure: WorkerFailure, seconds: float) -> None: ...

    def succeeded(self, staff: WorkerHandle, ended: list[tuple[Ticket, Payload | None, float]]) -> None: ...

    def delivered(self, staff: WorkerHandle, ticket: Ticket, seconds: float) -> None: ...

    def returned(self, staff: WorkerHandle, numbers: list[int]) -> None: ...

    def unlinked(self, staff: WorkerHandle) -> None: ...


@dataclass(slots=True, eq=False)
class WorkerHandle:
    """One worker's process and link; takes what the link reports and passes it on."""

    id: str
    ear: Ear
    clock: Callable[[], float]
    process: Process | None = None
    wire: Link | None = None
    greeting: Greeting | None = None
    exit: Exit | None = None  # how its process ended
    doomed: bool = False  # killed before its process was there
    started_wall: float = 0.0
    probed_at: float | None = None  # of a probe that is not answered yet
    silence_told: bool = False
    gil_enabled: bool = True
    gil_culprit: str = ""
    _sequence: int = 0
    _revoked: int = 0  # the last sequence that was ever revoked
    _held: dict[int, Ticket] = field(default_factory=dict)

    def assign(self, tickets: Sequence[Ticket], max_result: int) -> None:
        """Hand over calls of one command."""
        wire = self.wire
        if wire is None:
            return  # it is dying; its exit is on the way and decides about the calls
        now, held = self.clock(), self._held
        for ticket in tickets:
            self._sequence += 1
            ticket.sequence = self._sequence
            held[self._sequence] = ticket
        if len(tickets) > 1 and all(ticket.is_plain for ticket in tickets):
            wire.assign_alike(
                tickets[0].assignment(now, max_result),
                [ticket.public for ticket in tickets],
                [ticket.request.arguments for ticket in tickets],
                [max(0.0, ticket.call.deadline - now) for ticket in tickets],
            )
            return
        for ticket in tickets:
            wire.assign(ticket.assignment(now, max_result))

    def cancel(self, ticket: Ticket, reason: str) -> None:
        if self.wire:
            self.wire.cancel(ticket.sequence, reason)

    def credit(self, ticket: Ticket, chunks: int) -> None:
        if self.wire and self._held.get(ticket.sequence) is ticket:
            self.wire.credit(ticket.sequence, chunks)

    def revoke(self, calls: Collection[Call]) -> bool:
        """Keep the worker from beginning calls that it holds; `look_back` then says which. False: not now."""
        wanted = {call.id for call in calls}
        sequences = [sequence for sequence, ticket in self._held.items() if ticket.call.id in wanted]
        # A range that was revoked before may be written over only once the worker has passed it.
        if self.process is None or not sequences or self.process.last_begun() < self._revoked:
            return False
        self._revoked = self._sequence
        self.process.revoke(sequences[0], self._sequence)
        return True

    def look_back(self, calls: Collection[Call]) -> list[int]:
        """The calls, of those that were to be taken back, that the worker has not begun and now never will."""
        process, wanted = self.process, {call.id for call in calls}
        if process is None:
            return []
        held = [(s, t.call.id) for s, t in self._held.items() if s <= self._revoked and t.call.id in wanted]
        back = [(sequence, number) for sequence, number in held if not process.has_begun(sequence)]
        for sequence, _ in back:
            del self._held[sequence]
        return [number for _, number in back]

    def leave(self) -> None:
        """Finish what it holds and go; at once where it cannot be told."""
        if self.wire:
            self.wire.drain()
        else:
            self.kill()

    def kill(self) -> None:
        self.doomed = True
        if self.process:
            self.process.kill()

    def begun(self) -> set[int]:
        """The calls among those it holds that it has begun to run."""
        process = self.process
        if process is None:
            return set()
        return {ticket.call.id for sequence, ticket in self._held.items() if process.has_begun(sequence)}

    def last_words(self) -> str:
        return "\n".join(last_words(self.process.output())) if self.process else ""

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

    def results(self, ended: Iterable[tuple[int, Payload | None, float]]) -> None:
        held = self._held
        known = [
            (ticket, payload, seconds)
            for sequence, payload, seconds in ended
            if (ticket := held.pop(sequence, None)) is not None
        ]
        if known:
            self.ear.succeeded(self, known)

    def delivered(self, sequence: int, seconds: float) -> None:
        if ticket := self._held.pop(sequence, None):
            if ticket.request.reply_socket:
                self.ear.delivered(self, ticket, seconds)
            else:  # its caller would wait for ever
                nowhere = WorkerFailure("internal", "The worker delivered the result, and nobody had asked for that.")
                self.ear.failed(self, ticket, nowhere, seconds)

    def failure(self, sequence: int, failure: WorkerFailure, seconds: float) -> None:
        if ticket := self._held.pop(sequence, None):
            self.ear.failed(self, ticket, failure, seconds)

    def returned(self, sequence: int) -> None:
        if ticket := self._held.pop(sequence, None):
            self.ear.returned(self, [ticket.call.id])

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

    def running(self, now: float, slots: int) -> list[dict[str, Any]]:
        """The calls in its slots; what it holds beyond them has not begun."""
        return [
            {
                "id": ticket.public,
                "command": ticket.request.command,
                "seconds": round(now - ticket.call.assigned, 3),
                "remaining": round(ticket.call.deadline - now, 3),
            }
            for ticket in islice(self._held.values(), slots)
        ]


def error_of(failure: WorkerFailure) -> errors.BrokerError:
    """A worker's failure as the error that the caller gets; a worker cannot invent codes."""
    known = errors.ERRORS.get(failure.code, errors.AdapterError)
    details = dict(failure.details)
    # A call that was stopped before it began: the worker knows, the code alone does not tell.
    outcome = errors.NOT_STARTED if details.pop("outcome", "") == errors.NOT_STARTED else ""
    if failure.type:
        details["type"] = failure.type
    if failure.traceback:
        details["traceback"] = failure.traceback
    return known(failure.message, outcome=outcome, details=json.loads(json.dumps(details, default=str)))


def race_event(pool: str, worker: str, race: Race) -> Event:
    data = {
        "attribute": race.attribute,
        "first": {"thread": race.first_thread, "stack": race.first_stack},
        "second": {"thread": race.second_thread, "stack": race.second_stack},
    }
    message = (
        f"two threads wrote to `{race.attribute}` with no lock in common\n"
        f"{race.first_thread}:\n{race.first_stack}\n{race.second_thread}:\n{race.second_stack}"
    )
    return Event(Kind.THREAD_RACE, pool, worker, "unlocked", message, "warning", data)
