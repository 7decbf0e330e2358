"""Carries out what one pool decides, and turns what happens into facts for it.

Broker ─ submit ─▶ Runner ─ facts ─▶ Pool
                     ▲  └─ actions ◀───┘
          replies    │       │
caller ◀─────────────┤       ├─▶ Launcher (processes)
                     └───────┴─▶ Link     (calls)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from snakepit.pools.broker import errors
from snakepit.pools.broker.events import Event, Kind
from snakepit.pools.broker.messages import DELIVERED, Reply, Request
from snakepit.pools.broker.pool.actions import (
    Action,
    Assign,
    Cancel,
    Emit,
    Fail,
    Kill,
    Revoke,
    Start,
    StartTemplate,
    Stop,
    StopTemplate,
)
from snakepit.pools.broker.pool.calls import Call
from snakepit.pools.broker.pool.pool import Pool
from snakepit.pools.broker.pool.recycle_policy import describe_exit
from snakepit.pools.broker.pool.worker import Worker
from snakepit.pools.broker.ports import (
    Definition,
    Exit,
    ForkFailed,
    Greeting,
    LaunchOrder,
    Payload,
    Race,
    TemplateOrder,
    WorkerFailure,
)
from snakepit.pools.broker.runner.deps import RunnerDeps
from snakepit.pools.broker.runner.templates import Templates
from snakepit.pools.broker.runner.translation import error_of, gil_event, known_parallelism, race_event, rules_of
from snakepit.pools.broker.runner.worker_handle import MAX_CREDIT, InFlightCall, WorkerHandle
from snakepit.pools.broker.status import CommandInfo
from snakepit.pools.broker.unknown_names import no_command

UNLINKED_GRACE = 2.0  # seconds from a lost link to the kill of its process, which usually ends by itself
LAST_REPORTS = 0.5  # seconds until a dead worker's link is closed, should a child hold the socket open
REVOKE_SETTLES = 0.002  # seconds after which it is certain which of the revoked calls had begun
MAX_TIMEOUT = 86_400.0  # seconds
MAX_RACES = 50  # pieces of state whose races are listed for a pool
NEVER = float("inf")
MAX_UNCOUNTED = 500  # results that wait for the meter; half a millisecond of work


class Runner:
    """One pool at work. All methods are called on the event loop, none of them blocks."""

    def __init__(self, definition: Definition, deps: RunnerDeps) -> None:
        self.definition = definition
        self.pool = Pool(definition.spec, deps.boot, deps.rng)
        self.commands: dict[str, CommandInfo] = {}
        self.handles: dict[str, WorkerHandle] = {}
        self.closed = asyncio.Event()
        self.templates = Templates(deps.launcher, self)
        self.races: list[str] = []  # state that two threads wrote without a lock, of this definition
        self._deps = deps
        self._now = deps.clock.monotonic
        self._in_flight: dict[int, InFlightCall] = {}
        self._launches: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER
        self._ended: dict[str, tuple[list[float], list[float]]] = {}  # not counted yet: waited and ran, by command
        self._uncounted = self._delivered = self._full = 0

    @property
    def name(self) -> str:
        return self.pool.spec.name

    @property
    def workers(self) -> dict[str, Worker]:
        return self.pool.workers

    def open(self) -> None:
        if why := self.definition.unfit:
            self.pool.worker_set.gate.block(why)
            self._deps.emit(Event(Kind.POOL_FAILED, self.name, reason="interpreter", message=why, level="error"))
        self._do(self.pool.sweep(self._now()))

    # Callers

    def submit(self, asked: Sequence[tuple[int, Request, Reply]]) -> None:
        """Take calls, each with its number in this broker's life, that differ only in their arguments. Answers come
        through `reply`, perhaps before this returns."""
        now, alike, spec, boot, calls = self._now(), asked[0][1], self.pool.spec, self._deps.boot, []
        command = self.commands.get(alike.command)
        streams = command.streams if command else alike.credit > 0
        timeout = alike.timeout or (command.timeout if command else 0.0)
        timeout = min(timeout or (spec.stream_timeout if streams else spec.call_timeout), MAX_TIMEOUT)
        idempotent = command.idempotent if command else False
        for number, request, reply in asked:
            buffered = request.buffers.size if request.buffers else 0
            size = len(request.arguments) + buffered
            if request.attachments:
                size += sum(map(len, request.attachments.values()))
            call = Call(number, request.command, now, now + timeout, size, request.priority, idempotent)
            call.streams = streams and request.credit > 0  # else it sends no chunks, whatever its caller has room for
            call.caller, call.buffer_bytes, call.affinity = request.caller, buffered, request.affinity
            if buffered:
                self._deps.meter.buffered(spec.name, "argument", buffered)
            one = InFlightCall(call, f"{boot}-{number}", request, reply, request.credit)
            if command is None and self.commands:
                reply.failed(no_command(spec.name, request.command, self.commands), one.timing(now))
                self.pool.admission.refused_count += 1
                self._deps.meter.executed(spec.name, "unknown", errors.CommandUnknown.code, 0.0, 0.0)
                continue
            self._in_flight[number] = one
            calls.append(call)
        self._do(self.pool.submit(calls, now))

    def cancel(self, number: int) -> None:
        self._do(self.pool.cancel(number, self._now()))

    def credit(self, number: int, chunks: int) -> None:
        """The caller has room for more chunks."""
        one = self._in_flight.get(number)
        if one is None:
            return
        if one.call.worker and (handle := self.handles.get(one.call.worker)):
            handle.credit(one, chunks)
        else:
            one.credit = min(one.credit + chunks, MAX_CREDIT)

    # Operators and clocks

    def apply(self, definition: Definition) -> None:
        changed = definition.find_code_change(self.definition)
        self.definition = definition
        self.pool.worker_set.gate.block(definition.unfit)
        if changed or definition.spec.needs_new_workers(self.pool.spec):
            self.races.clear()
        actions = self.pool.apply(definition.spec, self._now())
        if changed:
            actions += self.pool.recycle("", changed, self._now())
        self._do(actions)

    def require_worker(self, worker: str) -> None:
        """Raise WorkerUnknown if this pool has no such worker; an empty id means all of them."""
        if worker and worker not in self.workers:
            raise errors.WorkerUnknown(f"Pool {self.name} has no worker {worker}.")

    def recycle(self, worker: str, detail: str) -> int:
        self._do(self.pool.recycle(worker, detail, self._now()))
        return self.leaving_count()

    def kill(self, worker: str, detail: str) -> None:
        self._do(self.pool.kill(self.workers[worker], detail, self._now()))

    def leaving_count(self) -> int:
        return sum(bool(worker.reason) for worker in self.workers.values())

    def sweep(self, interval: float) -> None:
        """Check the age, count and memory of every worker; the next sweep follows `interval` seconds later."""
        self._do(self.pool.sweep(self._now(), interval))

    def check(self) -> None:
        """Probe every worker, once a second. One that has not answered for SILENT_CHECKS is reported to the pool."""
        for handle in tuple(self.handles.values()):
            if silence := handle.check():
                self._do(self.pool.unresponsive(handle.id, silence, self._now(), "event_loop", known=handle.reported))

    def sampled(self, worker: str, memory_mb: float, *, trend: bool = True) -> None:
        self._do(self.pool.sampled(worker, memory_mb, self._now(), trend=trend))

    async def close(self) -> None:
        self._do(self.pool.close(self._now()))
        self._check_closed()
        await self.closed.wait()
        self._set_timer(NEVER)
        self.count()

    def count(self) -> None:
        """Pass on to the meter what was answered since the last time. Call it before numbers are read."""
        # A result has a place in seven histograms. The next call of the same caller would wait while they are updated.
        ended, delivered, full = self._ended, self._delivered, self._full
        self._ended, self._uncounted, self._delivered, self._full = {}, 0, 0, 0
        self._deps.count(self.name, ended, delivered, full)

    # WorkerObserver

    def worker_ready(self, handle: WorkerHandle, greeting: Greeting) -> None:
        self.commands = {command.name: command for command in greeting.commands}
        self.pool.dispatcher.batches.set_rules(rules_of(greeting.commands))
        for one in self._in_flight.values():  # calls that came before the commands were known
            if not one.call.attempts and (known := self.commands.get(one.call.command)):
                one.call.idempotent = known.idempotent
        self._do(self.pool.ready(handle.id, self._now()))
        if greeting.free_threaded and greeting.gil_enabled:
            self.gil_switched_on(handle)

    def gil_switched_on(self, handle: WorkerHandle) -> None:
        if greeting := handle.greeting:
            self._deps.emit(gil_event(self.pool.spec, handle.id, greeting, handle.gil_culprit, handle.parallelism))

    def probe_answered(self, handle: WorkerHandle) -> None:
        self._do(self.pool.responsive(handle.id, self._now()))

    def boot_failed(self, handle: WorkerHandle, failure: WorkerFailure) -> None:
        self.pool.boot_failed(handle.id, f"{failure.type}: {failure.message}" if failure.type else failure.message)

    def race_found(self, handle: WorkerHandle, race: Race) -> None:
        if race.attribute not in self.races and len(self.races) < MAX_RACES:
            self.races.append(race.attribute)
        self._deps.emit(race_event(self.name, handle.id, race))

    def calls_succeeded(self, handle: WorkerHandle, ended: list[tuple[InFlightCall, Payload | None, float]]) -> None:
        now, in_flight, times = self._now(), self._in_flight, self._ended
        for one, payload, seconds in ended:
            call = one.call
            in_flight.pop(call.id, None)
            if call.answered:  # a late result of a call that ended without it
                continue
            timing = one.timing(now, seconds)
            one.reply.done(payload, timing)
            waited, ran = times.get(call.command) or times.setdefault(call.command, ([], []))
            waited.append(timing.queued)
            ran.append(seconds)
        self._uncounted += len(ended)
        if self._uncounted >= MAX_UNCOUNTED:
            self.count()
        self._do(self.pool.finished_many(handle.id, [(one.call.id, seconds) for one, _, seconds in ended], now))

    def buffered(self, of: str, size: int) -> None:
        self._deps.meter.buffered(self.name, of, size)

    def call_delivered(self, handle: WorkerHandle, one: InFlightCall, seconds: float) -> None:
        self._delivered += 1
        self.calls_succeeded(handle, [(one, DELIVERED, seconds)])

    def call_failed(self, handle: WorkerHandle, one: InFlightCall, failure: WorkerFailure, seconds: float) -> None:
        now, call = self._now(), one.call
        self._in_flight.pop(call.id, None)
        if not call.answered:
            error, timing = error_of(failure), one.timing(now, seconds)
            one.reply.failed(error, timing)
            self._deps.meter.executed(self.name, call.command, error.code, timing.queued, timing.ran)
        self._do(self.pool.finished(handle.id, call.id, now, ok=False, seconds=seconds))

    def calls_revoked(self, handle: WorkerHandle, numbers: list[int]) -> None:
        self._do(self.pool.revoked(handle.id, numbers, self._now()))
        self._forget(numbers)

    def link_lost(self, handle: WorkerHandle) -> None:
        if handle.exit:
            self._gone(handle, handle.exit)
        elif handle.id in self.handles:
            asyncio.get_running_loop().call_later(UNLINKED_GRACE, self._kill_unlinked, handle)

    def _kill_unlinked(self, handle: WorkerHandle) -> None:
        if handle.id in self.handles:
            detail = f"its link is lost, and its process still ran {UNLINKED_GRACE:g} s later"
            self._do(self.pool.unresponsive(handle.id, detail, self._now(), "transport"))
            handle.kill()  # also one that was not ready, or was about to exit

    # TemplateObserver

    def template_loaded(self, name: str, seconds: float) -> None:
        self._do(self.pool.template_loaded(name, seconds, self._now()))

    def template_refused(self, name: str, reason: str, why: str) -> None:
        self._do(self.pool.template_refused(name, reason, why, self._now()))

    def template_ended(self, name: str, exit: Exit, evidence: str) -> None:
        self._do(self.pool.template_ended(name, exit, evidence, self._now()))
        self._check_closed()

    # Actions

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            if type(action) is Assign:  # nearly all of them
                self._assign(action.calls, action.worker)
            else:
                self._perform(action)
        if self.pool.timers.soonest < self._timer_at:
            self._set_timer(self.pool.timers.soonest)

    def _assign(self, calls: Sequence[Call], worker: str) -> None:
        spec = self.pool.spec
        self.handles[worker].assign([self._in_flight[call.id] for call in calls], spec.max_payload, spec.max_buffer)
        if not calls[0].prefetched and not self.pool.dispatcher.load_index.with_free_slot:
            self._full += 1

    def _perform(self, action: Action) -> None:
        match action:
            case Fail(call, error):
                self._fail(call, error)
            case Emit(event):
                self._deps.emit(event)
            case Cancel(call, worker, reason):
                self.handles[worker].cancel(self._in_flight[call.id], reason)
            case Revoke(worker, calls):
                self._revoke(self.handles[worker], calls)
            case Start(worker, template):
                self._start(worker, template)
            case Stop(worker):
                self.handles[worker].stop()
            case Kill(worker, stacks):
                self.handles[worker].kill(stacks=stacks)
            case StartTemplate(template):
                self.templates.start(TemplateOrder(template, self.definition.adapter_path, self.pool.spec))
            case StopTemplate(template):
                self.templates.stop(template)

    def _fail(self, call: Call, error: errors.BrokerError) -> None:
        # A call that still runs stays in flight until its worker reports its end.
        one = self._in_flight[call.id] if call.worker else self._in_flight.pop(call.id)
        timing = one.timing(self._now())
        one.reply.failed(error, timing)
        command = call.command if call.command in self.commands else "unknown"
        self._deps.meter.executed(self.name, command, error.code, timing.queued, timing.ran)

    def _revoke(self, handle: WorkerHandle, calls: tuple[Call, ...]) -> None:
        asked, loop = calls if handle.revoke(calls) else (), asyncio.get_running_loop()
        handle.probe()  # its answer shows that it reads again
        loop.call_later(REVOKE_SETTLES, lambda: self.calls_revoked(handle, handle.confirm_revoked(asked)))

    def _start(self, worker: str, template: str) -> None:
        self.handles[worker] = handle = WorkerHandle(worker, self, self._now, started_wall=self._deps.clock.wall())
        task = asyncio.get_running_loop().create_task(self._launch(handle, template), name=f"launch {worker}")
        self._launches.add(task)
        task.add_done_callback(self._launches.discard)

    async def _launch(self, handle: WorkerHandle, template: str) -> None:
        parallelism = known_parallelism(handle.id, self.workers, self.handles)
        order = LaunchOrder(handle.id, self.definition.adapter_path, self.pool.spec, parallelism)
        try:
            handle.process = await self.templates.launch(template, order, lambda exit: self._exited(handle, exit))
        except ForkFailed as why:
            del self.handles[handle.id]
            self._do(self.pool.fork_failed(handle.id, str(why), self._now()))
            self._check_closed()
            return
        except Exception as error:
            self.pool.boot_failed(handle.id, f"it could not be launched: {error}")
            self._exited(handle, Exit())
            return
        if handle.kill_requested:
            handle.process.kill()
            return
        handle.link = self._deps.linker.link(handle.process.socket_path, handle)

    def _exited(self, handle: WorkerHandle, exit: Exit) -> None:
        """Its last results may still be in the socket. They count, and the end of the link follows them."""
        handle.exit = exit = handle.with_stacks(exit)
        if handle.link is None:
            self._gone(handle, exit)
            return
        self.pool.process_ended(handle.id)
        asyncio.get_running_loop().call_later(LAST_REPORTS, self._gone, handle, exit)

    def _gone(self, handle: WorkerHandle, exit: Exit) -> None:
        if self.handles.pop(handle.id, None) is None:
            return
        begun = handle.release()
        worker, output = self.workers.get(handle.id), handle.last_output()
        assigned = list(worker.assigned) if worker else []
        if worker and worker.ready_at == 0.0 and not worker.boot_failure:
            worker.boot_failure = describe_exit(exit) + (f"; it printed: {output[-500:]}" if output else "")
        self._do(self.pool.exited(handle.id, exit, self._now(), begun=begun, evidence=output))
        self._forget(assigned)
        self._check_closed()

    def _forget(self, numbers: Sequence[int]) -> None:
        """Drop calls that the pool has answered and does not try again."""
        for number in numbers:
            if number not in self.pool.calls:
                self._in_flight.pop(number, None)

    def _check_closed(self) -> None:
        if self.pool.worker_set.closing and not self.workers and self.templates.is_empty:
            self.closed.set()

    def _set_timer(self, at: float) -> None:
        """One timer of the event loop for all of the pool. It may be early, which does no harm."""
        if self._timer:
            self._timer.cancel()
        self._timer, self._timer_at = None, at
        if at < NEVER:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, at - self._now()), self._tick)

    def _tick(self) -> None:
        self._timer, self._timer_at = None, NEVER
        self._do(self.pool.tick(self._now()))
