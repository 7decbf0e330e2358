"""A worker as the pool sees it: where it is (state), why (reason), and what it holds.

>>> advance(State.READY, State.DRAINING)
<State.DRAINING: 'draining'>
>>> advance(State.DRAINING, State.READY)
Traceback (most recent call last):
    ...
pools.broker.worker.IllegalTransition: draining -> ready
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from pools.broker.call import Call
from pools.broker.growth import WorkerGrowth


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
    held: dict[int, Call] = field(default_factory=dict)
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

    @property
    def load(self) -> int:
        return len(self.held)

    def has_room(self) -> bool:
        return self.state is State.READY and len(self.held) < self.slots

    @property
    def stays(self) -> bool:
        """Whether it serves, and nothing is known that will end it soon."""
        return self.state is State.READY and not self.reason and not self.expected

    def is_idle(self) -> bool:
        """Whether it holds nothing that may still end by itself."""
        return len(self.held) <= self.lost

    def move(self, state: State) -> None:
        self.state = advance(self.state, state)

    def __repr__(self) -> str:
        return f"<Worker {self.id} {self.state} {self.load}/{self.slots}>"
