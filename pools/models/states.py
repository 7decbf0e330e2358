"""The states of a job and the moves between them. Pure: rows, tasks and tests all read this one table.

queued ─▶ running ─▶ succeeded
   ▲ ▲       ├─▶ queued       an attempt is given back, or failed and may be tried again
   │ │       └─▶ failed, cancelled, lost, quarantined
   │ └─ retry of an ended job that did not succeed
   └─▶ cancelled, failed (its deadline passed while it waited)

>>> may_move(QUEUED, RUNNING), may_move(SUCCEEDED, QUEUED)
(True, False)
>>> sources(CANCELLED)
('queued', 'running')
"""

from __future__ import annotations

QUEUED = "queued"
RUNNING = "running"
SUCCEEDED = "succeeded"
FAILED = "failed"
CANCELLED = "cancelled"
LOST = "lost"  # its last attempt vanished: nobody knows what became of the work
QUARANTINED = "quarantined"  # its attempts kept killing workers

TRANSITIONS: dict[str, frozenset[str]] = {
    QUEUED: frozenset({RUNNING, CANCELLED, FAILED}),
    RUNNING: frozenset({SUCCEEDED, FAILED, CANCELLED, LOST, QUARANTINED, QUEUED}),
    SUCCEEDED: frozenset(),
    FAILED: frozenset({QUEUED}),
    CANCELLED: frozenset({QUEUED}),
    LOST: frozenset({QUEUED}),
    QUARANTINED: frozenset({QUEUED}),
}
STATES = tuple(TRANSITIONS)
ACTIVE = (QUEUED, RUNNING)
TERMINAL = tuple(state for state in STATES if state not in ACTIVE)
UNSUCCESSFUL = tuple(state for state in TERMINAL if state != SUCCEEDED)


class IllegalMove(ValueError):
    """A job cannot go from the state it is in to the one that was asked for."""


def may_move(old: str, new: str) -> bool:
    return new in TRANSITIONS[old]


def sources(new: str) -> tuple[str, ...]:
    """The states from which a job may come to this one."""
    if new not in TRANSITIONS:
        raise IllegalMove(f"{new!r} is not a state of a job; the states are {', '.join(STATES)}")
    return tuple(old for old, allowed in TRANSITIONS.items() if new in allowed)
