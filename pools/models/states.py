"""The states of a job and the transitions between them. Models, tasks, triggers and tests use this one table.

queued ─▶ running ─▶ succeeded
   ▲ ▲       ├─▶ queued       the Celery worker stopped, or the attempt failed and may be repeated
   │ │       └─▶ failed, cancelled, lost, quarantined
   │ └─ retry of a job that ended without success
   └─▶ cancelled, failed (its deadline passed while it was queued)

blocked waits for other jobs of its workflow ─▶ queued, cancelled, failed

>>> may_move(QUEUED, RUNNING), may_move(SUCCEEDED, QUEUED)
(True, False)
>>> sources(CANCELLED)
('blocked', 'queued', 'running')
"""

from __future__ import annotations

from datetime import datetime

BLOCKED = "blocked"  # waits for the end of other jobs
QUEUED = "queued"
RUNNING = "running"
SCHEDULED = "scheduled"  # shown, not stored: queued, and `run_after` has not come
SUCCEEDED = "succeeded"
FAILED = "failed"
CANCELLED = "cancelled"
LOST = "lost"  # its last attempt crashed with an unknown outcome
QUARANTINED = "quarantined"  # several workers died of it

TRANSITIONS: dict[str, frozenset[str]] = {
    BLOCKED: frozenset({QUEUED, CANCELLED, FAILED}),
    QUEUED: frozenset({RUNNING, CANCELLED, FAILED}),
    RUNNING: frozenset({SUCCEEDED, FAILED, CANCELLED, LOST, QUARANTINED, QUEUED}),
    SUCCEEDED: frozenset(),
    FAILED: frozenset({QUEUED, BLOCKED}),
    CANCELLED: frozenset({QUEUED, BLOCKED}),
    LOST: frozenset({QUEUED, BLOCKED}),
    QUARANTINED: frozenset({QUEUED, BLOCKED}),
}
STATES = tuple(TRANSITIONS)
SHOWN_STATES = (SCHEDULED, *STATES)
ACTIVE = (BLOCKED, QUEUED, RUNNING)
WAITING = (BLOCKED, QUEUED)
TERMINAL = tuple(state for state in STATES if state not in ACTIVE)
UNSUCCESSFUL = tuple(state for state in TERMINAL if state != SUCCEEDED)


def shown(state: str, run_after: datetime | None, now: datetime) -> str:
    """The state that every surface shows: `queued` is `scheduled` until `run_after`.

    >>> noon = datetime(2026, 1, 31, 12)
    >>> shown(QUEUED, noon, datetime(2026, 1, 31, 11)), shown(QUEUED, noon, noon), shown(RUNNING, noon, noon)
    ('scheduled', 'queued', 'running')
    """
    return SCHEDULED if state == QUEUED and run_after is not None and run_after > now else state


class IllegalMove(ValueError):
    """A job's state may not change this way."""


def may_move(old: str, new: str) -> bool:
    return new in TRANSITIONS[old]


def sources(new: str) -> tuple[str, ...]:
    """The states from which a job may change to this one."""
    if new not in TRANSITIONS:
        raise IllegalMove(f"{new!r} is not a state of a job; the states are {', '.join(STATES)}")
    return tuple(old for old, allowed in TRANSITIONS.items() if new in allowed)
