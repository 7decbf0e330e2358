"""Durable jobs: calls that survive crashes of worker, broker, Celery worker and message transport.

submit() ─▶ Job row ─ on commit ─▶ message (the id alone) ─▶ Celery ─▶ runner ─▶ client ─▶ broker
              ▲  ▲                                                        │ claim, lease, fenced writes
              │  └────────────────────────────────────────────────────────┘
              └── reconcile(): resends unclaimed jobs, frees jobs whose lease has expired

The row holds the state of a job. A message is only a hint: it may be lost, duplicated or late.
"""

from snakepit.pools.jobs import failure_hook  # noqa: F401  (adds its step to `after_end`)
from snakepit.pools.jobs.bulk import asubmit_many, submit_many
from snakepit.pools.jobs.control import cancel, clone, retry
from snakepit.pools.jobs.queues import pause_queue, resume_queue
from snakepit.pools.jobs.submission import asubmit, submit
from snakepit.pools.jobs.unique import Unique
from snakepit.pools.jobs.workflows import Workflow

__all__ = [
    "Unique",
    "Workflow",
    "asubmit",
    "asubmit_many",
    "cancel",
    "clone",
    "pause_queue",
    "resume_queue",
    "retry",
    "submit",
    "submit_many",
]
