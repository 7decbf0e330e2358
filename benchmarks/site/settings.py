"""`snakepit.site`'s settings with the pool `work`."""

from pathlib import Path

from snakepit.site.settings import *  # noqa: F403
from snakepit.site.settings import SNAKEPIT

ROOT_URLCONF = "benchmarks.site.urls"
SNAKEPIT = SNAKEPIT | {
    "WORKER_PATH": [str(Path(__file__).parents[2])],
    "ADAPTERS": {"work": "benchmarks.work.Work", "model": "benchmarks.batching.Model"},
    "POOLS": {
        "work": {"adapter": "work", "size": 2, "queue_timeout": 60.0},
        "model": {"adapter": "model", "size": 1, "queue_timeout": 60.0},
    },
}
