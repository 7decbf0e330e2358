"""A worker in the memory of its pool: its state, why it is replaced, and the calls assigned to it.

>>> advance(State.READY, State.DRAINING)
<State.DRAINING: 'draining'>
>>> advance(State.DRAINING, State.READY)
Traceback (most recent call last):
    ...
snakepit.pools.broker.pool.worker.IllegalTransition: draining -> ready
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice

from snakepit.pools.broker.pool.calls import Call
from snakepit.pools.broker.stats.memory_growth import WorkerGrowth


class State(StrEnum):
    STARTING = "starting"  # the process exists or is about to; its adapter is not loaded yet
    READY = "ready"  # it takes calls
    DRAINING = "draining"  # it finishes its calls and takes no new ones
    STOPPING = "stopping"  # asked to exit, or killed; not reaped yet
    GONE = "gone"  # reaped


READY = State.READY  # for what each call asks: to read an attribute of an enum takes as long as a short function


class IllegalTransition(Exception):
    """The worker cannot move between these two states."""


TRANSITIONS = {
    State.STARTING: {State.READY, State.STOPPING, State.GONE},
    State.READY: {State.DRAINING, State.STOPPING, State.GONE},
    State.DRAINING: {State.STOPPING, State.GONE},
    State.STOPPING: {State.GONE},
    State.GONE: set(),
}


def advance(old: State, new: State) -> State:
    if new not in TRANSITIONS[old]:
        raise IllegalTransition(f"{old} -> {new}")
    return new


@dataclass(slots=True, eq=False)
class Worker:
    """A record: the dispatcher decides which calls it gets, the worker set decides when it leaves."""

    id: str
    generation: int
    slots: int
    born: float
    state: State = State.STARTING
    reason: str = ""  # why it leaves: one word of the events' reasons
    detail: str = ""  # the same with its numbers, for people
    ready_at: float = 0.0
    assigned: dict[int, Call] = field(default_factory=dict)  # in order: the first `places` run, the rest is prefetched
    riders: int = 0  # of the calls it holds, those that share the slot of the first call of their batch
    places: int = field(init=False)  # calls that its slots have room for: a batch takes one slot
    backlog: float = 0.0  # seconds that all calls it holds are expected to take, one after the other
    revoking: bool = False  # a Revoke is under way
    stalled: bool = False  # calls were revoked, and it has ended none since: it gets no prefetched calls
    watched: bool = False  # a timer is set that finds a call with a slot that does not begin
    silent: bool = False  # such a call was revoked, and it has reported nothing since: it gets no calls
    lost: int = 0  # slots
    served: int = 0
    memory_mb: float = -1.0
    above_soft: int = 0  # samples in a row above the soft limit
    jitter_factor: float = 1.0  # random factor of its age and count: workers that started together do not end together
    ttl: float | None = None  # its own, stretched
    max_served: int | None = None  # its own, stretched
    expires_soon: bool = False  # its age ends within the time that a start takes: its successor starts now
    template: str = ""  # the template it was forked from; empty: it was spawned
    growth: WorkerGrowth = field(default_factory=WorkerGrowth)
    leak: str = ""  # its memory growth in words, once it is above a limit
    boot_failure: str = ""
    killed: bool = False  # by the broker: its death is no crash
    out_of_memory: bool = False  # the kernel killed it, because its memory cgroup reached its limit
    process_ended: bool = False  # its last messages may still arrive

    def __post_init__(self) -> None:
        self.places = self.slots

    def share(self, calls: int) -> None:
        """Count calls that share the slot of another one; fewer: some have ended."""
        self.riders += calls
        self.places += calls

    @property
    def load(self) -> int:
        """Slots that are taken."""
        return min(len(self.assigned) - self.riders, self.slots)

    @property
    def prefetched(self) -> int:
        """Calls that it holds and that have no slot yet."""
        return max(0, len(self.assigned) - self.places)

    @property
    def stays(self) -> bool:
        """Whether it serves and is not due for replacement."""
        return self.state is State.READY and not self.reason and not self.expires_soon

    def waiting(self) -> tuple[Call, ...]:
        """Return the prefetched calls, the next one first."""
        return tuple(islice(self.assigned.values(), self.places, None))

    def runs(self, call: Call) -> bool:
        return call.id in islice(self.assigned, self.places)

    def is_idle(self) -> bool:
        """Whether it holds no call that may still end by itself."""
        return len(self.assigned) - self.riders <= self.lost

    def move(self, state: State) -> None:
        self.state = advance(self.state, state)

    def __repr__(self) -> str:
        return f"<Worker {self.id} {self.state} {self.load}/{self.slots}>"
