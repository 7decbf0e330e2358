"""The states of a job and the transitions between them. Models, tasks, triggers and tests use this one table.

queued ─▶ running ─▶ succeeded
   ▲ ▲       ├─▶ queued       the Celery worker stopped, or the attempt failed and may be repeated
   │ │       └─▶ failed, cancelled, lost, quarantined
   │ └─ retry of a job that ended without success
   └─▶ cancelled, failed (its deadline passed while it was queued)

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
LOST = "lost"  # its last attempt crashed with an unknown outcome
QUARANTINED = "quarantined"  # several workers died of it

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
    """A job's state may not change this way."""


def may_move(old: str, new: str) -> bool:
    return new in TRANSITIONS[old]


def sources(new: str) -> tuple[str, ...]:
    """The states from which a job may change to this one."""
    if new not in TRANSITIONS:
        raise IllegalMove(f"{new!r} is not a state of a job; the states are {', '.join(STATES)}")
    return tuple(old for old, allowed in TRANSITIONS.items() if new in allowed)
