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
from snakepit.pools.broker.pool.actions import (
    Action,
    Assign,
    Cancel,
    Dismiss,
    Fail,
    Kill,
    Prepare,
    Revoke,
    Start,
    Stop,
    Tell,
)
from snakepit.pools.broker.pool.call import Call
from snakepit.pools.broker.pool.pool import Pool
from snakepit.pools.broker.pool.recycle_policy import describe_exit
from snakepit.pools.broker.ports import (
    CommandInfo,
    Definition,
    Exit,
    Greeting,
    LaunchOrder,
    Payload,
    Race,
    TemplateOrder,
    Unforked,
    WorkerFailure,
)
from snakepit.pools.broker.runner.deps import RunnerDeps
from snakepit.pools.broker.runner.loop_timer import LoopTimer
from snakepit.pools.broker.runner.templates import Templates
from snakepit.pools.broker.runner.worker_handle import (
    DELIVERED,
    Reply,
    Request,
    Ticket,
    WorkerHandle,
    error_of,
    race_event,
)
from snakepit.pools.broker.stats.gil_report import why_on

UNLINKED_GRACE = 2.0  # seconds from a lost link to the end of its process, which usually ends by itself
LAST_ANSWERS = 0.5  # seconds for the end of a dead worker's link to be seen, should a child hold the socket open
LOOK_BACK = 0.002  # seconds after which it is certain which of the calls that were taken back had begun
MAX_TIMEOUT = 86_400.0  # seconds
MAX_RACES = 50  # pieces of state whose races are listed for a pool
MAX_CREDIT = 2**32 - 1  # chunks; the wire has no room for more


class Runner:
    """One pool at work. All methods are called on the event loop, none of them blocks."""

    def __init__(self, definition: Definition, world: RunnerDeps) -> None:
        self.definition = definition
        self.pool = Pool(definition.spec, world.boot, world.rng)
        self.commands: dict[str, CommandInfo] = {}
        self.staff: dict[str, WorkerHandle] = {}
        self.closed = asyncio.Event()
        self.templates = Templates(world.launcher, self)
        self.races: list[str] = []  # state that two threads wrote without a lock, of this definition
        self._world = world
        self._now = world.clock.monotonic
        self._tickets: dict[int, Ticket] = {}
        self._launches: set[asyncio.Task[None]] = set()
        self._alarm = LoopTimer(self._ring)

    def open(self) -> None:
        if why := self.definition.unfit:
            self.pool.worker_set.gate.bar(why)
            name = self.pool.spec.name
            self._world.tell(Event(Kind.POOL_FAILED, name, reason="interpreter", message=why, level="error"))
        self._do(self.pool.sweep(self._now()))

    # What callers want

    def submit(self, asked: Sequence[tuple[int, Request, Reply]]) -> None:
        """Take calls that are alike but for their arguments; answers come through `reply`, perhaps before this returns.

        The integer is the call's number in this broker's life.
        """
        now, alike, spec, boot = self._now(), asked[0][1], self.pool.spec, self._world.boot
        command = self.commands.get(alike.command)
        streams = command.streams if command else alike.credit > 0
        timeout = alike.timeout or (command.timeout if command else 0.0)
        timeout = min(timeout or (spec.stream_timeout if streams else spec.call_timeout), MAX_TIMEOUT)
        idempotent = command.idempotent if command else False
        calls = []
        for number, request, reply in asked:
            call = Call(
                number,
                request.command,
                arrived=now,
                deadline=now + timeout,
                size=request.size,
                priority=request.priority,
                idempotent=idempotent,
                streams=request.credit > 0,
            )
            ticket = Ticket(call, f"{boot}-{number}", request, reply, request.credit)
            if command is None and self.commands:
                reply.failed(errors.no_command(spec.name, request.command, self.commands), ticket.timing(now))
                self._world.meter.executed(spec.name, "unknown", errors.CommandUnknown.code, 0.0, 0.0)
                continue
            self._tickets[number] = ticket
            calls.append(call)
        self._do(self.pool.submit(calls, now))

    def cancel(self, number: int) -> None:
        self._do(self.pool.cancel(number, self._now()))

    def credit(self, number: int, chunks: int) -> None:
        """The caller has room for more chunks."""
        ticket = self._tickets.get(number)
        if ticket is None:
            return
        if ticket.call.worker and (staff := self.staff.get(ticket.call.worker)):
            staff.credit(ticket, chunks)
        else:
            ticket.credit = min(ticket.credit + chunks, MAX_CREDIT)

    # What operators and clocks want

    def apply(self, definition: Definition) -> None:
        moved = definition.adapter_path != self.definition.adapter_path
        self.definition = definition
        self.pool.worker_set.gate.bar(definition.unfit)
        if moved or definition.spec.needs_new_workers(self.pool.spec):
            self.races.clear()
        actions = self.pool.apply(definition.spec, self._now())
        if moved:
            actions += self.pool.recycle("", "the adapter's path changed", self._now())
        self._do(actions)

    def check_known(self, worker: str) -> None:
        if worker and worker not in self.pool.worker_set.workers:
            raise errors.WorkerUnknown(f"No worker {worker} lives in pool {self.pool.spec.name}.")

    def recycle(self, worker: str, detail: str) -> int:
        self._do(self.pool.recycle(worker, detail, self._now()))
        return self.marked()

    def kill(self, worker: str, detail: str) -> None:
        self._do(self.pool.kill(self.pool.worker_set.workers[worker], detail, self._now()))

    def marked(self) -> int:
        """Workers that are to leave."""
        return sum(bool(worker.reason) for worker in self.pool.worker_set.workers.values())

    def sweep(self, patience: float, interval: float) -> None:
        """Judge everyone, and ask every link for a sign of life; silence since the last sweep counts."""
        now = self._now()
        for staff in tuple(self.staff.values()):
            if staff.probed_at is not None and now - staff.probed_at >= patience:
                detail = f"its event loop did not answer for {now - staff.probed_at:.1f} s"
                self._do(self.pool.unresponsive(staff.id, detail, now, "event_loop", told=staff.silence_told))
                staff.silence_told = True
            staff.probe()
        self._do(self.pool.sweep(now, interval))

    def sampled(self, worker: str, memory_mb: float) -> None:
        self._do(self.pool.sampled(worker, memory_mb, self._now()))

    async def close(self) -> None:
        self._do(self.pool.close(self._now()))
        self._check_closed()
        await self.closed.wait()
        self._alarm.cancel()

    # What workers say

    def greeted(self, staff: WorkerHandle, greeting: Greeting) -> None:
        self.commands = {command.name: command for command in greeting.commands}
        for ticket in self._tickets.values():  # calls that came while nobody knew the commands
            if not ticket.call.attempts and (known := self.commands.get(ticket.call.command)):
                ticket.call.idempotent = known.idempotent
        self._do(self.pool.ready(staff.id, self._now()))
        if greeting.free_threaded and greeting.gil_enabled:
            self.gil_switched_on(staff)

    def gil_switched_on(self, staff: WorkerHandle) -> None:
        """Of a free-threaded interpreter: its threads take turns from now on."""
        greeting, spec = staff.greeting or Greeting(), self.pool.spec
        because = why_on(free_threaded=greeting.free_threaded, culprit=staff.gil_culprit, python=greeting.python)
        turns = f": its {spec.slots} threads take turns" if spec.slots > 1 else ""
        self._world.tell(
            Event(
                Kind.GIL_ENABLED,
                spec.name,
                staff.id,
                "import" if staff.gil_culprit else "environment",
                f"{because}{turns}",
                "warning",
                {"culprit": staff.gil_culprit, "slots": spec.slots, "parallelism": staff.parallelism},
            )
        )

    def load_failed(self, staff: WorkerHandle, failure: WorkerFailure) -> None:
        self.pool.boot_failed(staff.id, f"{failure.type}: {failure.message}" if failure.type else failure.message)

    def raced(self, staff: WorkerHandle, race: Race) -> None:
        if race.attribute not in self.races and len(self.races) < MAX_RACES:
            self.races.append(race.attribute)
        self._world.tell(race_event(self.pool.spec.name, staff.id, race))

    def succeeded(self, staff: WorkerHandle, ended: list[tuple[Ticket, Payload | None, float]]) -> None:
        now, meter, tickets = self._now(), self._world.meter, self._tickets
        times: dict[str, tuple[list[float], list[float]]] = {}  # waited and ran, by command
        for ticket, payload, seconds in ended:
            call = ticket.call
            tickets.pop(call.id, None)
            if call.answered:  # a late answer of a call that ended without it: nobody waits
                continue
            timing = ticket.timing(now, seconds)
            ticket.reply.done(payload, timing)
            waited, ran = times.get(call.command) or times.setdefault(call.command, ([], []))
            waited.append(timing.queued)
            ran.append(seconds)
        for command, (waited, ran) in times.items():
            meter.succeeded(self.pool.spec.name, command, waited, ran)
        numbers = [(ticket.call.id, seconds) for ticket, _, seconds in ended]
        self._do(self.pool.finished_many(staff.id, numbers, now))

    def delivered(self, staff: WorkerHandle, ticket: Ticket, seconds: float) -> None:
        self._world.meter.delivered(self.pool.spec.name, 1)
        self.succeeded(staff, [(ticket, DELIVERED, seconds)])

    def failed(self, staff: WorkerHandle, ticket: Ticket, failure: WorkerFailure, seconds: float) -> None:
        now = self._now()
        call = ticket.call
        self._tickets.pop(call.id, None)
        if not call.answered:
            error, timing = error_of(failure), ticket.timing(now, seconds)
            ticket.reply.failed(error, timing)
            self._world.meter.executed(self.pool.spec.name, call.command, error.code, timing.queued, timing.ran)
        self._do(self.pool.finished(staff.id, call.id, now, ok=False, seconds=seconds))

    def returned(self, staff: WorkerHandle, numbers: list[int]) -> None:
        self._do(self.pool.returned(staff.id, numbers, self._now()))
        for number in numbers:  # of those that were answered meanwhile, nobody will hear again
            if number not in self.pool.calls:
                self._tickets.pop(number, None)

    # What templates say

    def template_loaded(self, name: str, seconds: float) -> None:
        self._do(self.pool.template_loaded(name, seconds, self._now()))

    def template_refused(self, name: str, reason: str, why: str) -> None:
        self._do(self.pool.template_refused(name, reason, why, self._now()))

    def template_ended(self, name: str, exit: Exit, evidence: str) -> None:
        self._do(self.pool.template_ended(name, exit, evidence, self._now()))
        self._check_closed()

    def unlinked(self, staff: WorkerHandle) -> None:
        if staff.exit:
            self._gone(staff, staff.exit)
        elif staff.id in self.staff:
            asyncio.get_running_loop().call_later(UNLINKED_GRACE, self._cut_off, staff)

    def _cut_off(self, staff: WorkerHandle) -> None:
        """Its link is lost, and its process did not end of that."""
        if staff.id in self.staff:
            detail = f"its link is lost, and its process still ran {UNLINKED_GRACE:g} s later"
            self._do(self.pool.unresponsive(staff.id, detail, self._now(), "transport"))
            staff.kill()  # also one that was not ready, or was about to leave

    # Doing

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            if type(action) is Assign:  # nearly all of them
                self._assign(action.calls, action.worker)
            else:
                self._carry_out(action)
        self._alarm.set(self.pool.timers.soonest, self._now)

    def _assign(self, calls: Sequence[Call], worker: str) -> None:
        tickets = [self._tickets[call.id] for call in calls]
        self.staff[worker].assign(tickets, self.pool.spec.max_payload)
        if not calls[0].ahead and self.pool.door.is_full():
            self._world.meter.full(self.pool.spec.name, 1)

    def _carry_out(self, action: Action) -> None:
        match action:
            case Fail(call, error):
                self._fail(call, error)
            case Tell(event):
                self._world.tell(event)
            case Cancel(call, worker, reason):
                self.staff[worker].cancel(self._tickets[call.id], reason)
            case Revoke(worker, calls):
                self._revoke(self.staff[worker], calls)
            case Start() | Stop() | Kill() | Prepare() | Dismiss():
                self._attend(action)

    def _attend(self, action: Start | Stop | Kill | Prepare | Dismiss) -> None:
        """To the processes."""
        match action:
            case Start(worker, template):
                self._start(worker, template)
            case Stop(worker):
                self.staff[worker].leave()
            case Kill(worker):
                self.staff[worker].kill()
            case Prepare(template):
                self.templates.prepare(TemplateOrder(template, self.definition.adapter_path, self.pool.spec))
            case Dismiss(template):
                self.templates.dismiss(template)

    def _fail(self, call: Call, error: errors.BrokerError) -> None:
        # A call that still runs keeps its ticket until its worker lets go of it.
        ticket = self._tickets[call.id] if call.worker else self._tickets.pop(call.id)
        timing = ticket.timing(self._now())
        ticket.reply.failed(error, timing)
        command = call.command if call.command in self.commands else "unknown"
        self._world.meter.executed(self.pool.spec.name, command, error.code, timing.queued, timing.ran)

    def _revoke(self, staff: WorkerHandle, calls: tuple[Call, ...]) -> None:
        asked = staff.revoke(calls)
        loop = asyncio.get_running_loop()
        loop.call_later(LOOK_BACK, lambda: self.returned(staff, staff.look_back(calls) if asked else []))

    def _start(self, worker: str, template: str) -> None:
        self.staff[worker] = staff = WorkerHandle(worker, self, self._now, started_wall=self._world.clock.wall())
        task = asyncio.get_running_loop().create_task(self._launch(staff, template), name=f"launch {worker}")
        self._launches.add(task)
        task.add_done_callback(self._launches.discard)

    async def _launch(self, staff: WorkerHandle, template: str) -> None:
        order = LaunchOrder(staff.id, self.definition.adapter_path, self.pool.spec)
        try:
            staff.process = await self.templates.bring(template, order, lambda exit: self._exited(staff, exit))
        except Unforked as why:
            del self.staff[staff.id]
            self._do(self.pool.unforked(staff.id, str(why), self._now()))
            self._check_closed()
            return
        except Exception as error:
            self.pool.boot_failed(staff.id, f"it could not be launched: {error}")
            self._exited(staff, Exit())
            return
        if staff.doomed:
            staff.process.kill()
            return
        staff.wire = self._world.linker.link(staff.process.socket_path, staff)

    def _exited(self, staff: WorkerHandle, exit: Exit) -> None:
        """Its last answers may still be in the socket: they count, and the end of the link comes right behind them."""
        if staff.wire is None:
            self._gone(staff, exit)
            return
        staff.exit = exit
        self.pool.ended(staff.id)
        asyncio.get_running_loop().call_later(LAST_ANSWERS, self._gone, staff, exit)

    def _gone(self, staff: WorkerHandle, exit: Exit) -> None:
        if self.staff.pop(staff.id, None) is None:
            return
        if staff.wire:
            staff.wire.close()
            staff.wire = None
        begun = staff.begun() if staff.process else set()
        worker = self.pool.worker_set.workers.get(staff.id)
        held = list(worker.held) if worker else []
        if worker and worker.ready_at == 0.0 and not worker.boot_failure:
            words = staff.last_words()
            worker.boot_failure = describe_exit(exit) + (f"; it printed: {words[-500:]}" if words else "")
        self._do(self.pool.gone(staff.id, exit, self._now(), begun=begun, evidence=staff.last_words()))
        for number in held:  # whoever was not given another try is answered by now
            if number not in self.pool.calls:
                self._tickets.pop(number, None)
        self._check_closed()

    def _check_closed(self) -> None:
        if self.pool.worker_set.closing and not self.pool.worker_set.workers and self.templates.is_empty:
            self.closed.set()

    # Time

    def _ring(self) -> None:
        self._do(self.pool.tick(self._now()))
