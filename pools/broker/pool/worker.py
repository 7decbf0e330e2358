"""A worker as the pool sees it: where it is (state), why (reason), and what it holds.

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

from snakepit.pools.broker.pool.call import Call
from snakepit.pools.broker.stats.memory_growth import WorkerGrowth

# Handing short calls over before there is a slot saves the wake-ups between them, which cost more than they do. None
# of them may wait long for it: at most this many seconds and calls are ahead of a worker's slots, each.
AHEAD_SECONDS = 0.002
AHEAD_CALLS = 64


class State(StrEnum):
    STARTING = "starting"  # the process exists or is about to; its adapter is not loaded yet
    READY = "ready"  # may be given calls
    DRAINING = "draining"  # finishes what it holds, takes nothing new
    STOPPING = "stopping"  # asked to leave, or killed; not reaped yet
    GONE = "gone"  # reaped


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
    id: str
    generation: int
    slots: int
    born: float
    state: State = State.STARTING
    reason: str = ""  # why it leaves: one word of the events' reasons
    detail: str = ""  # the same with its numbers, for people
    ready_at: float = 0.0
    held: dict[int, Call] = field(default_factory=dict)  # as assigned: the first `slots` run, the others wait there
    backlog: float = 0.0  # seconds that all it holds is expected to take, one after the other
    recalled: bool = False  # it is asked to give back what it has not begun
    stalled: bool = False  # it was asked, and has ended no call since: it is handed nothing ahead
    lost: int = 0
    served: int = 0
    memory_mb: float = -1.0
    above_soft: int = 0  # samples in a row above the soft line
    stretch: float = 1.0  # of its age and count, by chance: workers that began together shall not end together
    ttl: float | None = None  # its own, jittered
    max_served: int | None = None  # its own, jittered
    expected: bool = False  # it will be due before a successor could be ready, if that was started later
    template: str = ""  # that it was forked from; empty: it was spawned
    growth: WorkerGrowth = field(default_factory=WorkerGrowth)
    leak: str = ""  # its growth in words, once it is above a line
    boot_failure: str = ""
    killed: bool = False  # by us: its death is no crash
    dead: bool = False  # its process has ended; what it said before may still be on the way

    @property
    def load(self) -> int:
        """Calls that run."""
        return min(len(self.held), self.slots)

    @property
    def ahead(self) -> int:
        """Calls that are in its hands already and wait there for a slot."""
        return max(0, len(self.held) - self.slots)

    def has_room(self) -> bool:
        return self.state is State.READY and len(self.held) < self.slots and not self.dead

    @property
    def stays(self) -> bool:
        """Whether it serves, and nothing is known that will end it soon."""
        return self.state is State.READY and not self.reason and not self.expected

    def may_hold_more(self) -> bool:
        """Whether a short call may be handed to it before a slot is free."""
        return (
            self.backlog <= AHEAD_SECONDS * self.slots
            and self.state is State.READY
            and len(self.held) < self.slots + AHEAD_CALLS
            and not self.reason
            and not self.stalled
            and not self.dead
            and not self.lost
            and (self.max_served is None or self.served + len(self.held) < self.max_served)
        )

    def room_ahead(self, expected: float) -> int:
        """How many calls that each take so long may be handed to it at once; of one that may hold more, 1 or more."""
        room = self.slots + AHEAD_CALLS - len(self.held)
        if self.max_served is not None:
            room = min(room, self.max_served - self.served - len(self.held))
        spare = AHEAD_SECONDS * self.slots - self.backlog
        return max(1, room if expected * room <= spare else min(room, 1 + int(spare / expected)))

    def waiting(self) -> tuple[Call, ...]:
        """The calls that it holds and has no slot for, the next one first."""
        return tuple(islice(self.held.values(), self.slots, None))

    def runs(self, call: Call) -> bool:
        return call.id in islice(self.held, self.slots)

    def let_go(self, number: int) -> Call:
        call = self.held.pop(number)
        # Sums of small numbers drift: an empty worker starts anew.
        self.backlog = self.backlog - call.expected if self.held else 0.0
        return call

    def is_idle(self) -> bool:
        """Whether it holds nothing that may still end by itself."""
        return len(self.held) <= self.lost

    def move(self, state: State) -> None:
        self.state = advance(self.state, state)

    def __repr__(self) -> str:
        return f"<Worker {self.id} {self.state} {self.load}/{self.slots}>"
