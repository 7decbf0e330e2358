"""The runner's side of one worker: its process, the link to it, and its calls in flight by sequence number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

from snakepit.pools.broker.errors import StacksUnavailable
from snakepit.pools.broker.messages import PARTS, Reply, Request, Timing
from snakepit.pools.broker.pool.calls import Call
from snakepit.pools.broker.pool.recycle_policy import last_output
from snakepit.pools.broker.ports import Assignment, Exit, Greeting, Link, Payload, Process, Race, WorkerFailure
from snakepit.pools.broker.status import RunningCall, ThreadStack
from snakepit.pools.broker.text import many_lines

SILENT_CHECKS = 6  # probes, one a second, that a worker may miss in a row
STACKS_WITHIN = 0.5  # seconds that a worker that hangs has to show its stacks, before it is killed
MAX_THREADS, MAX_FRAMES, MAX_STACKS = 20, 30, 8000  # threads, frames of each, characters of all that are kept
MAX_LOG = 4096  # characters of one line that a command logs
MAX_CREDIT = 2**32 - 1  # chunks; the wire has no room for more


@dataclass(slots=True, eq=False)
class InFlightCall:
    """A call with what the pool does not need: its arguments, and the reply to its caller."""

    call: Call
    public_id: str
    request: Request
    reply: Reply
    credit: int = 0  # granted so far by the caller, sent with the assignment
    sequence: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether it may be sent in one message with calls like it."""
        request = self.request
        return not (request.attachments or request.reply_socket or request.buffers)

    def is_like(self, other: InFlightCall) -> bool:
        """Whether two plain calls of one command have the same caller's options."""
        mine, its = self.request, other.request
        return (
            mine.buffer_socket == its.buffer_socket
            and self.credit == other.credit
            and mine.credit_bytes == its.credit_bytes
        )

    def assignment(
        self, now: float, max_result: int, max_buffer: int = 0, batch: int = 0, *, passed: bool = False
    ) -> Assignment:
        """`passed`: large parts of the arguments are with the worker already."""
        request, call = self.request, self.call
        return Assignment(
            self.sequence,
            self.public_id,
            request.command,
            request.arguments,
            request.beside_parts if passed else request.attachments,
            max(0.0, call.deadline - now),
            self.credit,
            max_result,
            request.credit_bytes,
            request.reply_socket,
            request.ref,
            call.assigned - call.arrived,
            request.buffer_socket,
            max_buffer if request.buffer_socket else 0,
            batch,
            passed or request.buffers is not None,
        )

    def timing(self, now: float, ran: float | None = None) -> Timing:
        call = self.call
        if ran is None:
            ran = now - call.assigned if call.assigned else 0.0
            queued = (call.assigned or now) - call.arrived
        elif call.prefetched:  # it waited in its worker as well
            queued = max(0.0, now - call.arrived - ran)
        else:
            queued = call.assigned - call.arrived
        return Timing(self.public_id, call.worker, queued, ran)


class WorkerObserver(Protocol):
    """What a runner receives about its workers."""

    def worker_ready(self, handle: WorkerHandle, greeting: Greeting) -> None: ...

    def boot_failed(self, handle: WorkerHandle, failure: WorkerFailure) -> None: ...

    def gil_switched_on(self, handle: WorkerHandle) -> None: ...

    def probe_answered(self, handle: WorkerHandle) -> None: ...

    def race_found(self, handle: WorkerHandle, race: Race) -> None: ...

    def call_failed(self, handle: WorkerHandle, one: InFlightCall, failure: WorkerFailure, seconds: float) -> None: ...

    def calls_succeeded(
        self, handle: WorkerHandle, ended: list[tuple[InFlightCall, Payload | None, float]]
    ) -> None: ...

    def buffered(self, of: str, size: int) -> None: ...

    def call_delivered(self, handle: WorkerHandle, one: InFlightCall, seconds: float) -> None: ...

    def calls_revoked(self, handle: WorkerHandle, numbers: list[int]) -> None: ...

    def link_lost(self, handle: WorkerHandle) -> None: ...


@dataclass(slots=True, eq=False)
class WorkerHandle:
    """One worker's process and link. Receives what the link reports and passes it on to the runner."""

    id: str
    observer: WorkerObserver
    clock: Callable[[], float]
    process: Process | None = None
    link: Link | None = None
    greeting: Greeting | None = None
    exit: Exit | None = None  # how its process ended
    kill_requested: bool = False  # perhaps before its process existed
    started_wall: float = 0.0
    probed_at: float | None = None  # of a probe without an answer yet
    silent_checks: int = 0  # in a row, at which the last probe had no answer
    gil_enabled: bool = True
    gil_culprit: str = ""
    _sequence: int = 0
    _revoked_from: int = 0  # the range in the shared page
    _revoked: int = 0  # its end: the last sequence that was ever revoked
    _in_flight: dict[int, InFlightCall] = field(default_factory=dict)
    _reading: asyncio.Task[None] | None = None  # of the stacks, before a kill
    _stacks: str = ""

    def assign(self, calls: Sequence[InFlightCall], max_result: int, max_buffer: int = 0) -> None:
        """Send calls of one command to the worker."""
        link = self.link
        if link is None:
            return  # it is dying; its exit follows and decides about the calls
        now, in_flight = self.clock(), self._in_flight
        for one in calls:
            self._sequence += 1
            one.sequence = self._sequence
            in_flight[self._sequence] = one
        batch = self._sequence if calls[0].call.batch else 0
        taker = calls[0].request.buffer_socket
        if len(calls) > 1 and all(one.is_plain and one.is_like(calls[0]) for one in calls):
            takers = ([(one.request.ref, one.call.assigned - one.call.arrived) for one in calls],) if taker else ()
            link.assign_alike(
                calls[0].assignment(now, max_result, max_buffer, batch),
                [one.public_id for one in calls],
                [one.request.arguments for one in calls],
                [max(0.0, one.call.deadline - now) for one in calls],
                *takers,
            )
            return
        for one in calls:
            beside = one.request.buffers or one.request.attachments
            passed = bool(beside) and self._pass_parts(one.sequence, one.request)
            link.assign(one.assignment(now, max_result, max_buffer, batch, passed=passed))

    def _pass_parts(self, sequence: int, request: Request) -> bool:
        """Pass large parts of arguments beside their call. False: there are none, or they go in the call."""
        parts = request.buffers or request.attachments.get(PARTS)
        return bool(parts and self.process and self.process.pass_buffers(sequence, parts))

    def cancel(self, in_flight: InFlightCall, reason: str) -> None:
        if self.link:
            self.link.cancel(in_flight.sequence, reason)

    def credit(self, in_flight: InFlightCall, chunks: int) -> None:
        if self.link and self._in_flight.get(in_flight.sequence) is in_flight:
            self.link.credit(in_flight.sequence, chunks)

    def revoke(self, calls: Collection[Call]) -> bool:
        """Keep the worker from beginning these calls; `confirm_revoked` then returns them. False: not possible now."""
        process, wanted = self.process, {call.id for call in calls}
        if process is None:
            return False
        unbegun = [(sequence, one) for sequence, one in self._in_flight.items() if not process.has_begun(sequence)]
        sequences = [sequence for sequence, one in unbegun if one.call.id in wanted]
        if not sequences:
            return False
        first = sequences[0]
        # The shared page has room for one range. Until the worker has passed it, it may grow but not move; it may grow
        # only over calls that are all revoked now.
        if process.last_begun() < self._revoked:
            if len(sequences) < len(unbegun):
                return False
            first = min(first, self._revoked_from)
        self._revoked_from, self._revoked = first, self._sequence
        process.revoke(first, self._sequence)
        return True

    def confirm_revoked(self, calls: Collection[Call]) -> list[int]:
        """Release and return the revoked calls that the worker has not begun and now never will."""
        process, wanted = self.process, {call.id for call in calls}
        if process is None:
            return []
        sent = [(s, one.call.id) for s, one in self._in_flight.items() if s <= self._revoked and one.call.id in wanted]
        unbegun = [(sequence, number) for sequence, number in sent if not process.has_begun(sequence)]
        for sequence, _ in unbegun:
            del self._in_flight[sequence]
        return [number for _, number in unbegun]

    def stop(self) -> None:
        """Ask the worker to finish its calls and exit; without a link, kill it."""
        if self.link:
            self.link.drain()
        else:
            self.kill()

    def kill(self, *, stacks: bool = False) -> None:
        """Kill the process. With `stacks`, read before where its threads are, for the event of its end."""
        self.kill_requested = True
        if self.process and stacks:
            self._reading = asyncio.get_running_loop().create_task(self._read_and_kill(self.process))
        elif self.process:
            self.process.kill()

    async def _read_and_kill(self, process: Process) -> None:
        try:
            async with asyncio.timeout(STACKS_WITHIN):
                self._stacks = stack_text(await process.stacks())
        except (StacksUnavailable, TimeoutError) as error:
            self._stacks = f"not read: {str(error) or 'its threads did not answer'}"
        finally:
            process.kill()

    def with_stacks(self, exit: Exit) -> Exit:
        """The exit with the stacks that were read before a kill."""
        return replace(exit, stacks=self._stacks)

    def begun(self) -> set[int]:
        """Return the numbers of its calls that the worker has begun to run."""
        process = self.process
        if process is None:
            return set()
        return {one.call.id for sequence, one in self._in_flight.items() if process.has_begun(sequence)}

    def release(self) -> set[int]:
        """Release the link and the calls of a worker that has ended; return the numbers of those that it began.

        Link and handle refer to each other: without this, buffers of calls would wait for the garbage collector.
        """
        begun = self.begun()
        if self.link:
            self.link.close()
            self.link = None
        self._in_flight.clear()
        return begun

    def last_output(self) -> str:
        return "\n".join(last_output(self.process.output())) if self.process else ""

    def check(self) -> str:
        """Probe the worker. Return its silence in words if it has missed SILENT_CHECKS; else nothing.

        It counts checks, not seconds: a broker that was stopped itself finds an old probe whose answer it must read.
        """
        at = self.probed_at
        self.silent_checks = 0 if at is None else self.silent_checks + 1
        self.probe()
        if at is None or self.silent_checks < SILENT_CHECKS:
            return ""
        return f"its event loop did not answer for {self.clock() - at:.1f} s"

    @property
    def reported(self) -> bool:
        return self.silent_checks > SILENT_CHECKS

    def silent_for(self, now: float) -> float:
        """Seconds since the probe that has no answer yet; 0 if the answer is not late."""
        return round(now - self.probed_at, 3) if self.silent_checks and self.probed_at is not None else 0.0

    def probe(self) -> None:
        if self.link and self.probed_at is None:
            self.probed_at = self.clock()
            self.link.probe()

    # WorkerReports: what the link delivers

    def hello(self, greeting: Greeting) -> None:
        self.greeting = greeting
        self.gil_enabled, self.gil_culprit = greeting.gil_enabled, greeting.gil_culprit
        self.probed_at, self.silent_checks = None, 0  # native code may hold the GIL while an adapter loads
        self.observer.worker_ready(self, greeting)

    def boot_failed(self, failure: WorkerFailure) -> None:
        self.observer.boot_failed(self, failure)

    def results(self, ended: Iterable[tuple[int, Payload | None, float]]) -> None:
        in_flight = self._in_flight
        known = [
            (one, payload, seconds)
            for sequence, payload, seconds in ended
            if (one := in_flight.pop(sequence, None)) is not None
        ]
        if known:
            if (first := known[0][1]) and first.parts_bytes:  # such a result comes alone
                self.observer.buffered("result", first.parts_bytes)
            self.observer.calls_succeeded(self, known)

    def delivered(self, sequence: int, seconds: float, buffer_bytes: int = 0) -> None:
        if one := self._in_flight.pop(sequence, None):
            if one.request.reply_socket or one.request.buffer_socket:
                if buffer_bytes:
                    self.observer.buffered("result", buffer_bytes)
                self.observer.call_delivered(self, one, seconds)
            else:  # its caller would wait until the deadline
                failure = WorkerFailure("internal", "The worker delivered a result to a caller without a reply socket.")
                self.observer.call_failed(self, one, failure, seconds)

    def failure(self, sequence: int, failure: WorkerFailure, seconds: float) -> None:
        if one := self._in_flight.pop(sequence, None):
            self.observer.call_failed(self, one, failure, seconds)

    def revoked(self, sequence: int) -> None:
        if one := self._in_flight.pop(sequence, None):
            self.observer.calls_revoked(self, [one.call.id])

    def chunk(self, sequence: int, payload: Payload) -> None:
        if (one := self._in_flight.get(sequence)) and not one.call.answered:
            one.call.idempotent = False  # a second run would send the same chunks twice
            if payload.parts_bytes:
                self.observer.buffered("chunk", payload.parts_bytes)
            one.reply.chunk(payload)

    def progress(self, sequence: int, fraction: float, message: str) -> None:
        if (one := self._in_flight.get(sequence)) and not one.call.answered:
            one.reply.progress(min(1.0, max(0.0, fraction)), message[:MAX_LOG])

    def log(self, sequence: int, message: str) -> None:
        if (one := self._in_flight.get(sequence)) and not one.call.answered:
            one.reply.log(message[:MAX_LOG])

    def vitals(self, gil_enabled: bool, gil_culprit: str) -> None:
        self.probed_at, self.silent_checks = None, 0
        self.observer.probe_answered(self)
        switched_on = gil_enabled and not self.gil_enabled
        self.gil_enabled, self.gil_culprit = gil_enabled, gil_culprit
        if switched_on and self.greeting:
            self.observer.gil_switched_on(self)

    @property
    def parallelism(self) -> float:
        """Slots that run together, as measured at the start; 1 if the GIL was switched on since. 0: not measured.

        At most the cores: the measurement of short work may come out above them.
        """
        if self.greeting is None:
            return 0.0
        most = 1.0 if self.gil_enabled else float(self.greeting.cores or self.greeting.parallelism)
        return min(self.greeting.parallelism, most)

    def raced(self, race: Race) -> None:
        self.observer.race_found(self, race)

    def lost(self) -> None:
        self.link = None
        self.observer.link_lost(self)

    def running(self, now: float, slots: int) -> tuple[RunningCall, ...]:
        """The calls in its slots; what it holds beyond them has not begun."""
        return tuple(
            RunningCall(
                one.public_id,
                one.request.command,
                round(now - one.call.assigned, 3),
                round(one.call.deadline - now, 3),
            )
            for one in islice(self._in_flight.values(), slots)
        )


def stack_text(threads: Iterable[ThreadStack]) -> str:
    """The stacks of threads that run Python, the main thread first, each with the innermost frame first; bounded.

    >>> from snakepit.pools.broker.status import StackFrame
    >>> frames = (StackFrame("a.py", 3, "wait"), StackFrame("a.py", 9, "run"))
    >>> print(stack_text([ThreadStack(7, "python", "S", 0.5, frames), ThreadStack(8, "blas", "R", 0.5, ())]))
    thread 7 (python, state S)
      wait  a.py:3
      run  a.py:9
    """
    lines = []
    for one in [thread for thread in threads if thread.frames][:MAX_THREADS]:
        lines.append(f"thread {one.thread} ({one.name}, state {one.state})")
        lines += [f"  {frame.function}  {frame.file}:{frame.line}" for frame in one.frames[:MAX_FRAMES]]
        if len(one.frames) > MAX_FRAMES:
            lines.append(f"  and {len(one.frames) - MAX_FRAMES} more")
    text = many_lines("\n".join(lines))
    return text if len(text) <= MAX_STACKS else text[:MAX_STACKS] + "\n(cut)"
