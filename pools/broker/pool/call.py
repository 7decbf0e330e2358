"""One run of a command, from its submission to its answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Call:
    """The pool's view of a call. Times are monotonic seconds; the arguments stay with the runner.

    `answered` turns true with the caller's answer. A call that was answered early (deadline, cancel) may stay in a
    worker's hands for a while: it still holds its slot.
    """

    id: int
    command: str
    arrived: float
    deadline: float
    size: int = 0
    priority: int = 0
    idempotent: bool = False
    attempts: int = 0
    streams: bool = False  # the caller wants chunks as they come
    worker: str = ""  # who holds it; empty while it waits
    assigned: float = 0.0
    ahead: bool = False  # it was handed over before there was a slot for it
    expected: float = 0.0  # seconds that its worker is believed to need for it, from its assignment on
    begun: bool = False  # by a worker that died of it or beside it
    answered: bool = False
    lost: bool = False  # asked to end, did not: its slot is gone until its worker is
