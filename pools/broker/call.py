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
    worker: str = ""  # who holds it; empty while it waits
    assigned: float = 0.0
    begun: bool = False  # by a worker that died of it or beside it
    answered: bool = False
    lost: bool = False  # asked to end, did not: its slot is gone until its worker is
