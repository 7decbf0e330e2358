"""`snakepit.site`'s settings with the pool `p`. Workers are recycled, and an interrupted job runs again soon."""

from pathlib import Path

from snakepit.site.settings import *  # noqa: F403
from snakepit.site.settings import SNAKEPIT

SNAKEPIT = SNAKEPIT | {
    "WORKER_PATH": [str(Path(__file__).parents[3])],
    "ADAPTERS": {"target": "benchmarks.faults.adapter.Target"},
    "POOLS": {
        "p": {
            "adapter": "target",
            "size": 2,
            "queue_timeout": 60.0,
            "death_budget": 100_000,
            "max_requests": 2000,
            "min_lifetime": 1.0,
        }
    },
    "RECONCILE_INTERVAL": 1.0,
    "JOBS_LEASE": 5.0,
    "JOBS_RESEND": 3.0,
    "JOBS_BACKOFF": 0.2,
}
