"""Durable jobs: calls that survive the death of whatever runs them.

submit() ─▶ Job row ─ on commit ─▶ message (the id alone) ─▶ Celery ─▶ attempt.run() ─▶ client ─▶ broker
              ▲  ▲                                                        │ claim, lease, fenced writes
              │  └────────────────────────────────────────────────────────┘
              └── reconcile(): sends again what nobody claimed, frees what nobody holds any more

The row is the truth; a message is a hint that may be lost, doubled or late.
"""

from snakepit.pools.jobs.control import cancel, clone, retry
from snakepit.pools.jobs.submission import submit

__all__ = ["cancel", "clone", "retry", "submit"]
